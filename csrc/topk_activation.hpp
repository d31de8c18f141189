// The k largest of each row stay, the others become 0.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

template <class T> struct TopkActivationKernels {
    // x, y (rows, width); indices (rows, k): where the k largest lie, ascending. 1 <= k <= width.
    void (*select)(long rows, long width, long k, bool by_magnitude, const T* x, T* y, int32_t* indices);
};

MT_KERNELS(TopkActivationKernels, topk_activation_kernels)

}  // namespace mt
