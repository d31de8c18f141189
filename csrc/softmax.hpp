// Softmax and log-softmax, forward and backward, along the middle axis of (outer, n, inner).
#pragma once
#include "dispatch.hpp"

namespace mt {

// A C-contiguous array seen from one of its axes: `outer` is the product of the axes before it, `inner` of those behind
// it.
struct AxisView {
    long outer, n, inner;
};

template <class T> struct SoftmaxKernels {
    void (*forward)(AxisView shape, const T* x, T* y);
    void (*backward)(AxisView shape, const T* dy, const T* y, T* dx);
    void (*log_forward)(AxisView shape, const T* x, T* y);
    void (*log_backward)(AxisView shape, const T* dy, const T* y, T* dx);
};

MT_KERNELS(SoftmaxKernels, softmax_kernels)

}  // namespace mt
