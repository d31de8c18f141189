// Attention without the (queries × keys) matrix: its tiles are made, used and forgotten while they are in the cache.
//
//   forward   Sᵀ = K Qᵀ,  P = softmax,  Oᵀ += Vᵀ Pᵀ
//             a lane is a query: its maximum and its sum need no shuffling across lanes
//   backward  S = Q Kᵀ,  dP = dO Vᵀ,  P = exp(S - lse),  dS = P (dP - delta),  dVᵀ += dOᵀ P,  dKᵀ += Qᵀ dS,
//             dQ += dS K; a lane is a key: its dk and dv are written once (attention_backward.cpp)
//
// What is transposed, once, is a strip: as many queries (or keys) as a tile has COLUMNS. It is used against all that it
// sees. A query sees an interval of keys, so a strip sees one: what lies outside is skipped; where an end crosses a
// tile, all is computed and the part outside then hidden. No result depends on the number of threads.
//
// Sources: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention); Dao 2023 (parallel over the
// sequence).
#include "attention_tiles.hpp"

namespace mt::MT_ISA {
namespace {

constexpr long GROUP = 4;  // strips of queries that use a block of keys in turn

// Sᵀ (keys × COLUMNS) of the keys from `first` on, which lie side by side at k, and the strip qt (times scale) from
// `query` on, whose last query is `last`.
template <class T>
void scores(const AttentionInput<T>& in, const Head<T>& head, const T* k, long first, long keys, const T* qt,
            long query, long last, T* s) {
    constexpr long C = COLUMNS<T>;
    constexpr int L = lanes<T>;
    product<T>(keys, C, in.width, k, in.width, 1, qt, C, s, C, false);
    if (head.slope != T(0)) add_slope(s, C, keys, head.slope, head.offset + query - first, -1);
    if (head.mask)
        add_mask(s, C, keys, last + 1 - query, head.mask + query * in.mask.query + first * in.mask.key, in.mask.key,
                 in.mask.query);
    // Keys [begin, end) are seen by all; of the others each lane sees those between its own low and high.
    const long begin = smaller(keys, larger(0l, head.low(last) - first)), end = smaller(keys, head.high(query) - first);
    if (begin == 0 && end == keys) return;
    T low[C], high[C];
    for (long c = 0; c < C; c++) {
        low[c] = T(head.low(smaller(query + c, last)) - first);
        high[c] = T(head.high(smaller(query + c, last)) - first);
    }
    for (long j = 0; j < keys; j++) {
        if (j == begin && begin < end) j = end;  // all see these
        if (j >= keys) break;
        const vec<T> key = splat(T(j));
        for (long c = 0; c < C; c += L) {
            const auto seen = (load(low + c) <= key) & (key < load(high + c));
            store(s + j * C + c, seen ? load(s + j * C + c) : splat(-INFINITE<T>));
        }
    }
}

// The queries of a strip, transposed, times scale: width × COLUMNS, zeros beyond the last query.
template <class T> void load_strip(const AttentionInput<T>& in, const T* q, long query, T* qt) {
    constexpr long C = COLUMNS<T>;
    const long rows = smaller(C, in.queries - query);
    if (rows < C) __builtin_memset(qt, 0, sizeof(T) * size_t(C * in.width));
    transpose(q + query * in.q.row, in.q.row, rows, in.width, qt, C, T(in.scale), false);
}

// ---------------------------------------------------------------- forward

template <class T> struct Strip {
    T *qt, *ot;          // width × COLUMNS, value_width × COLUMNS
    T *maximum, *sum;    // of each query's scores so far, and of exp(score - maximum)
};

template <class T> struct ForwardSpace {
    T *k, *v, *s, *rescale;
    Strip<T> strips[GROUP];
    long size;

    ForwardSpace(const AttentionInput<T>& in, T* memory) {
        constexpr long C = COLUMNS<T>;
        Cutter<T> cut{memory};
        k = cut(KEYS * in.width), v = cut(KEYS * in.value_width), s = cut(KEYS * C), rescale = cut(C);
        for (Strip<T>& x : strips) x = {cut(C * in.width), cut(C * in.value_width), cut(C), cut(C)};
        size = cut.size;
    }
};

// s becomes p = exp(s - maximum), and maximum and sum move on. What was summed up before must be multiplied by
// `rescale`.
template <class T> void online_softmax(T* s, long keys, T* maximum, T* sum, T* rescale) {
    constexpr long C = COLUMNS<T>;
    for (long c = 0; c < C; c += lanes<T>) {
        const vec<T> before = load(maximum + c);
        vec<T> high[2] = {before, before}, total = {};
        for (long j = 0; j < keys; j++) high[j & 1] = vmax(load(s + j * C + c), high[j & 1]);
        const vec<T> after = vmax(high[0], high[1]), reference = finite<T>(after);
        for (long j = 0; j < keys; j++) {
            const vec<T> p = vexp(load(s + j * C + c) - reference);
            store(s + j * C + c, p);
            total += p;
        }
        const vec<T> factor = vexp(before - reference);
        store(maximum + c, after);
        store(sum + c, load(sum + c) * factor + total);
        store(rescale + c, factor);
    }
}

// Multiplies a (rows × COLUMNS) lane by lane.
template <class T> MT_INLINE void multiply(T* a, long rows, const T* by) {
    const vec<T> by0 = load(by), by1 = load(by + lanes<T>);
    for (long r = 0; r < rows; r++, a += COLUMNS<T>) {
        store(a, load(a) * by0);
        store(a + lanes<T>, load(a + lanes<T>) * by1);
    }
}

template <class T> void begin_strip(const AttentionInput<T>& in, const Head<T>& head, long query, const Strip<T>& strip) {
    load_strip(in, head.q, query, strip.qt);
    for (long j = 0; j < COLUMNS<T>; j++) strip.maximum[j] = -INFINITE<T>, strip.sum[j] = 0;
    __builtin_memset(strip.ot, 0, sizeof(T) * size_t(COLUMNS<T> * in.value_width));
}

template <class T>
void finish_strip(const AttentionInput<T>& in, long query, const Strip<T>& strip, T* o, long o_row, T* lse) {
    const long rows = smaller(COLUMNS<T>, in.queries - query);
    for (long j = 0; j < rows; j++) lse[query + j] = strip.maximum[j] + log_of(strip.sum[j]);
    for (long j = 0; j < COLUMNS<T>; j++) strip.sum[j] = T(1) / (strip.sum[j] == 0 ? T(1) : strip.sum[j]);
    multiply(strip.ot, in.value_width, strip.sum);
    transpose(strip.ot, COLUMNS<T>, in.value_width, rows, o + query * o_row, o_row, T(1), true);
}

// Rows of keys or values side by side.
template <class T>
const T* rows_of(const AttentionInput<T>& in, const Head<T>& head, const Heads<const T>& x, const T* from, long first,
                 long rows, long width, T* space) {
    if (!head.table) return compact(from + first * x.row, x.row, rows, width, space);
    for (long j = 0; j < rows; j++)
        __builtin_memcpy(space + j * width, row_of(in.pages, head.table, x, from, first + j),
                         sizeof(T) * size_t(width));
    return space;
}

// One work item: GROUP strips of a head, from the query `from` on.
template <class T>
void attend(const AttentionInput<T>& in, const Head<T>& head, long from, long to, const ForwardSpace<T>& space, T* o,
            long o_row, T* lse) {
    constexpr long C = COLUMNS<T>;
    const long d = in.width, e = in.value_width, until = head.high(to - 1);
    for (long i = from; i < to; i += C) begin_strip(in, head, i, space.strips[(i - from) / C]);
    for (long first = head.low(from); first < until; first += KEYS) {
        const long here = smaller(KEYS, until - first);
        const T* k = rows_of(in, head, in.k, head.k, first, here, d, space.k);
        const T* v = rows_of(in, head, in.v, head.v, first, here, e, space.v);
        const bool hides = head.mask || head.low(to - 1) > first || head.high(from) < first + here;
        const bool careful = hides && !all_finite(v, here * e);
        for (long i = from; i < to; i += C) {
            const Strip<T>& strip = space.strips[(i - from) / C];
            const long last = smaller(i + C, to) - 1;
            const long begin = larger(0l, head.low(i) - first), keys = smaller(here, head.high(last) - first) - begin;
            if (keys <= 0) continue;
            scores(in, head, k + begin * d, first + begin, keys, strip.qt, i, last, space.s);
            online_softmax(space.s, keys, strip.maximum, strip.sum, space.rescale);
            multiply(strip.ot, e, space.rescale);
            add_product(careful, e, C, keys, v + begin * e, 1, e, space.s, C, strip.ot, C);
        }
    }
    for (long i = from; i < to; i += C) finish_strip(in, i, space.strips[(i - from) / C], o, o_row, lse);
}

template <class T> void forward(const AttentionInput<T>& in, Heads<T> o, T* lse) {
    if (4 * in.queries <= COLUMNS<T>) return attend_few(in, o, lse);
    const long heads = in.batches * in.heads, strips = divide_up(in.queries, COLUMNS<T>);
    const long strips_each = heads * divide_up(strips, GROUP) < SEGMENTS ? 1 : GROUP;
    const long rows = strips_each * COLUMNS<T>;  // of a work item
    const long items = divide_up(in.queries, rows);
    const int threads = threads_for(in, heads * items);
    const long size = ForwardSpace<T>(in, nullptr).size;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * size)));
    parallel_region([&](Team& team) {
        const ForwardSpace<T> space(in, memory + team.thread() * size);
        for (long item; (item = team.next_item()) < heads * items;) {
            const long h = item % heads, from = (items - 1 - item / heads) * rows;  // causal: the longest first
            const Head<T> head = head_of(in, h / in.heads, h % in.heads);
            attend(in, head, from, smaller(in.queries, from + rows), space,
                   head_of<T>(o, h / in.heads, h % in.heads), o.row, lse + h * in.queries);
        }
    }, threads);
}

}  // namespace

template <class T> AttentionKernels<T> attention_kernels() {
    return {forward<T>, attention_backward<T>, probabilities<T>};
}
template AttentionKernels<float> attention_kernels<float>();
template AttentionKernels<double> attention_kernels<double>();

}  // namespace mt::MT_ISA
