// Vectors of float or double as wide as the instruction set's registers. For files that are compiled once per
// instruction set: CMake defines MT_ISA, the namespace (portable | avx2 | avx512), and MT_WIDTH, the bytes of a
// register.
//
// vec<T> is a GCC/Clang vector: + - * / < and so on work lane by lane, `mask ? a : b` selects, v[i] is one lane.
// Comparisons with NaN are false. Everything lives in mt::MT_ISA, and files compiled per instruction set use no
// inline function from outside (std::max ...): the linker keeps one copy of such a function, and that might be the
// AVX-512 one in the portable code.
#pragma once
#include <cmath>
#include <cstdint>

#include "integers.hpp"
#if MT_WIDTH >= 32
#include <immintrin.h>
#endif

#define MT_INLINE [[gnu::always_inline]] static inline

namespace mt::MT_ISA {

template <class T> struct vector_types;
template <> struct vector_types<float> {
    typedef float vec __attribute__((vector_size(MT_WIDTH)));
    typedef int32_t ints __attribute__((vector_size(MT_WIDTH)));
    using integer = int32_t;
    static constexpr int mantissa = 23, bias = 127;
};
template <> struct vector_types<double> {
    typedef double vec __attribute__((vector_size(MT_WIDTH)));
    typedef int64_t ints __attribute__((vector_size(MT_WIDTH)));
    using integer = int64_t;
    static constexpr int mantissa = 52, bias = 1023;
};
template <class T> using vec = typename vector_types<T>::vec;
template <class T> using ints = typename vector_types<T>::ints;          // what a comparison of vec<T> gives: 0 or -1
typedef uint32_t words __attribute__((vector_size(MT_WIDTH)));  // 32 bits each, of whatever kind
template <class T> inline constexpr int lanes = MT_WIDTH / int(sizeof(T));

// ---------------------------------------------------------------- scalars

template <class A> MT_INLINE A smaller(A a, A b) { return b < a ? b : a; }
template <class A> MT_INLINE A larger(A a, A b) { return a < b ? b : a; }

// ---------------------------------------------------------------- memory: any alignment

template <class T> MT_INLINE vec<T> load(const T* p) {
    vec<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class T> MT_INLINE void store(T* p, vec<T> v) { __builtin_memcpy(p, &v, sizeof v); }
template <class T> MT_INLINE vec<T> splat(T x) { return x - vec<T>{}; }
MT_INLINE words load_words(const void* p) {
    words v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
MT_INLINE void store_words(void* p, words v) { __builtin_memcpy(p, &v, sizeof v); }
MT_INLINE words splat_words(uint32_t x) { return x - words{}; }

#if MT_WIDTH == 32
MT_INLINE __m256i first_lanes(int n, float) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
MT_INLINE __m256i first_lanes(int n, double) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// The first n lanes, 0 <= n <= lanes; memory beyond them is not touched, and lanes beyond them hold `fill`.
template <class T> MT_INLINE vec<T> load_n(const T* p, int n, T fill = 0) {
#if MT_WIDTH == 64
    const unsigned mask = (1u << n) - 1;
    if constexpr (sizeof(T) == 4) return vec<T>(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), __mmask16(mask), p));
    else return vec<T>(_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8(mask), p));
#elif MT_WIDTH == 32
    const ints<T> mask = ints<T>(first_lanes(n, fill));
    if constexpr (sizeof(T) == 4) return mask ? vec<T>(_mm256_maskload_ps(p, __m256i(mask))) : splat<T>(fill);
    else return mask ? vec<T>(_mm256_maskload_pd(p, __m256i(mask))) : splat<T>(fill);
#else
    vec<T> v = splat<T>(fill);
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}
template <class T> MT_INLINE void store_n(T* p, vec<T> v, int n) {
#if MT_WIDTH == 64
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), __m512(v));
    else _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), __m512d(v));
#elif MT_WIDTH == 32
    if constexpr (sizeof(T) == 4) _mm256_maskstore_ps(p, first_lanes(n, T{}), __m256(v));
    else _mm256_maskstore_pd(p, first_lanes(n, T{}), __m256d(v));
#else
    for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

// ---------------------------------------------------------------- lane by lane

