// GELU (both forms) and SiLU over n numbers.
#pragma once
#include "dispatch.hpp"

namespace mt {

template <class T> struct ActivationKernels {
    using Forward = void (*)(long n, const T* x, T* y);
    using Backward = void (*)(long n, const T* dy, const T* x, T* dx);
    Forward gelu, gelu_tanh, silu;
    Backward gelu_backward, gelu_tanh_backward, silu_backward;
};

MT_KERNELS(ActivationKernels, activation_kernels)

}  // namespace mt
