// Attention query by query: for the few of a decoding step, where a strip of queries would be nearly empty, and for the
// rows of probabilities that somebody wants to look at.
#include "attention_tiles.hpp"

namespace mt::MT_ISA {
namespace {

// s_j of query i (at q) and the keys first + j, from <= j < to, which lie at k[j].
template <class T>
void row_scores(const AttentionInput<T>& in, const Head<T>& head, const T* q, long i, const T* const* k, long first,
                long from, long to, T* s) {
    for (long j = from; j < to; j++) {
        const T* key = k[j];
        s[j] = T(in.scale) *
               sum_vectors<T>(in.width, [&](long n, auto part) { return part.get(q + n) * part.get(key + n); });
    }
    if (head.slope != T(0))
        for (long j = from; j < to; j++) s[j] -= head.slope * T(__builtin_labs(head.offset + i - first - j));
    if (head.mask)
        add_mask(s + from, 0, 1, to - from, head.mask + i * in.mask.query + (first + from) * in.mask.key, 0,
                 in.mask.key);
}

// o = factor o + Σ_j p_j v[j], `columns` registers of it at a time
template <class T, int columns>
MT_INLINE long add_values(long from, long width, T factor, long count, const T* p, const T* const* v, T* o) {
    constexpr int L = lanes<T>;
    long n = from;
    for (; n + columns * L <= width; n += columns * L) {
        vec<T> sum[columns];
        for (int c = 0; c < columns; c++) sum[c] = load(o + n + c * L) * factor;
        for (long j = 0; j < count; j++)
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) sum[c] += p[j] * load(v[j] + n + c * L);
        for (int c = 0; c < columns; c++) store(o + n + c * L, sum[c]);
    }
    return n;
}

// One query's softmax so far.
template <class T> struct Row {
    T maximum, sum;
};

// Takes in the keys first + j, from <= j < to. s has room for KEYS numbers, seen for KEYS pointers.
template <class T>
void attend(const AttentionInput<T>& in, const Head<T>& head, long i, const T* const* k, const T* const* v, long first,
            long from, long to, T* s, const T** seen, Row<T>& row, T* o) {
    row_scores(in, head, head.q + i * in.q.row, i, k, first, from, to, s);
    long count = 0;
    for (long j = from; j < to; j++)  // the mask hides some
        if (s[j] != -INFINITE<T>) s[count] = s[j], seen[count++] = v[j];
    const T before = row.maximum;
    for (long j = 0; j < count; j++) row.maximum = larger(row.maximum, s[j]);
    const T reference = finite(row.maximum), factor = vexp(splat(before - reference))[0];
    row.sum = row.sum * factor + sum_vectors<T>(count, [&](long j, auto part) {
        const vec<T> p = vexp(part.get(s + j, -INFINITE<T>) - reference);
        part.put(s + j, p);
        return p;
    });
    const long e = in.value_width;
    long n = add_values<T, 8>(0, e, factor, count, s, seen, o);
    n = add_values<T, 2>(n, e, factor, count, s, seen, o);
    for_vectors<T>(e - n, [&](long c, auto part) {
        vec<T> sum = part.get(o + n + c) * factor;
        for (long j = 0; j < count; j++) sum += s[j] * part.get(seen[j] + n + c);
        part.put(o + n + c, sum);
    });
}

}  // namespace

