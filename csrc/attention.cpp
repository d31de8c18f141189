// Attention without the (queries × keys) matrix: its tiles are made, used and forgotten while they are in the cache.
//
//   forward   Sᵀ = K Qᵀ,  P = softmax,  Oᵀ += Vᵀ Pᵀ
//             a lane is a query: its maximum and its sum need no shuffling across lanes
//   backward  S = Q Kᵀ,  dP = dO Vᵀ,  P = exp(S - lse),  dS = P (dP - delta),  dVᵀ += dOᵀ P,  dKᵀ += Qᵀ dS,
//             dQ += dS K; a lane is a key: its dk and dv are written once
//
// What is transposed, once, is a strip: as many queries (or keys) as a tile has COLUMNS. It is used against the whole
// sequence. Causal: strips above the diagonal are skipped; where it crosses one, all is computed and the part above it
// then hidden. No result depends on the number of threads.
//
// Sources: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention); Dao 2023 (parallel over the
// sequence).
#include "attention.hpp"

#include "rows.hpp"
#include "simd.hpp"
#include "threads.hpp"
#include "tile.hpp"

namespace mt::MT_ISA {
namespace {

constexpr long KEYS = 128;         // a block of keys; a multiple of every COLUMNS
constexpr long QUERIES = 96;       // a block of queries in backward; a multiple of ROWS
constexpr long GROUP = 4;          // strips of queries that use a block of keys in turn
constexpr long SEGMENTS = 16;      // backward: heads × segments of each are at least as many: work for all threads
constexpr double SMALL = 3e5;      // multiplications below which one thread is faster than two

template <class T> constexpr T INFINITE = T(__builtin_inf());

MT_INLINE float logarithm(float x) { return __builtin_logf(x); }
MT_INLINE double logarithm(double x) { return __builtin_log(x); }

// In place of the maximum (or lse) of a row that sees no key, which is -inf: exp(-inf - 0) is the wanted 0, exp(-inf +
// inf) were NaN.
template <class T> MT_INLINE T finite(T x) { return x == -INFINITE<T> ? T(0) : x; }
template <class T> MT_INLINE vec<T> finite(vec<T> x) { return x == splat(-INFINITE<T>) ? vec<T>{} : x; }

// ---------------------------------------------------------------- a head and its scores

template <class T> struct Head {
    const T *q, *k, *v, *mask;  // mask: nullptr if there is none
    long shift;                 // query i sees the keys j <= i + shift
};

template <class T, class U> U* head_of(const AttentionInput<T>& in, const Heads<U>& x, long head) {
    return x.data + head / in.heads * x.batch + head % in.heads * x.head;
}

template <class T> Head<T> head_of(const AttentionInput<T>& in, long head) {
    const AttentionMask<T>& m = in.mask;
    return {head_of(in, in.q, head), head_of(in, in.k, head), head_of(in, in.v, head),
            m.data ? m.data + head / in.heads * m.batch + head % in.heads * m.head : nullptr,
            in.causal ? in.keys - in.queries : in.keys};
}

template <class T> int threads_for(const AttentionInput<T>& in, long items) {
    const double work =
        double(in.batches * in.heads) * double(in.queries) * double(in.keys) * double(in.width + in.value_width);
    return work < SMALL ? 1 : int(larger(1l, smaller(items, long(thread_count()))));
}

// Lanes from .. to - 1 of a row of scores become -inf.
template <class T> MT_INLINE void hide(T* row, long from, long to) {
    for (long j = larger(from, 0l); j < smaller(to, COLUMNS<T>); j++) row[j] = -INFINITE<T>;
}

// s_rj += mask[r along_rows + j along_lanes], j < columns <= COLUMNS
template <class T>
void add_mask(T* s, long s_row, long rows, long columns, const T* mask, long along_rows, long along_lanes) {
    for (long r = 0; r < rows; r++, s += s_row, mask += along_rows) {
        if (along_lanes == 1)
            for_vectors<T>(columns, [&](long j, auto part) { part.put(s + j, part.get(s + j) + part.get(mask + j)); });
        else
            for (long j = 0; j < columns; j++) s[j] += mask[j * along_lanes];
    }
}

// Sᵀ (keys × COLUMNS) of the keys from `first` on, which lie side by side at k, and the strip qt (times scale) from
// `query` on.
template <class T>
void scores(const AttentionInput<T>& in, const Head<T>& head, const T* k, long first, long keys, const T* qt,
            long query, T* s) {
    constexpr long C = COLUMNS<T>;
    product<T>(keys, C, in.width, k, in.width, 1, qt, C, s, C, false);
    if (head.mask)
        add_mask(s, C, keys, smaller(C, in.queries - query), head.mask + query * in.mask.query + first * in.mask.key,
                 in.mask.key, in.mask.query);
    for (long j = larger(0l, query + head.shift - first); j < keys; j++)
        hide(s + j * C, 0, first + j - head.shift - query);
}

// The queries of a strip, transposed, times scale: width × COLUMNS, zeros beyond the last query.
template <class T> void load_strip(const AttentionInput<T>& in, const T* q, long query, T* qt) {
    constexpr long C = COLUMNS<T>;
    const long rows = smaller(C, in.queries - query);
    if (rows < C) __builtin_memset(qt, 0, sizeof(T) * size_t(C * in.width));
    transpose(q + query * in.q.row, in.q.row, rows, in.width, qt, C, T(in.scale), false);
}

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

template <class T> void begin(const AttentionInput<T>& in, const Head<T>& head, long query, const Strip<T>& strip) {
    load_strip(in, head.q, query, strip.qt);
    for (long j = 0; j < COLUMNS<T>; j++) strip.maximum[j] = -INFINITE<T>, strip.sum[j] = 0;
    __builtin_memset(strip.ot, 0, sizeof(T) * size_t(COLUMNS<T> * in.value_width));
}

template <class T>
void finish(const AttentionInput<T>& in, long query, const Strip<T>& strip, T* o, long o_row, T* lse) {
    const long rows = smaller(COLUMNS<T>, in.queries - query);
    for (long j = 0; j < rows; j++) lse[query + j] = strip.maximum[j] + logarithm(strip.sum[j]);
    for (long j = 0; j < COLUMNS<T>; j++) strip.sum[j] = T(1) / (strip.sum[j] == 0 ? T(1) : strip.sum[j]);
    multiply(strip.ot, in.value_width, strip.sum);
    transpose(strip.ot, COLUMNS<T>, in.value_width, rows, o + query * o_row, o_row, T(1), true);
}

// One work item: GROUP strips of a head, from the query `from` on.
template <class T>
void attend(const AttentionInput<T>& in, const Head<T>& head, long from, long to, const ForwardSpace<T>& space, T* o,
            long o_row, T* lse) {
    constexpr long C = COLUMNS<T>;
    for (long i = from; i < to; i += C) begin(in, head, i, space.strips[(i - from) / C]);
    const long seen = smaller(in.keys, to + head.shift);
    for (long first = 0; first < seen; first += KEYS) {
        const long here = smaller(KEYS, seen - first);
        const T* k = compact(head.k + first * in.k.row, in.k.row, here, in.width, space.k);
        const T* v = compact(head.v + first * in.v.row, in.v.row, here, in.value_width, space.v);
        for (long i = from; i < to; i += C) {
            const Strip<T>& strip = space.strips[(i - from) / C];
            const long keys = smaller(here, smaller(i + C, to) + head.shift - first);
            if (keys <= 0) continue;
            scores(in, head, k, first, keys, strip.qt, i, space.s);
            online_softmax(space.s, keys, strip.maximum, strip.sum, space.rescale);
            multiply(strip.ot, in.value_width, space.rescale);
            product<T>(in.value_width, C, keys, v, 1, in.value_width, space.s, C, strip.ot, C, true);
        }
    }
    for (long i = from; i < to; i += C) finish(in, i, space.strips[(i - from) / C], o, o_row, lse);
}

// A query by itself, for the few of a decoding step: a strip would be nearly empty.
template <class T> void attend_one(const AttentionInput<T>& in, const Head<T>& head, long i, T* s, T* o, T* lse) {
    const T* q = head.q + i * in.q.row;
    const long seen = smaller(in.keys, i + head.shift + 1), e = in.value_width;
    T maximum = -INFINITE<T>, sum = 0;
    __builtin_memset(o, 0, sizeof(T) * size_t(e));
    for (long first = 0; first < seen; first += KEYS) {
        const long keys = smaller(KEYS, seen - first);
        const T before = maximum;
        for (long j = 0; j < keys; j++) {
            const T* k = head.k + (first + j) * in.k.row;
            s[j] = T(in.scale) *
                   sum_vectors<T>(in.width, [&](long n, auto part) { return part.get(q + n) * part.get(k + n); });
            if (head.mask) s[j] += head.mask[i * in.mask.query + (first + j) * in.mask.key];
            maximum = larger(maximum, s[j]);
        }
        const T reference = finite(maximum), factor = vexp(splat(before - reference))[0];
        sum = sum * factor + sum_vectors<T>(keys, [&](long j, auto part) {
            const vec<T> p = vexp(part.get(s + j, -INFINITE<T>) - reference);
            part.put(s + j, p);
            return p;
        });
        const T* v = head.v + first * in.v.row;
        for_vectors<T>(e, [&](long n, auto part) {
            vec<T> even = part.get(o + n) * factor, odd = {};
            long j = 0;
            for (; j + 2 <= keys; j += 2) {
                even += s[j] * part.get(v + j * in.v.row + n);
                odd += s[j + 1] * part.get(v + (j + 1) * in.v.row + n);
            }
            if (j < keys) even += s[j] * part.get(v + j * in.v.row + n);
            part.put(o + n, even + odd);
        });
    }
    const T inverse = T(1) / (sum == 0 ? T(1) : sum);
    for_vectors<T>(e, [&](long n, auto part) { part.put(o + n, part.get(o + n) * inverse); });
    lse[i] = maximum + logarithm(sum);
}

template <class T> void forward(const AttentionInput<T>& in, Heads<T> o, T* lse) {
    const long heads = in.batches * in.heads;
    const bool few = 4 * in.queries <= COLUMNS<T>;
    const long strips = divide_up(in.queries, COLUMNS<T>);
    const long strips_each = heads * divide_up(strips, GROUP) < SEGMENTS ? 1 : GROUP;
    const long rows = few ? 1 : strips_each * COLUMNS<T>;  // of a work item
    const long items = divide_up(in.queries, rows);
    const int threads = threads_for(in, heads * items);
    const long size = few ? KEYS : ForwardSpace<T>(in, nullptr).size;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * size)));
    parallel_region([&](Team& team) {
        T* mine = memory + team.thread() * size;
        const ForwardSpace<T> space(in, mine);
        for (long item; (item = team.next_item()) < heads * items;) {
            const long h = item % heads, from = (items - 1 - item / heads) * rows;  // causal: the longest first
            const Head<T> head = head_of(in, h);
            T *out = head_of(in, o, h), *levels = lse + h * in.queries;
            if (few) attend_one(in, head, from, mine, out + from * o.row, levels);
            else attend(in, head, from, smaller(in.queries, from + rows), space, out, o.row, levels);
        }
    }, threads);
}

