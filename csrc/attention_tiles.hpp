// What attention's passes share: a head and the keys that its queries see, its rows, its bias, and a product in which
// what is hidden stays hidden. For files compiled once per instruction set.
#pragma once
#include "attention.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "threads.hpp"
#include "tile.hpp"

namespace mt::MT_ISA {

// attention_rows.cpp: query by query, for the few of a decoding step and for people who look
template <class T> void attend_few(const AttentionInput<T>& in, Heads<T> o, T* lse);
template <class T> void probabilities(const AttentionInput<T>& in, const T* lse, const Chosen& chosen, T* p);
// attention_backward.cpp
template <class T>
void attention_backward(const AttentionInput<T>& in, Heads<const T> dout, Heads<const T> o, const T* lse, Heads<T> dq,
                        Heads<T> dk, Heads<T> dv);

constexpr long KEYS = 128;     // a block of keys; a multiple of every COLUMNS
constexpr long SEGMENTS = 16;  // pieces of work, at least: enough for all threads
constexpr double SMALL = 3e5;  // multiplications below which one thread is faster than two

template <class T> constexpr T INFINITE = T(__builtin_inf());

// In place of the maximum (or lse) of a row that sees no key, which is -inf: exp(-inf - 0) is the wanted 0, exp(-inf +
// inf) were NaN.
template <class T> MT_INLINE T finite(T x) { return x == -INFINITE<T> ? T(0) : x; }
template <class T> MT_INLINE vec<T> finite(vec<T> x) { return x == splat(-INFINITE<T>) ? vec<T>{} : x; }

// 0 1 2 …, one number a lane
template <class T> MT_INLINE vec<T> lane_numbers() {
    vec<T> x;
    for (int i = 0; i < lanes<T>; i++) x[i] = T(i);
    return x;
}

// ---------------------------------------------------------------- a head

// One head of queries. Query i sees the keys low(i) <= j < high(i), and neither end decreases with i: whole blocks of
// pairs outside are skipped, and only where an end crosses a tile is anything hidden in it.
template <class T> struct Head {
    const T *q, *k, *v, *mask;  // mask: nullptr if there is none
    T slope;                    // 0: none
    long queries, keys;
    long offset;                // query i stands at offset + i
    long from, until;           // it sees keys from i + from up to i + until - 1
    const int64_t *spans, *table;

    MT_INLINE long clipped(long j, long most) { return j < 0 ? 0 : j > most ? most : j; }
    [[gnu::always_inline]] long low(long i) const {
        return clipped(spans ? larger(i + from, long(spans[2 * i])) : i + from, keys);
    }
    [[gnu::always_inline]] long high(long i) const {
        return clipped(spans ? smaller(i + until, long(spans[2 * i + 1])) : i + until, keys);
    }
    // The queries first_seeing(j) <= i < end_seeing(j) may see key j.
    long first_seeing(long j) const {
        return first([&](long i) { return high(i) > j; });
    }
    long end_seeing(long j) const {
        return first([&](long i) { return low(i) > j; });
    }

  private:
    template <class Test> long first(Test test) const {  // query for which `test` holds, as it does for all later ones
        long a = 0, b = queries;
        while (a < b) {
            const long middle = (a + b) / 2;
            if (test(middle)) b = middle;
            else a = middle + 1;
        }
        return a;
    }
};

template <class T, class U> U* head_of(const Heads<U>& x, long batch, long head) {
    return x.data + batch * x.batch + head * x.head;
}

template <class T> Head<T> head_of(const AttentionInput<T>& in, long batch, long head) {
    constexpr long far = 1l << 40;  // beyond every key
    const Sight& sight = in.sight;
    const long group = head / larger(1l, in.heads / in.groups), paged = in.pages.table ? 0 : batch;
    Head<T> x{};
    x.q = head_of<T>(in.q, batch, head), x.k = head_of<T>(in.k, paged, group), x.v = head_of<T>(in.v, paged, group);
    if (in.mask.data) x.mask = in.mask.data + batch * in.mask.batch + head * in.mask.head;
    x.slope = in.slopes ? in.slopes[head] : T(0);
    x.queries = in.queries, x.keys = in.keys, x.offset = sight.offset;
    if (in.pages.table) {
        x.table = in.pages.table + batch * in.pages.table_row;
        x.keys = in.pages.lengths[batch], x.offset = x.keys - in.queries;
    }
    x.from = sight.window ? x.offset - sight.window + 1 : -far;
    x.until = sight.causal ? x.offset + 1 : sight.window ? x.offset + sight.window : far;
    x.spans = sight.spans ? sight.spans + batch * sight.spans_batch : nullptr;
    return x;
}

template <class T> int threads_for(const AttentionInput<T>& in, long items) {
    const double work =
        double(in.batches * in.heads) * double(in.queries) * double(in.keys) * double(in.width + in.value_width);
    return work < SMALL ? 1 : int(larger(1l, smaller(items, long(thread_count()))));
}

// Row j of a head of keys or values, in its page if there are pages.
template <class T>
MT_INLINE const T* row_of(const Pages& pages, const int64_t* table, const Heads<const T>& x, const T* head, long j) {
    return table ? head + table[j / pages.size] * x.batch + j % pages.size * x.row : head + j * x.row;
}

// ---------------------------------------------------------------- what is added to the scores

// s_rj += mask[r along_rows + j along_lanes], j < columns <= COLUMNS; -inf hides even NaN
template <class T>
static void add_mask(T* s, long s_row, long rows, long columns, const T* mask, long along_rows, long along_lanes) {
    constexpr T hidden = -INFINITE<T>;
    for (long r = 0; r < rows; r++, s += s_row, mask += along_rows) {
        if (along_lanes == 1)
            for_vectors<T>(columns, [&](long j, auto part) {
                const vec<T> m = part.get(mask + j);
                part.put(s + j, m == splat(hidden) ? m : part.get(s + j) + m);
            });
        else
            for (long j = 0; j < columns; j++)
                s[j] = mask[j * along_lanes] == hidden ? hidden : s[j] + mask[j * along_lanes];
    }
}

// s_rj -= slope |distance + r along_rows + j|, over COLUMNS lanes
template <class T>
static void add_slope(T* s, long s_row, long rows, T slope, long distance, long along_rows) {
    for (long r = 0; r < rows; r++, s += s_row, distance += along_rows)
        for (long j = 0; j < COLUMNS<T>; j += lanes<T>)
            store(s + j, load(s + j) - vabs(lane_numbers<T>() + T(distance + j)) * slope);
}

// ---------------------------------------------------------------- products that hidden pairs do not enter

template <class T> static bool all_finite(const T* x, long n) {  // x 0 is NaN where x is not finite
    return sum_vectors<T>(n, [&](long i, auto part) { return part.get(x + i) * T(0); }) == T(0);
}

// c += a b as `product` does, except that a factor 0 wins over inf and NaN: what is hidden has probability 0. For tiles
// that hold such numbers, slow.
template <class T>
static void careful_product(long rows, long columns, long depth, const T* a, long row, long step, const T* b,
                            long b_row, T* c, long c_row) {
    for (long i = 0; i < rows; i++)
        for (long k = 0; k < depth; k++) {
            const T x = a[i * row + k * step];
            if (x == T(0)) continue;
            for_vectors<T>(columns, [&](long j, auto part) {
                const vec<T> y = part.get(b + k * b_row + j), sum = part.get(c + i * c_row + j);
                part.put(c + i * c_row + j, y == T(0) ? sum : sum + x * y);
            });
        }
}

// c += a b, one way or the other
template <class T>
static void add_product(bool careful, long rows, long columns, long depth, const T* a, long row, long step, const T* b,
                        long b_row, T* c, long c_row) {
    if (careful) careful_product(rows, columns, depth, a, row, step, b, b_row, c, c_row);
    else product<T>(rows, columns, depth, a, row, step, b, b_row, c, c_row, true);
}

// ---------------------------------------------------------------- memory

// Cuts one allocation into pieces that start on cache lines. Without memory it only counts.
template <class T> struct Cutter {
    T* memory;
    long size = 0;
    T* operator()(long n) {
        T* piece = memory ? memory + size : nullptr;
        size += round_up(n, 64 / long(sizeof(T)));
        return piece;
    }
};

}  // namespace mt::MT_ISA