// A piece of work: all queries of some heads that read the same keys, which come from memory once for all of them.
template <class T> void attend_few(const AttentionInput<T>& in, Heads<T> o, T* lse) {
    if (in.queries == 0) return;
    const long shared = in.groups ? in.heads / in.groups : 0;  // heads that read the same keys
    const long groups = in.batches * in.groups, pieces = smaller(shared, divide_up(SEGMENTS / 2, larger(groups, 1l)));
    const int threads = threads_for(in, groups * pieces);
    const long states = round_up(2 * shared * in.queries, 16);
    const long pointers = long(KEYS * sizeof(void*) / sizeof(T)), each = KEYS + 3 * pointers + states;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(threads * each)));
    parallel_region([&](Team& team) {
        T* s = memory + team.thread() * each;
        const T **k = reinterpret_cast<const T**>(s + KEYS), **v = k + KEYS, **seen = v + KEYS;
        Row<T>* rows = reinterpret_cast<Row<T>*>(s + KEYS + 3 * pointers);
        for (long item; (item = team.next_item()) < groups * pieces;) {
            const long piece = item / groups, batch = item % groups / in.groups, group = item % groups % in.groups;
            const long begin = group * shared + shared * piece / pieces;
            const long end = group * shared + shared * (piece + 1) / pieces, count = (end - begin) * in.queries;
            for (long n = 0; n < count; n++) {
                rows[n] = {-INFINITE<T>, T(0)};
                T* out = head_of<T>(o, batch, begin + n / in.queries) + n % in.queries * o.row;
                __builtin_memset(out, 0, sizeof(T) * size_t(in.value_width));
            }
            const Head<T> any = head_of(in, batch, begin);
            const long low = any.low(0), high = any.high(in.queries - 1);
            for (long first = low / KEYS * KEYS; first < high; first += KEYS) {
                const long keys = smaller(KEYS, high - first);
                for (long j = larger(0l, low - first); j < keys; j++) {
                    k[j] = row_of(in.pages, any.table, in.k, any.k, first + j);
                    v[j] = row_of(in.pages, any.table, in.v, any.v, first + j);
                }
                for (long n = 0; n < count; n++) {
                    const long h = begin + n / in.queries, i = n % in.queries;
                    const Head<T> head = head_of(in, batch, h);
                    const long from = larger(0l, head.low(i) - first), to = smaller(keys, head.high(i) - first);
                    if (from < to)
                        attend(in, head, i, k, v, first, from, to, s, seen, rows[n],
                               head_of<T>(o, batch, h) + i * o.row);
                }
            }
            for (long n = 0; n < count; n++) {
                const long h = begin + n / in.queries, i = n % in.queries;
                T* out = head_of<T>(o, batch, h) + i * o.row;
                const T inverse = T(1) / (rows[n].sum == T(0) ? T(1) : rows[n].sum);
                for_vectors<T>(in.value_width,
                               [&](long c, auto part) { part.put(out + c, part.get(out + c) * inverse); });
                lse[(batch * in.heads + h) * in.queries + i] = rows[n].maximum + log_of(rows[n].sum);
            }
        }
    }, threads);
}

template <class T> void probabilities(const AttentionInput<T>& in, const T* lse, const Chosen& chosen, T* p) {
    const long heads = in.batches * chosen.head_count, rows = rows_per_chunk(in.keys);
    const long chunks = divide_up(chosen.row_count, rows);
    parallel_for(heads * chunks, 1, [&](long begin, long end) {
        for (long item = begin; item < end; item++) {
            const long batch = item / chunks / chosen.head_count, n = item / chunks % chosen.head_count;
            const Head<T> head = head_of(in, batch, chosen.heads[n]);
            for (long r = item % chunks * rows; r < smaller(chosen.row_count, (item % chunks + 1) * rows); r++) {
                const long i = chosen.rows[r], high = head.high(i);
                T* row = p + (item / chunks * chosen.row_count + r) * in.keys;
                __builtin_memset(row, 0, sizeof(T) * size_t(in.keys));
                const T level = finite(lse[(batch * in.heads + chosen.heads[n]) * in.queries + i]);
                const T* k[KEYS];
                for (long first = head.low(i); first < high; first += KEYS) {
                    const long keys = smaller(KEYS, high - first);
                    for (long j = 0; j < keys; j++) k[j] = head.k + (first + j) * in.k.row;
                    row_scores(in, head, head.q + i * in.q.row, i, k, first, 0, keys, row + first);
                    for_vectors<T>(keys, [&](long j, auto part) {
                        const vec<T> s = part.get(row + first + j);
                        part.put(row + first + j, s == splat(-INFINITE<T>) ? vec<T>{} : vexp(s - level));
                    });
                }
            }
        }
    });
}

template void attend_few<float>(const AttentionInput<float>&, Heads<float>, float*);
template void attend_few<double>(const AttentionInput<double>&, Heads<double>, double*);
template void probabilities<float>(const AttentionInput<float>&, const float*, const Chosen&, float*);
template void probabilities<double>(const AttentionInput<double>&, const double*, const Chosen&, double*);

}  // namespace mt::MT_ISA