template <class T> void probabilities(const AttentionInput<T>& in, const T* lse, T* p) {
    constexpr long C = COLUMNS<T>;
    const long heads = in.batches * in.heads, strips = divide_up(in.queries, C);
    const int threads = threads_for(in, heads * strips);
    const long size = ForwardSpace<T>(in, nullptr).size;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * size)));
    parallel_region([&](Team& team) {
        const ForwardSpace<T> space(in, memory + team.thread() * size);
        const Strip<T>& strip = space.strips[0];
        for (long item; (item = team.next_item()) < heads * strips;) {
            const long h = item / strips, query = item % strips * C, rows = smaller(C, in.queries - query);
            const Head<T> head = head_of(in, h);
            load_strip(in, head.q, query, strip.qt);
            for (long j = 0; j < C; j++) strip.maximum[j] = j < rows ? finite(lse[h * in.queries + query + j]) : T(0);
            for (long first = 0; first < in.keys; first += KEYS) {
                const long keys = smaller(KEYS, in.keys - first);
                const T* k = compact(head.k + first * in.k.row, in.k.row, keys, in.width, space.k);
                scores(in, head, k, first, keys, strip.qt, query, space.s);
                for (long j = 0; j < keys * C; j += lanes<T>)
                    store(space.s + j, vexp(load(space.s + j) - load(strip.maximum + j % C)));
                transpose(space.s, C, keys, rows, p + (h * in.queries + query) * in.keys + first, in.keys, T(1), true);
            }
        }
    }, threads);
}

