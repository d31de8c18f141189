// Matrix products of strided matrices.
#pragma once
#include "activation.hpp"
#include "dispatch.hpp"

namespace mt {

// A matrix somewhere in memory: the distances, in elements, from one row to the next and from one column to the next.
// A transpose swaps the two, so a transposed matrix needs no code of its own and no copy.
template <class T> struct Matrix {
    T* data;
    long row, column;
};

// `batch` products c = f(a b + bias): a (M, K), b (K, N), c (M, N) with column distance 1. In a and in b one of the
// distances is 1. Matrix i of a batch starts at a.data + a_start[i], likewise b; those of c follow each other, M N
// elements apart. With batch == 1 the starts may be nullptr. bias (N,) or nullptr; f is the activation.
template <class T> struct Product {
    long M, N, K;
    Matrix<const T> a, b;
    Matrix<T> c;
    const T* bias = nullptr;
    long batch = 1;
    const long *a_start = nullptr, *b_start = nullptr;
    Activation activation = Activation::none;
};

template <class T> struct MatmulKernels {
    // Every c_mn is summed in the order of k, in slabs of a fixed length: its bits depend neither on the number of
    // threads nor on what else is computed beside it (one row alone gives the same as that row among a thousand). The
    // activation then gives what ActivationKernels would.
    // Throws std::bad_alloc.
    void (*multiply)(const Product<T>&);
    // sums_n = Σ_m x_mn for x (M, N), column distance 1
    void (*sum_rows)(long M, long N, Matrix<const T> x, T* sums);
};
MT_KERNELS(MatmulKernels, matmul_kernels)

}  // namespace mt