// Where either is NaN, vmax and vmin give b.
#if MT_WIDTH == 64
MT_INLINE vec<float> vmax(vec<float> a, vec<float> b) { return vec<float>(_mm512_max_ps(__m512(a), __m512(b))); }
MT_INLINE vec<float> vmin(vec<float> a, vec<float> b) { return vec<float>(_mm512_min_ps(__m512(a), __m512(b))); }
MT_INLINE vec<double> vmax(vec<double> a, vec<double> b) { return vec<double>(_mm512_max_pd(__m512d(a), __m512d(b))); }
MT_INLINE vec<double> vmin(vec<double> a, vec<double> b) { return vec<double>(_mm512_min_pd(__m512d(a), __m512d(b))); }
#elif MT_WIDTH == 32
MT_INLINE vec<float> vmax(vec<float> a, vec<float> b) { return vec<float>(_mm256_max_ps(__m256(a), __m256(b))); }
MT_INLINE vec<float> vmin(vec<float> a, vec<float> b) { return vec<float>(_mm256_min_ps(__m256(a), __m256(b))); }
MT_INLINE vec<double> vmax(vec<double> a, vec<double> b) { return vec<double>(_mm256_max_pd(__m256d(a), __m256d(b))); }
MT_INLINE vec<double> vmin(vec<double> a, vec<double> b) { return vec<double>(_mm256_min_pd(__m256d(a), __m256d(b))); }
#else
template <class V> MT_INLINE V vmax(V a, V b) { return a > b ? a : b; }
template <class V> MT_INLINE V vmin(V a, V b) { return a < b ? a : b; }
#endif
template <class M, class V> MT_INLINE V select(M mask, V a, V b) { return mask ? a : b; }
template <class T> MT_INLINE ints<T> bits(vec<T> v) { return ints<T>(v); }
template <class T> MT_INLINE vec<T> from_bits(ints<T> i) { return vec<T>(i); }

MT_INLINE vec<float> vabs(vec<float> v) { return from_bits<float>(bits<float>(v) & 0x7fffffff); }
MT_INLINE vec<double> vabs(vec<double> v) { return from_bits<double>(bits<double>(v) & 0x7fffffffffffffff); }
// |magnitude| with the sign of `sign`
MT_INLINE vec<float> vcopysign(vec<float> magnitude, vec<float> sign) {
    return from_bits<float>(bits<float>(vabs(magnitude)) | (bits<float>(sign) & int32_t(0x80000000)));
}
MT_INLINE vec<double> vcopysign(vec<double> magnitude, vec<double> sign) {
    return from_bits<double>(bits<double>(vabs(magnitude)) | (bits<double>(sign) & int64_t(0x8000000000000000)));
}
template <class V> MT_INLINE V vsqrt(V v) {
    for (int i = 0; i < int(sizeof v / sizeof v[0]); i++) v[i] = __builtin_sqrt(v[i]);
    return v;
}

// ---------------------------------------------------------------- across lanes, in one fixed order

template <class T, class V, class Combine> MT_INLINE T fold(V v, Combine combine) {
    if constexpr (sizeof v == 2 * sizeof(T)) return combine(v[0], v[1]);
    else {
        typedef T Half __attribute__((vector_size(sizeof v / 2)));
        struct { Half low, high; } halves;
#if MT_WIDTH == 64
        if constexpr (sizeof v == 64)  // what the compiler does with memcpy goes through memory
            halves = {Half(_mm512_castps512_ps256(__m512(v))), Half(_mm512_extractf32x8_ps(__m512(v), 1))};
        else
#endif
            __builtin_memcpy(&halves, &v, sizeof v);
        return fold<T>(combine(halves.low, halves.high), combine);
    }
}
template <class V> MT_INLINE auto hsum(V v) {
    return fold<decltype(v[0] + v[0])>(v, [](auto a, auto b) { return a + b; });
}
template <class V> MT_INLINE auto hmax(V v) {
    return fold<decltype(v[0] + v[0])>(v, [](auto a, auto b) { return a > b ? a : b; });
}

// ---------------------------------------------------------------- functions: float and double to 3 ulp

// 2ⁿ x for whole n in [-2 bias, 2 bias], in two steps since 2ⁿ itself may not be a number
template <class T> MT_INLINE vec<T> scale_by_power(vec<T> x, ints<T> n) {
#if MT_WIDTH == 64
    if constexpr (sizeof(T) == 4) return vec<T>(_mm512_scalef_ps(__m512(x), _mm512_cvtepi32_ps(__m512i(n))));
    else return vec<T>(_mm512_scalef_pd(__m512d(x), _mm512_cvtepi64_pd(__m512i(n))));
#endif
    constexpr int mantissa = vector_types<T>::mantissa, bias = vector_types<T>::bias;
    ints<T> half = n >> 1;
    return x * from_bits<T>((half + bias) << mantissa) * from_bits<T>((n - half + bias) << mantissa);
}

