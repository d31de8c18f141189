// The AdamW step and the squared norm for gradient clipping.
#pragma once
#include "dispatch.hpp"

namespace mt {

struct AdamW {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2;  // 1 - beta1^step, 1 - beta2^step
};

template <class T> struct AdamWKernels {
    void (*step)(long n, T* parameter, const T* gradient, T* m, T* v, AdamW hyper);
    double (*squared_norm)(long n, const T* x);
};

MT_KERNELS(AdamWKernels, adamw_kernels)

}  // namespace mt
