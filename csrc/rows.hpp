// Walking along a row of any length by whole vectors and one partial one. For files compiled once per instruction set.
//
//   for_vectors<T>(n, [&](long i, auto part) { part.put(y + i, part.get(x + i) * 2); });
//
// calls the body with i = 0, lanes, 2 lanes ...; `part` knows whether all lanes are inside the row.
#pragma once
#include "simd.hpp"

namespace mt::MT_ISA {

template <class T> struct WholeVector {
    MT_INLINE vec<T> get(const T* p, T = 0) { return load(p); }
    MT_INLINE void put(T* p, vec<T> v) { store(p, v); }
};

template <class T> struct PartOfVector {
    int n;
    [[gnu::always_inline]] vec<T> get(const T* p, T fill = 0) const { return load_n(p, n, fill); }
    [[gnu::always_inline]] void put(T* p, vec<T> v) const { store_n(p, v, n); }
};

template <class T, class Body> MT_INLINE void for_vectors(long n, Body body) {
    long i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) body(i, WholeVector<T>{});
    if (i < n) body(i, PartOfVector<T>{int(n - i)});
}

// Σ body(i, part) over the row. Four running sums: one would wait for each addition. Lanes outside the row count too,
// so `body` fills them with what gives 0.
template <class T, class Body> MT_INLINE T sum_vectors(long n, Body body) {
    vec<T> sum[4] = {};
    long i = 0;
    for (; i + 4 * lanes<T> <= n; i += 4 * lanes<T>)
        for (int k = 0; k < 4; k++) sum[k] += body(i + k * lanes<T>, WholeVector<T>{});
    for (; i + lanes<T> <= n; i += lanes<T>) sum[0] += body(i, WholeVector<T>{});
    if (i < n) sum[1] += body(i, PartOfVector<T>{int(n - i)});
    return hsum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// The largest number of a row, -inf for an empty one. NaN is passed over: it comes back through exp(NaN - max).
template <class T> MT_INLINE T max_of_row(const T* x, long n) {
    const T lowest = -T(__builtin_inf());
    vec<T> top[4] = {splat<T>(lowest), splat<T>(lowest), splat<T>(lowest), splat<T>(lowest)};
    long i = 0;
    for (; i + 4 * lanes<T> <= n; i += 4 * lanes<T>)
        for (int k = 0; k < 4; k++) top[k] = vmax(load(x + i + k * lanes<T>), top[k]);
    for (; i + lanes<T> <= n; i += lanes<T>) top[0] = vmax(load(x + i), top[0]);
    if (i < n) top[1] = vmax(load_n(x + i, int(n - i), lowest), top[1]);
    return hmax(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));
}

MT_INLINE float log_of(float x) { return __builtin_logf(x); }
MT_INLINE double log_of(double x) { return __builtin_log(x); }

// Rows of `width` numbers in one piece of work: enough of them that handing out the work costs nothing beside it.
MT_INLINE long rows_per_chunk(long width) { return larger(16384 / larger(width, 1L), 1L); }

}  // namespace mt::MT_ISA
