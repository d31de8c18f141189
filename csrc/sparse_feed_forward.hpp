// Products with chosen rows of a weight matrix: what is not chosen is not read.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

// weight (.., width) by rows; indices (tokens, k), each a row of weight, or (1, k) and `shared` by all tokens.
template <class T> struct GatheredInput {
    const T* weight;
    const int64_t* indices;
    long tokens, k, width;
    bool shared;
};

template <class T> struct SparseFeedForwardKernels {
    // y_nj = x_n · weight[indices_nj]; x (tokens, width), y (tokens, k)
    void (*linear)(const GatheredInput<T>&, const T* x, T* y);
    // y_n = Σ_j a_nj weight[indices_nj]; a (tokens, k), y (tokens, width)
    void (*sum)(const GatheredInput<T>&, const T* a, T* y);
};

MT_KERNELS(SparseFeedForwardKernels, sparse_feed_forward_kernels)

}  // namespace mt
