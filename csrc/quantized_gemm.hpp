// Products with weights in few bits.
#pragma once
#include "activation.hpp"
#include "dispatch.hpp"
#include "quantized_weight.hpp"

namespace mt {

// y = f(x Wᵀ + bias): x (M, K) with rows x_row apart, y (M, N). `integer`: x is rounded to int8, by input_scale where
// that is positive, else row by row.
template <class T> struct QuantizedProduct {
    long M;
    const T* x;
    long x_row;
    QuantizedWeight weight;
    const T* bias;  // or nullptr
    Activation activation;
    bool integer;
    float input_scale;
    T* y;
};

template <class T> struct QuantizedKernels {
    // Sums of integers are exact, hence the same for every instruction set; no result depends on the number of threads
    // or on M. Throws std::bad_alloc. With `integer`, K of an int8 weight must not be above 2¹⁷, where sums of int8
    // products would leave 32 bits.
    void (*multiply)(const QuantizedProduct<T>&);
    // codes (rows, K), scales (rows,) of x (rows, K) with rows x_row apart
    void (*quantize_rows)(long rows, long K, const T* x, long x_row, float scale, int8_t* codes, float* scales);
};
MT_KERNELS_UP_TO(avx512_vnni, QuantizedKernels, quantized_kernels)

}  // namespace mt
