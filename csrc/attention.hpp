// Scaled dot-product attention, forward and backward, in memory linear in the sequence length.
#pragma once
#include <cstdint>

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

// Which keys the queries see. Query i stands at offset + i, or with pages at the batch's length - queries + i.
struct Sight {
    bool causal;                // keys up to the query's position
    long window;                // keys less than so far from it; 0: all
    long offset;
    const std::int64_t* spans;  // (batches or 1, queries, 2): from, to; neither decreases. nullptr: all
    long spans_batch;
};

// Where the keys and values lie in pages: token j of batch b is row j % size of page table[b * table_row + j / size].
// A distance `batch` of k and v is then that between pages. No pages: table == nullptr.
struct Pages {
    const std::int64_t *table, *lengths;
    long table_row, size;
};

template <class T>
struct AttentionInput {
    long batches, heads, groups, queries, keys, width, value_width;
    Heads<const T> q, k, v;  // k and v have `groups` heads, each read by heads / groups heads of q in a row
    AttentionMask<T> mask;
    const T* slopes;         // ALiBi's, one for each head; nullptr: none
    Sight sight;
    Pages pages;             // forward only
    double scale;
};

// The heads and rows of which probabilities are wanted.
struct Chosen {
    const std::int64_t *heads, *rows;
    long head_count, row_count;
};

template <class T>
struct AttentionKernels {
    // o = softmax(scale q kᵀ + mask) v, lse (batches, heads, queries) contiguous. Throws std::bad_alloc.
    void (*forward)(const AttentionInput<T>& in, Heads<T> o, T* lse);
    // The gradients dq, dk, dv for the cotangent `dout` of o. Throws std::bad_alloc.
    void (*backward)(const AttentionInput<T>& in, Heads<const T> dout, Heads<const T> o, const T* lse, Heads<T> dq,
                     Heads<T> dk, Heads<T> dv);
    // p (batches, chosen heads, chosen rows, keys) contiguous: exp(score - lse). in.v is unused.
    void (*probabilities)(const AttentionInput<T>& in, const T* lse, const Chosen& chosen, T* p);
};
MT_KERNELS(AttentionKernels, attention_kernels)

}  // namespace mt