// x = n ln 2 + r with |r| <= ln 2 / 2: gives n and exp(r) - 1 (Taylor's series: the first term left out is below eps/8)
template <class T> MT_INLINE vec<T> reduced_expm1(vec<T> x, ints<T>& n) {
    constexpr bool single = sizeof(T) == 4;
    constexpr T round = single ? T(12582912) : T(6755399441055744);  // 1.5 2^mantissa: adding it rounds to integers
    constexpr T log2_e = T(1.44269504088896340736);
    constexpr T ln2_high = single ? T(0.693359375) : T(6.93147180369123816490e-01);  // few bits: n ln2_high is exact
    constexpr T ln2_low = single ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
    vec<T> shifted = x * log2_e + round, whole = shifted - round;
    n = bits<T>(shifted) - bits<T>(splat<T>(round));
    vec<T> r = x - whole * ln2_high - whole * ln2_low;
    constexpr int last = single ? 7 : 13;
    constexpr double factorial[] = {1,     1,      2,       6,        24,        120,       720,
                                    5040., 40320., 362880., 3628800., 39916800., 479001600, 6227020800};
    vec<T> p = splat<T>(T(1 / factorial[last]));
#pragma GCC unroll 16
    for (int i = last - 1; i >= 2; i--) p = p * r + T(1 / factorial[i]);
    return p * r * r + r;
}

// exp x: 0 at -inf, inf at +inf and above the largest exponent, NaN at NaN
template <class T> MT_INLINE vec<T> exponential(vec<T> x) {
    constexpr T low = sizeof(T) == 4 ? T(-105) : T(-746), high = sizeof(T) == 4 ? T(89) : T(710);
    x = vmin(splat<T>(high), vmax(splat<T>(low), x));
    ints<T> n;
    vec<T> p = reduced_expm1<T>(x, n) + T(1);
    return scale_by_power<T>(p, n);
}
MT_INLINE vec<float> vexp(vec<float> x) { return exponential<float>(x); }
MT_INLINE vec<double> vexp(vec<double> x) { return exponential<double>(x); }

// tanh x = -e / (e + 2), e = exp(-2|x|) - 1, with the sign of x: no cancellation at small x
template <class T> MT_INLINE vec<T> hyperbolic_tangent(vec<T> x) {
    constexpr T low = sizeof(T) == 4 ? T(-20) : T(-40);                      // beyond it tanh is 1
    vec<T> y = vabs(x) * T(-2);
    y = vmax(splat<T>(low), y);
    ints<T> n;
    vec<T> p = reduced_expm1<T>(y, n);
    vec<T> scale = from_bits<T>((n + vector_types<T>::bias) << vector_types<T>::mantissa);
    vec<T> e = p * scale + (scale - T(1));
    return vcopysign(e / (e + T(2)), x);
}
MT_INLINE vec<float> vtanh(vec<float> x) { return hyperbolic_tangent<float>(x); }
MT_INLINE vec<double> vtanh(vec<double> x) { return hyperbolic_tangent<double>(x); }

// The normal distribution: pdf = exp(-x²/2)/√(2π) and cdf = (1 + erf(x/√2))/2, accurate in the left tail too. With z
// = |x| and t = 1/(1 + 0.35 z), cdf(-z) = exp(-z²/2) t Q(t): the form of Abramowitz & Stegun 26.2.17 with a minimax Q
// for relative error (3e-8).
MT_INLINE void vnormal(vec<float> x, vec<float>& cdf, vec<float>& pdf) {
    constexpr float q[] = {1.396213069e-01f, 1.398635143e-01f,  1.198212959e-01f, 1.055524701e-01f, -2.321227949e-02f,
                           1.593195927e-01f, -2.558389198e-01f, 1.440308824e-01f, -2.915787895e-02f};
    vec<float> e = vexp(x * x * -0.5f), t = 1.f / (vabs(x) * 0.35f + 1.f), p = splat<float>(q[8]);
#pragma GCC unroll 8
    for (int i = 7; i >= 0; i--) p = p * t + q[i];
    vec<float> tail = e * t * p;
    cdf = x > 0.f ? 1.f - tail : tail;
    pdf = e * 0.398942280f;
}
MT_INLINE void vnormal(vec<double> x, vec<double>& cdf, vec<double>& pdf) {
    for (int i = 0; i < lanes<double>; i++) cdf[i] = 0.5 * __builtin_erfc(x[i] * -0.70710678118654752440);
    pdf = vexp(x * x * -0.5) * 0.39894228040143267794;
}

}  // namespace mt::MT_ISA
