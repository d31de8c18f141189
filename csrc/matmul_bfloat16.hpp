// Matrix products of float32 matrices through bfloat16: rounded while they are packed, added up in float32.
#pragma once
#include "matmul.hpp"

namespace mt {

template <class T> struct MatmulBfloat16Kernels {
    // As `multiply` of matmul.hpp for one product (batch 1) without bias, of a and b rounded to bfloat16. The bits of
    // the result depend neither on the number of threads nor on M and N, but on the instruction set: see the .cpp.
    // Throws std::bad_alloc.
    void (*multiply)(const Product<T>&);
};
MT_KERNELS_UP_TO(avx512_bf16, MatmulBfloat16Kernels, matmul_bfloat16_kernels)

}  // namespace mt
