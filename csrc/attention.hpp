// Scaled dot-product attention, forward and backward, in memory linear in the sequence length.
#pragma once
#include "dispatch.hpp"

namespace mt {

// A (batch, head, row, width) array: distances in elements, 1 along the width. So (B, H, T, d) views of a (B, T, H, d)
// or (B, T, 3, H, d) buffer need no copy.
template <class T>
struct Heads {
    T* data;
    long batch, head, row;
};

// What is added to the scores; a distance is 0 where the mask broadcasts. No mask: data == nullptr.
template <class T>
struct AttentionMask {
    const T* data;
    long batch, head, query, key;
};

template <class T>
struct AttentionInput {
    long batches, heads, queries, keys, width, value_width;
    Heads<const T> q, k, v;
    AttentionMask<T> mask;
    double scale;
    bool causal;  // query i sees the keys j <= i + keys - queries
};

template <class T>
struct AttentionKernels {
    // o = softmax(scale q kᵀ + mask) v, lse (batches, heads, queries) contiguous. Throws std::bad_alloc.
    void (*forward)(const AttentionInput<T>& in, Heads<T> o, T* lse);
    // The gradients dq, dk, dv for the cotangent `dout` of o. Throws std::bad_alloc.
    void (*backward)(const AttentionInput<T>& in, Heads<const T> dout, Heads<const T> o, const T* lse, Heads<T> dq,
                     Heads<T> dk, Heads<T> dv);
    // p (batches, heads, queries, keys) contiguous: exp(score - lse), of the scores that `forward` computes. in.v is
    // unused.
    void (*probabilities)(const AttentionInput<T>& in, const T* lse, T* p);
};
MT_KERNELS(AttentionKernels, attention_kernels)

}  // namespace mt
