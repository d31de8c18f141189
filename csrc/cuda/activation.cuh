// GELU and SiLU of one number, and their slopes.
#pragma once
#include "numbers.cuh"

namespace mt {

// σ(x) and 1 - σ(x) = σ(-x), both to the last digits: exp(-|x|) overflows nowhere.
template <class A> struct Sigmoid {
    A value, rest;
    __device__ explicit Sigmoid(A x) {
        const A e = exp(-abs(x)), large = 1 / (1 + e), small = e / (1 + e);
        value = x < 0 ? small : large, rest = x < 0 ? large : small;
    }
};

// Φ(x) = erfc(-x/√2)/2, which keeps its digits where Φ is small; 1/√2, 1/√(2π) and √(2/π) follow.
template <class A> __device__ A normal_cdf(A x) { return erfc(x * A(-0.7071067811865475244)) / 2; }
template <class A> __device__ A normal_pdf(A x) { return exp(-x * x / 2) * A(0.3989422804014326779); }

// The tanh form is x σ(2u) with 2u = 2√(2/π)(x + 0.044715 x³), because (1 + tanh u)/2 = σ(2u).
template <class A> __device__ A twice_u(A x) { return A(1.5957691216057307117) * x * (1 + A(0.044715) * x * x); }
template <class A> __device__ A twice_u_slope(A x) { return A(1.5957691216057307117) * (1 + A(3 * 0.044715) * x * x); }

template <class A> __device__ A gelu(A x) { return x * normal_cdf(x); }
template <class A> __device__ A gelu_slope(A x) { return normal_cdf(x) + x * normal_pdf(x); }
template <class A> __device__ A gelu_tanh(A x) { return x * Sigmoid<A>(twice_u(x)).value; }
template <class A> __device__ A gelu_tanh_slope(A x) {
    const Sigmoid<A> s(twice_u(x));
    return s.value + x * s.value * s.rest * twice_u_slope(x);
}
template <class A> __device__ A silu(A x) { return x * Sigmoid<A>(x).value; }
template <class A> __device__ A silu_slope(A x) {
    const Sigmoid<A> s(x);
    return s.value * (1 + x * s.rest);
}

}  // namespace mt