// ---------------------------------------------------------------- backward

template <class T> struct BackwardSpace {
    T *kt, *vt, *dkt, *dvt;  // strips of the block's keys: width × COLUMNS, value_width × COLUMNS. kt is times scale
    T* k;                    // KEYS rows, times scale, filled up with zeros to `wide`
    T *q, *dout, *p, *ds;    // QUERIES rows
    long wide, size;

    BackwardSpace(const AttentionInput<T>& in, T* memory) : wide(round_up(in.width, COLUMNS<T>)) {
        Cutter<T> cut{memory};
        kt = cut(KEYS * in.width), vt = cut(KEYS * in.value_width), dkt = cut(KEYS * in.width),
        dvt = cut(KEYS * in.value_width);
        k = cut(KEYS * wide), q = cut(QUERIES * in.width), dout = cut(QUERIES * in.value_width);
        p = cut(QUERIES * KEYS), ds = cut(QUERIES * KEYS);
        size = cut.size;
    }
};

// The block of keys from `first` on, in both forms; its gradients start at 0.
template <class T>
void load_keys(const AttentionInput<T>& in, const Head<T>& head, long first, long keys, const BackwardSpace<T>& space) {
    constexpr long C = COLUMNS<T>;
    const long d = in.width, e = in.value_width;
    __builtin_memset(space.dkt, 0, sizeof(T) * size_t(KEYS * d));
    __builtin_memset(space.dvt, 0, sizeof(T) * size_t(KEYS * e));
    for (long c = 0; c < keys; c += C) {
        const long rows = smaller(C, keys - c);
        T *kt = space.kt + c * d, *vt = space.vt + c * e;
        if (rows < C) {
            __builtin_memset(kt, 0, sizeof(T) * size_t(C * d));
            __builtin_memset(vt, 0, sizeof(T) * size_t(C * e));
        }
        transpose(head.k + (first + c) * in.k.row, in.k.row, rows, d, kt, C, T(in.scale), false);
        transpose(head.v + (first + c) * in.v.row, in.v.row, rows, e, vt, C, T(1), false);
    }
    for (long j = 0; j < keys; j++) {
        const T* from = head.k + (first + j) * in.k.row;
        T* to = space.k + j * space.wide;
        for_vectors<T>(d, [&](long n, auto part) { part.put(to + n, part.get(from + n) * T(in.scale)); });
        for (long n = d; n < space.wide; n++) to[n] = 0;
    }
}

