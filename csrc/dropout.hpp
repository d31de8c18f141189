// Inverted dropout whose mask is a function of key and offset.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

template <class T> struct DropoutKernels {
    // y_i = x_i / (1 - p) where word i of Philox(key, offset) is at least p 2³², else 0
    void (*forward)(long n, const T* x, double p, uint64_t key, uint64_t offset, T* y);
};

MT_KERNELS(DropoutKernels, dropout_kernels)

}  // namespace mt
