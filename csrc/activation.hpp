// GELU (both forms) and SiLU over n numbers; and the name of an activation for a product to end with.
#pragma once
#include "dispatch.hpp"

namespace mt {

enum class Activation { none, relu, gelu, gelu_tanh, silu };

template <class T> struct ActivationKernels {
    using Forward = void (*)(long n, const T* x, T* y);
    using Backward = void (*)(long n, const T* dy, const T* x, T* dx);
    Forward gelu, gelu_tanh, silu;
    Backward gelu_backward, gelu_tanh_backward, silu_backward;
};

MT_KERNELS(ActivationKernels, activation_kernels)

}  // namespace mt
