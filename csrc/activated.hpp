// The activation functions of one register. For files compiled once per instruction set.
#pragma once
#include "activation.hpp"
#include "simd.hpp"

namespace mt::MT_ISA {

template <class T> MT_INLINE vec<T> vgelu(vec<T> x) {
    vec<T> cdf, pdf;
    vnormal(x, cdf, pdf);
    return x * cdf;
}

// The tanh form is x σ(2u), for (1 + tanh u)/2 = σ(2u), with 2u = slope (x + cubic x³).
template <class T> inline constexpr T slope = T(1.59576912160573071176);  // 2 √(2/π)
template <class T> inline constexpr T cubic = T(0.044715);

template <class T> MT_INLINE vec<T> vgelu_tanh(vec<T> x) {
    return x / (T(1) + vexp(-slope<T> * x * (T(1) + cubic<T> * x * x)));
}

template <class T> MT_INLINE vec<T> vsilu(vec<T> x) { return x / (T(1) + vexp(-x)); }

template <class T> MT_INLINE vec<T> activated(vec<T> x, Activation activation) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return x > T(0) || x != x ? x : vec<T>{};  // NaN stays
        case Activation::gelu: return vgelu<T>(x);
        case Activation::gelu_tanh: return vgelu_tanh<T>(x);
        case Activation::silu: return vsilu<T>(x);
    }
    return x;
}

}  // namespace mt::MT_ISA