// Adds what the queries from .. from + queries - 1 (q, dout: side by side) give to dk and dv of the block of keys, and
// to dq.
template <class T>
void visit(const AttentionInput<T>& in, const Head<T>& head, long first, long keys, long from, long queries, const T* q,
           const T* dout, const T* lse, const T* delta, const BackwardSpace<T>& space, T* dq, long dq_row) {
    constexpr long C = COLUMNS<T>;
    const long d = in.width, e = in.value_width;
    for (long c = 0; c < keys; c += C) {
        // The first row that sees a key of the strip, rounded down: dq takes ROWS at a time.
        const long begin = larger(0l, first + c - head.shift - from) / ROWS * ROWS, rows = queries - begin;
        if (rows <= 0) continue;
        T *p = space.p + begin * KEYS + c, *ds = space.ds + begin * KEYS + c;
        product<T>(rows, C, d, q + begin * d, d, 1, space.kt + c * d, C, p, KEYS, false);
        product<T>(rows, C, e, dout + begin * e, e, 1, space.vt + c * e, C, ds, KEYS, false);
        if (head.mask)
            add_mask(p, KEYS, rows, smaller(C, keys - c),
                     head.mask + (from + begin) * in.mask.query + (first + c) * in.mask.key, in.mask.query,
                     in.mask.key);
        for (long r = 0; r < rows; r++) {
            const long i = from + begin + r;
            T *pi = p + r * KEYS, *dsi = ds + r * KEYS;
            hide(pi, i + head.shift + 1 - first - c, C);
            const T level = finite(lse[i]);
            for (long j = 0; j < C; j += lanes<T>) {
                const vec<T> x = vexp(load(pi + j) - level);
                store(pi + j, x);
                store(dsi + j, x * (load(dsi + j) - delta[i]));
            }
        }
        product<T>(e, C, rows, dout + begin * e, 1, e, p, KEYS, space.dvt + c * e, C, true);
        product<T>(d, C, rows, q + begin * d, 1, d, ds, KEYS, space.dkt + c * d, C, true);
    }
    for (long r = 0; r < queries; r += ROWS) {
        const long rows = smaller(ROWS, queries - r), seen = smaller(keys, from + r + rows + head.shift - first);
        product<T>(rows, d, seen, space.ds + r * KEYS, KEYS, 1, space.k, space.wide, dq + (from + r) * dq_row, dq_row,
                   true);
    }
}

