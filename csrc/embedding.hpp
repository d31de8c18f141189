// The gradient of a table look-up.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

template <class T> struct EmbeddingKernels {
    // dweight_r = Σ dy_i over i with indices_i = r, in the order of i.
    // dy (count, width), indices in [0, rows), dweight (rows, width).
    // Room to work in: starts (rows + 1), order (count).
    void (*backward)(long count, long width, long rows, const T* dy, const int64_t* indices, T* dweight, long* starts,
                     long* order);
};

MT_KERNELS(EmbeddingKernels, embedding_kernels)

}  // namespace mt
