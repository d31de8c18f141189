// half and bfloat16, in <cuda_fp16.h> and <cuda_bf16.h>: 16 bits that convert to and from float.
//
// The default constructor is trivial, so that a __shared__ array of them needs no initialisation.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "vector_types.h"

namespace cuda_emulator {

inline uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float bits_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// To add half of what is cut off, less 1 where the kept part is even, rounds to nearest, ties to even.
inline uint32_t cut(uint32_t x, int bits) { return (x + (1u << (bits - 1)) - 1 + (x >> bits & 1)) >> bits; }

inline uint16_t to_bfloat16(float x) {
    const uint32_t u = float_bits(x);
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : uint16_t(cut(u, 16));
}
inline float from_bfloat16(uint16_t bits) { return bits_float(uint32_t(bits) << 16); }

inline uint16_t to_half(float x) {
    const uint32_t u = float_bits(x), sign = u >> 16 & 0x8000, size = u & 0x7fffffff;
    if (size > 0x7f800000) return 0x7fff;                                        // NaN
    if (size >= 0x47800000) return uint16_t(sign | 0x7c00);                      // 65536 and more: infinity
    if (size >= 0x38800000) return uint16_t(sign | cut(size - (112u << 23), 13));  // 2⁻¹⁴ and more: another bias
    // Subnormal, a multiple of 2⁻²⁴: the sum with 1/2, whose last place that is, rounds.
    return uint16_t(sign | (float_bits(bits_float(size) + 0.5f) - 0x3f000000));
}
inline float from_half(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31) return bits_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) return bits_float(sign | float_bits(float(mantissa) * 0x1p-24f));
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <class T> inline T from_bits(uint16_t bits) {
    T x;
    x.bits = bits;
    return x;
}

}  // namespace cuda_emulator

// Both types in one go: T of 16 bits with the operators and functions that CUDA gives it, and T2, a pair.
#define CUDA_EMULATOR_SMALL_FLOAT(T, T2, to_bits, from)                                          \
    struct T {                                                                                   \
        uint16_t bits;                                                                           \
        T() = default;                                                                           \
        T(float x) : bits(to_bits(x)) {}                                                         \
        T(double x) : T(float(x)) {}                                                             \
        T(int x) : T(float(x)) {}                                                                \
        operator float() const { return from(bits); }                                            \
    };                                                                                           \
    struct alignas(4) T2 { T x, y; };                                                            \
    inline T operator+(T a, T b) { return T(float(a) + float(b)); }                              \
    inline T operator-(T a, T b) { return T(float(a) - float(b)); }                              \
    inline T operator*(T a, T b) { return T(float(a) * float(b)); }                              \
    inline T operator/(T a, T b) { return T(float(a) / float(b)); }                              \
    inline T operator-(T a) { return T(-float(a)); }                                             \
    inline T& operator+=(T& a, T b) { return a = a + b; }                                        \
    inline T& operator-=(T& a, T b) { return a = a - b; }                                        \
    inline T& operator*=(T& a, T b) { return a = a * b; }                                        \
    inline T& operator/=(T& a, T b) { return a = a / b; }                                        \
    inline bool operator<(T a, T b) { return float(a) < float(b); }                              \
    inline bool operator>(T a, T b) { return float(a) > float(b); }                              \
    inline bool operator<=(T a, T b) { return float(a) <= float(b); }                            \
    inline bool operator>=(T a, T b) { return float(a) >= float(b); }                            \
    inline bool operator==(T a, T b) { return float(a) == float(b); }                            \
    inline bool operator!=(T a, T b) { return float(a) != float(b); }                            \
    inline T __hadd(T a, T b) { return a + b; }                                                  \
    inline T __hsub(T a, T b) { return a - b; }                                                  \
    inline T __hmul(T a, T b) { return a * b; }                                                  \
    inline T __hdiv(T a, T b) { return a / b; }                                                  \
    inline T __hneg(T a) { return -a; }                                                          \
    inline T __hfma(T a, T b, T c) { return T(float(double(a) * double(b) + double(c))); }       \
    inline T __hmax(T a, T b) { return float(a) != float(a) || a < b ? b : a; }                  \
    inline T __hmin(T a, T b) { return float(a) != float(a) || b < a ? b : a; }                  \
    inline T __habs(T a) { return cuda_emulator::from_bits<T>(a.bits & 0x7fff); }                \
    inline bool __hlt(T a, T b) { return a < b; }                                                \
    inline bool __hgt(T a, T b) { return a > b; }                                                \
    inline bool __hisnan(T a) { return float(a) != float(a); }                                   \
    inline T hexp(T a) { return T(std::exp(float(a))); }                                         \
    inline T hlog(T a) { return T(std::log(float(a))); }                                         \
    inline T hsqrt(T a) { return T(std::sqrt(float(a))); }                                       \
    inline T hrsqrt(T a) { return T(1 / std::sqrt(float(a))); }                                  \
    inline float __low2float(T2 v) { return float(v.x); }                                        \
    inline float __high2float(T2 v) { return float(v.y); }                                       \
    inline T2 __hadd2(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                             \
    inline T2 __hsub2(T2 a, T2 b) { return {a.x - b.x, a.y - b.y}; }                             \
    inline T2 __hmul2(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                             \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
CUDA_EMULATOR_SMALL_FLOAT(__half, __half2, cuda_emulator::to_half, cuda_emulator::from_half)
CUDA_EMULATOR_SMALL_FLOAT(__nv_bfloat16, __nv_bfloat162, cuda_emulator::to_bfloat16, cuda_emulator::from_bfloat16)
#undef CUDA_EMULATOR_SMALL_FLOAT
