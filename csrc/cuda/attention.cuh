// What all attention kernels share: which keys a query sees, how a score is made, and where the rows of a matrix lie.
//
//     s_ij = scale q_i·k_j + mask_ij - slope_h |t_i - j|        query i stands at t_i = offset + i among the keys
//
// Query i sees an interval of keys, low_i <= j < high_i. Causality, windows and spans only narrow it, and neither end
// decreases with i. So the keys that a tile of queries sees are one run, and so are the queries that see a tile of
// keys: tiles outside are never visited.
#pragma once
#include "rows.cuh"

// The parameters that are the same in every kernel, and the Options made of them.
#define ATTENTION_PARAMETERS(T)                                                                                       \
    const T *mask, const T *slopes, const long long *spans, int H, int G, int Tq, int Tk, int d, int dv,              \
        mt::wide<T> scale, int causal, long long window, long long offset, long long spans_b, long long mask_b,       \
        long long mask_h, long long mask_i, long long mask_j
#define ATTENTION_OPTIONS(T)                                                                                          \
    mt::Options<T> {                                                                                                  \
        mask, slopes, spans, H, G, Tq, Tk, d, dv, scale, causal, window, offset, spans_b, mask_b, mask_h, mask_i,     \
            mask_j                                                                                                    \
    }

namespace mt {

struct Interval {
    int low, high;
};

template <class T> struct Options {
    const T *mask, *slopes;  // null, or (B, H, Tq, Tk) with the strides below, and (H,)
    const long long* spans;  // null, or (B or 1, Tq, 2)
    int H, G, Tq, Tk, d, dv;
    wide<T> scale;
    int causal;
    long long window, offset;  // window 0: none
    long long spans_b, mask_b, mask_h, mask_i, mask_j;  // 0 along an axis that is broadcast

    // The keys that query i of batch row b sees.
    __device__ Interval sees(int b, int i) const {
        const long long t = offset + i;
        long long low = 0, high = Tk;
        if (causal) high = min(high, t + 1);
        if (window) low = max(low, t - window + 1), high = min(high, t + window);
        if (spans) low = max(low, spans[b * spans_b + 2 * i]), high = min(high, spans[b * spans_b + 2 * i + 1]);
        return {int(min(low, (long long)Tk)), int(max(high, 0LL))};
    }

    // Queries first … last - 1 are those that see a key of [begin, end): where a condition that holds from some query
    // on begins to hold is found by halving.
    __device__ Interval seen_by(int b, int begin, int end) const {
        Interval queries = {0, Tq};
        for (int above = Tq; queries.low < above;) {
            const int middle = (queries.low + above) / 2;
            sees(b, middle).high > begin ? above = middle : queries.low = middle + 1;
        }
        for (int below = queries.low; below < queries.high;) {
            const int middle = (below + queries.high) / 2;
            sees(b, middle).low >= end ? queries.high = middle : below = middle + 1;
        }
        return queries;
    }

    // The score of a pair from its product; -inf where it is hidden, whatever the product is.
    __device__ wide<T> score(wide<T> product, int b, int h, int i, int j, Interval seen) const {
        const wide<T> hidden = -infinity<wide<T>>();
        if (j < seen.low || j >= seen.high) return hidden;
        wide<T> s = product * scale;
        if (slopes) {
            const long long distance = offset + i - j;
            s -= load(slopes[h]) * wide<T>(distance < 0 ? -distance : distance);
        }
        if (mask) {
            const wide<T> added = load(mask[b * mask_b + h * mask_h + i * mask_i + j * mask_j]);
            s = added == hidden ? hidden : s + added;
        }
        return s;
    }
};

// exp(s - level), and 0 where s is -inf, whatever the level: that of a row without keys is -inf too.
template <class A> __device__ A weight_of(A s, A level) {
    if (s == -infinity<A>()) return 0;
    return exp(s - (level == -infinity<A>() ? 0 : level));
}

// `count` rows of `width` numbers: one after the other, or in pages that a table names, row j in page table[j / page]
// at place j % page. A table's entry that is no page is never followed: its rows are NaN.
template <class T> struct Rows {
    const T* first;
    int count, width;
    const long long* table = nullptr;
    int page = 1, pages = 0, slots = 0;
    long long page_step = 0;

    __device__ const T* operator[](int j) const {
        if (!table) return first + (long long)j * width;
        const long long which = j / page < slots ? table[j / page] : -1;
        return which >= 0 && which < pages ? first + which * page_step + (long long)(j % page) * width : nullptr;
    }
    // 0 outside of the matrix.
    __device__ wide<T> at(int j, int column) const {
        if (j >= count || column >= width) return 0;
        const T* row = (*this)[j];
        return row ? load(row[column]) : not_a_number<wide<T>>();
    }
};

}  // namespace mt

// Of keys and values in a pool of pages (P, G, page, d): the table (B, slots), the tokens that each row holds, P.
#define PAGED_PARAMETERS const long long *table, const long long *lengths, int page, int pages, int slots

namespace mt {

// Batch row b's own Tk and offset, where keys lie in pages: its queries are its last tokens. A length that the table
// does not reach makes a row with a key of NaN.
template <class T>
__device__ Options<T> paged(Options<T> options, const long long* lengths, int b, int page, int slots) {
    if (!lengths) return options;
    options.Tk = int(max(0LL, min(lengths[b], (long long)slots * page + 1)));
    options.offset = (long long)options.Tk - options.Tq;
    return options;
}

template <class T>
__device__ Rows<T> keys_of(const T* x, const Options<T>& options, int width, int b, int g, const long long* table,
                           int page, int pages, int slots) {
    if (!table) return {x + (long long)(b * options.G + g) * options.Tk * width, options.Tk, width};
    const long long step = (long long)page * width;
    return {x + g * step, options.Tk, width, table + (long long)b * slots, page, pages, slots, options.G * step};
}

}  // namespace mt
