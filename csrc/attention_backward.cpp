// The backward pass of attention; attention.cpp explains what is a lane and what a strip.
#include "attention_tiles.hpp"

namespace mt::MT_ISA {
namespace {

constexpr long QUERIES = 96;  // a block of queries; a multiple of ROWS

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

// What one visit needs to know: a block of queries, which lie side by side at q and dout, meets a block of keys.
template <class T> struct Meeting {
    long first, keys, from, queries;
    const T *q, *dout, *lse, *delta;
    bool careful;  // something is hidden, and something is not finite
};

// P and dS of some rows (from query i on) and a strip of keys (from j on), given their scores and dP.
template <class T>
void probabilities_and_gradients(const Head<T>& head, long i, long rows, long j, T* p, T* ds, const T* lse,
                                 const T* delta) {
    constexpr T hidden = -INFINITE<T>;
    for (long r = 0; r < rows; r++, i++, p += KEYS, ds += KEYS) {
        const long low = head.low(i) - j, high = head.high(i) - j;
        const bool whole = low <= 0 && high >= COLUMNS<T>;
        const T level = finite(lse[i]), mean = delta[i];
        for (long c = 0; c < COLUMNS<T>; c += lanes<T>) {
            vec<T> s = load(p + c);
            if (!whole) {
                const vec<T> lane = lane_numbers<T>() + T(c);
                s = ((lane >= T(low)) & (lane < T(high))) ? s : splat(hidden);
            }
            const vec<T> x = s == splat(hidden) ? vec<T>{} : vexp(s - level);  // also where the level is NaN
            store(p + c, x);
            store(ds + c, x == T(0) ? x : x * (load(ds + c) - mean));
        }
    }
}

// Adds what the meeting gives to dk and dv of the block of keys, and to dq.
template <class T>
void visit(const AttentionInput<T>& in, const Head<T>& head, const Meeting<T>& at, const BackwardSpace<T>& space, T* dq,
           long dq_row) {
    constexpr long C = COLUMNS<T>;
    const long d = in.width, e = in.value_width, to = at.from + at.queries;
    for (long c = 0; c < at.keys; c += C) {
        const long j = at.first + c, n = smaller(C, at.keys - c);
        // The rows that see a key of the strip, to whole ROWS: dq takes so many at a time.
        const long begin = larger(0l, head.first_seeing(j) - at.from) / ROWS * ROWS;
        const long end = smaller(at.queries, round_up(larger(0l, head.end_seeing(j + n - 1) - at.from), ROWS));
        const long rows = end - begin;
        if (rows <= 0) continue;
        T *p = space.p + begin * KEYS + c, *ds = space.ds + begin * KEYS + c;
        const T *q = at.q + begin * d, *dout = at.dout + begin * e;
        product<T>(rows, C, d, q, d, 1, space.kt + c * d, C, p, KEYS, false);
        product<T>(rows, C, e, dout, e, 1, space.vt + c * e, C, ds, KEYS, false);
        if (head.slope != T(0)) add_slope(p, KEYS, rows, head.slope, j - head.offset - at.from - begin, -1);
        if (head.mask)
            add_mask(p, KEYS, rows, n, head.mask + (at.from + begin) * in.mask.query + j * in.mask.key, in.mask.query,
                     in.mask.key);
        probabilities_and_gradients(head, at.from + begin, rows, j, p, ds, at.lse, at.delta);
        add_product(at.careful, e, C, rows, dout, 1, e, p, KEYS, space.dvt + c * e, C);
        add_product(at.careful, d, C, rows, q, 1, d, ds, KEYS, space.dkt + c * d, C);
    }
    for (long r = at.from; r < to; r += ROWS) {
        const long rows = smaller(ROWS, to - r);
        const long begin = larger(0l, head.low(r) - at.first), end = smaller(at.keys, head.high(r + rows - 1) - at.first);
        if (begin < end)
            add_product(at.careful, rows, d, end - begin, space.ds + (r - at.from) * KEYS + begin, KEYS, 1,
                        space.k + begin * space.wide, space.wide, dq + r * dq_row, dq_row);
    }
}

// All that one query head gives to a block of keys.
template <class T>
void visit_queries(const AttentionInput<T>& in, const Head<T>& head, long first, long keys, const Heads<const T>& dout,
                   const T* dout_head, const T* lse, const T* delta, const BackwardSpace<T>& space, T* dq,
                   long dq_row) {
    const long d = in.width, e = in.value_width, end = head.end_seeing(first + keys - 1);
    for (long from = head.first_seeing(first); from < end; from += QUERIES) {
        const long queries = smaller(QUERIES, end - from);
        const T* q = compact(head.q + from * in.q.row, in.q.row, queries, d, space.q);
        const T* dy = compact(dout_head + from * dout.row, dout.row, queries, e, space.dout);
        const bool hides =
            head.mask || head.low(from + queries - 1) > first || head.high(from) < first + keys;
        const bool careful = hides && !(all_finite(q, queries * d) && all_finite(dy, queries * e) &&
                                        all_finite(space.k, keys * space.wide));
        visit(in, head, {first, keys, from, queries, q, dy, lse, delta, careful}, space, dq, dq_row);
    }
}

}  // namespace

template <class T>
void attention_backward(const AttentionInput<T>& in, Heads<const T> dout, Heads<const T> o, const T* lse, Heads<T> dq,
                        Heads<T> dk, Heads<T> dv) {
    constexpr long C = COLUMNS<T>;
    const long heads = in.batches * in.heads, groups = in.batches * in.groups, d = in.width, e = in.value_width;
    const long shared = in.groups ? in.heads / in.groups : 0;  // heads of q that read the same keys

    // The blocks of keys are dealt out to segments; each has a dq of its own, the first the output itself. In the end
    // they are added up in order.
    const long segments = larger(1l, smaller(divide_up(in.keys, KEYS), divide_up(SEGMENTS, larger(1l, groups))));
    const long query_blocks = divide_up(in.queries, QUERIES);
    const int threads = threads_for(in, larger(groups * segments, heads * query_blocks));
    const long each = BackwardSpace<T>(in, nullptr).size, rows = heads * in.queries;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * each + rows + (segments - 1) * rows * d)));
    T *delta = memory + threads * each, *partial = delta + rows;
    const auto head_rows = [&](const auto& x, long h) { return head_of<T>(x, h / in.heads, h % in.heads); };

    parallel_region([&](Team& team) {
        const BackwardSpace<T> space(in, memory + team.thread() * each);
        for (long item; (item = team.next_item()) < heads * query_blocks;) {
            const long h = item % heads, from = item / heads * QUERIES, to = smaller(in.queries, from + QUERIES);
            const T *a = head_rows(dout, h), *b = head_rows(o, h);
            for (long i = from; i < to; i++) {
                const T *x = a + i * dout.row, *y = b + i * o.row;
                prefetch_ahead(x, dout.row, e);
                prefetch_ahead(y, o.row, e);
                delta[h * in.queries + i] =
                    sum_vectors<T>(e, [&](long n, auto part) { return part.get(x + n) * part.get(y + n); });
                __builtin_memset(head_rows(dq, h) + i * dq.row, 0, sizeof(T) * size_t(d));
            }
            for (long s = 1; s < segments; s++)
                __builtin_memset(partial + ((s - 1) * rows + h * in.queries + from) * d, 0,
                                 sizeof(T) * size_t((to - from) * d));
        }
        team.barrier();

        for (long item; (item = team.next_item()) < groups * segments;) {
            const long batch = item % groups / in.groups, group = item % groups % in.groups, segment = item / groups;
            const Head<T> any = head_of(in, batch, group * shared);
            for (long first = segment * KEYS; first < in.keys; first += segments * KEYS) {
                const long keys = smaller(KEYS, in.keys - first);
                load_keys(in, any, first, keys, space);
                for (long head = group * shared; head < (group + 1) * shared; head++) {
                    const long h = batch * in.heads + head, row = h * in.queries;
                    T* out = segment ? partial + ((segment - 1) * rows + row) * d : head_rows(dq, h);
                    visit_queries(in, head_of(in, batch, head), first, keys, dout, head_rows(dout, h), lse + row,
                                  delta + row, space, out, segment ? d : dq.row);
                }
                T *to_k = head_of<T>(dk, batch, group), *to_v = head_of<T>(dv, batch, group);
                for (long c = 0; c < keys; c += C) {
                    const long n = smaller(C, keys - c);
                    transpose(space.dkt + c * d, C, d, n, to_k + (first + c) * dk.row, dk.row, T(in.scale), true);
                    transpose(space.dvt + c * e, C, e, n, to_v + (first + c) * dv.row, dv.row, T(1), true);
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
                    T* y = head_rows(dq, h) + i * dq.row;
                    for_vectors<T>(d, [&](long n, auto part) { part.put(y + n, part.get(y + n) + part.get(x + n)); });
                }
        }
    }, threads);
}

template void attention_backward<float>(const AttentionInput<float>&, Heads<const float>, Heads<const float>,
                                        const float*, Heads<float>, Heads<float>, Heads<float>);
template void attention_backward<double>(const AttentionInput<double>&, Heads<const double>, Heads<const double>,
                                         const double*, Heads<double>, Heads<double>, Heads<double>);

}  // namespace mt::MT_ISA