template <class T>
void backward(const AttentionInput<T>& in, Heads<const T> dout, Heads<const T> o, const T* lse, Heads<T> dq,
              Heads<T> dk, Heads<T> dv) {
    constexpr long C = COLUMNS<T>;
    const long heads = in.batches * in.heads, d = in.width, e = in.value_width;

    // The blocks of keys are dealt out to segments; each has a dq of its own, the first the output itself. In the end
    // they are added up in order.
    const long segments = larger(1l, smaller(divide_up(in.keys, KEYS), divide_up(SEGMENTS, larger(1l, heads))));
    const long query_blocks = divide_up(in.queries, QUERIES);
    const int threads = threads_for(in, heads * larger(segments, query_blocks));
    const long each = BackwardSpace<T>(in, nullptr).size, rows = heads * in.queries;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * each + rows + (segments - 1) * rows * d)));
    T *delta = memory + threads * each, *partial = delta + rows;

    parallel_region([&](Team& team) {
        const BackwardSpace<T> space(in, memory + team.thread() * each);
        for (long item; (item = team.next_item()) < heads * query_blocks;) {
            const long h = item % heads, from = item / heads * QUERIES, to = smaller(in.queries, from + QUERIES);
            const T *a = head_of(in, dout, h), *b = head_of(in, o, h);
            for (long i = from; i < to; i++) {
                const T *x = a + i * dout.row, *y = b + i * o.row;
                prefetch(x + AHEAD * dout.row, e);
                prefetch(y + AHEAD * o.row, e);
                delta[h * in.queries + i] =
                    sum_vectors<T>(e, [&](long n, auto part) { return part.get(x + n) * part.get(y + n); });
                __builtin_memset(head_of(in, dq, h) + i * dq.row, 0, sizeof(T) * size_t(d));
            }
            for (long s = 1; s < segments; s++)
                __builtin_memset(partial + ((s - 1) * rows + h * in.queries + from) * d, 0,
                                 sizeof(T) * size_t((to - from) * d));
        }
        team.barrier();

        for (long item; (item = team.next_item()) < heads * segments;) {
            const long h = item % heads, segment = item / heads;
            const Head<T> head = head_of(in, h);
            T* out = segment ? partial + ((segment - 1) * rows + h * in.queries) * d : head_of(in, dq, h);
            for (long first = segment * KEYS; first < in.keys; first += segments * KEYS) {
                const long keys = smaller(KEYS, in.keys - first);
                load_keys(in, head, first, keys, space);
                for (long from = larger(0l, first - head.shift); from < in.queries; from += QUERIES) {
                    const long queries = smaller(QUERIES, in.queries - from);
                    const T* q = compact(head.q + from * in.q.row, in.q.row, queries, d, space.q);
                    const T* dy = compact(head_of(in, dout, h) + from * dout.row, dout.row, queries, e, space.dout);
                    visit(in, head, first, keys, from, queries, q, dy, lse + h * in.queries, delta + h * in.queries,
                          space, out, segment ? d : dq.row);
                }
                for (long c = 0; c < keys; c += C) {
                    const long n = smaller(C, keys - c);
                    transpose(space.dkt + c * d, C, d, n, head_of(in, dk, h) + (first + c) * dk.row, dk.row,
                              T(in.scale), true);
                    transpose(space.dvt + c * e, C, e, n, head_of(in, dv, h) + (first + c) * dv.row, dv.row, T(1),
                              true);
                }
            }
        }
        if (segments == 1) return;
        team.barrier();
        for (long item; (item = team.next_item()) < heads * query_blocks;) {
            const long h = item % heads, from = item / heads * QUERIES, to = smaller(in.queries, from + QUERIES);
            for (long i = from; i < to; i++)
                for (long s = 1; s < segments; s++) {
                    const T* x = partial + ((s - 1) * rows + h * in.queries + i) * d;
                    T* y = head_of(in, dq, h) + i * dq.row;
                    for_vectors<T>(d, [&](long n, auto part) { part.put(y + n, part.get(y + n) + part.get(x + n)); });
                }
        }
    }, threads);
}

}  // namespace

template <class T> AttentionKernels<T> attention_kernels() { return {forward<T>, backward<T>, probabilities<T>}; }
template AttentionKernels<float> attention_kernels<float>();
template AttentionKernels<double> attention_kernels<double>();

}  // namespace mt::MT_ISA
