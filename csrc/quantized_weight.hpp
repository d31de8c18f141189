// A weight in few bits, as kernels/quantized_weight.py lays it out; that file is the description.
#pragma once
#include <cstdint>

namespace mt {

enum class WeightFormat { int8, int4, int4_zero, q8_0, q4_0, q4_1, float16, bfloat16 };

// data: blocks of one group each, of one row or, in `panels`, of 16 rows beside each other, as many as N and K need.
struct QuantizedWeight {
    WeightFormat format;
    bool panels;
    long N, K, group;
    const uint8_t* data;
};

}  // namespace mt
