// CUDA's built-in functions, beside those of <math.h>. Fast approximations (__expf ...) are exact here: a test's
// tolerance has to leave room for the GPU's.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <type_traits>

#include <math.h>    // not <cmath>: in CUDA exp, abs ... are overloaded outside std, too, and abs(-0.5f) is 0.5f
#include <stdlib.h>

#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return T(a) != T(a) ? T(b) : T(b) < T(a) ? T(b) : T(a);  // NaN loses
    else return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return T(a) != T(a) ? T(b) : T(a) < T(b) ? T(b) : T(a);
    else return T(a) < T(b) ? T(b) : T(a);
}

// ---------------------------------------------------------------- floating point

inline float __expf(float x) noexcept { return std::exp(x); }
inline float __exp10f(float x) noexcept { return std::pow(10.0f, x); }
inline float __logf(float x) noexcept { return std::log(x); }
inline float __log2f(float x) noexcept { return std::log2(x); }
inline float __log10f(float x) noexcept { return std::log10(x); }
inline float __sinf(float x) noexcept { return std::sin(x); }
inline float __cosf(float x) noexcept { return std::cos(x); }
inline float __tanf(float x) noexcept { return std::tan(x); }
inline float __powf(float x, float y) noexcept { return std::pow(x, y); }
inline float __fdividef(float a, float b) noexcept { return a / b; }
inline float __frcp_rn(float x) noexcept { return 1.0f / x; }
inline float __fsqrt_rn(float x) noexcept { return std::sqrt(x); }
inline float __frsqrt_rn(float x) noexcept { return 1.0f / std::sqrt(x); }
inline float __fadd_rn(float a, float b) noexcept { return a + b; }
inline float __fsub_rn(float a, float b) noexcept { return a - b; }
inline float __fmul_rn(float a, float b) noexcept { return a * b; }
inline float __fdiv_rn(float a, float b) noexcept { return a / b; }
inline float __fmaf_rn(float a, float b, float c) noexcept { return std::fma(a, b, c); }
inline float __saturatef(float x) noexcept { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }
inline float rsqrtf(float x) noexcept { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) noexcept { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) noexcept { return 1.0 / std::sqrt(x); }
inline float fdividef(float a, float b) noexcept { return a / b; }

// A GPU's conversions saturate and take NaN for 0, where C++ leaves them undefined.
namespace cuda_emulator {
template <class I> inline I saturated(double x) {
    if (x != x) return 0;
    if (x <= double(std::numeric_limits<I>::min())) return std::numeric_limits<I>::min();
    if (x >= double(std::numeric_limits<I>::max())) return std::numeric_limits<I>::max();
    return I(x);
}
template <class To, class From> inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace cuda_emulator
inline int __float2int_rn(float x) { return cuda_emulator::saturated<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return cuda_emulator::saturated<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return cuda_emulator::saturated<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return cuda_emulator::saturated<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return cuda_emulator::saturated<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return cuda_emulator::saturated<unsigned>(std::trunc(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline int __float_as_int(float x) { return cuda_emulator::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_emulator::bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_emulator::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_emulator::bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_emulator::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_emulator::bits<double>(x); }

// ---------------------------------------------------------------- integers

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {  // nibble i of selector picks byte i
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned picked = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned which = selector >> (4 * i);
        unsigned byte = unsigned(bytes >> (8 * (which & 7))) & 0xff;
        if (which & 8) byte = byte & 0x80 ? 0xff : 0;  // its sign, repeated
        picked |= byte << (8 * i);
    }
    return picked;
}

// Σ of the products of four bytes each, added to c.
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int(int8_t(a >> (8 * i))) * int(int8_t(b >> (8 * i)));
    return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> (8 * i) & 0xff) * (b >> (8 * i) & 0xff);
    return c;
}

// ---------------------------------------------------------------- hints

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, std::type_identity_t<T> value) { *p = value; }
template <class T> inline void __stcg(T* p, std::type_identity_t<T> value) { *p = value; }
inline long long clock64() { return (long long)std::clock(); }
