// A weight in few bits, as kernels/quantized_weight.py lays it out; that file is the description.
#pragma once
#include <cstdint>

#include "integers.hpp"

namespace mt {

enum class WeightFormat { int8, int4, int4_zero, q8_0, q4_0, q4_1, float16, bfloat16 };

// data: blocks of one group each, of one row or, in `panels`, of 16 rows beside each other, as many as N and K need.
struct QuantizedWeight {
    WeightFormat format;
    bool panels;
    long N, K, group;
    const uint8_t* data;
};

// ---------------------------------------------------------------- geometry

constexpr long PANEL = 16, CHUNK = 32;       // rows of a panel; K is walked along in chunks
constexpr long CHUNK_BYTES = CHUNK * PANEL;  // of 8-bit codes

static constexpr bool is_half(WeightFormat f) { return f == WeightFormat::float16 || f == WeightFormat::bfloat16; }
static constexpr bool has_bytes(WeightFormat f) { return f == WeightFormat::int8 || f == WeightFormat::q8_0; }
static constexpr bool has_minimum(WeightFormat f) { return f == WeightFormat::q4_1; }
static constexpr bool has_one_group(WeightFormat f) { return is_half(f) || f == WeightFormat::int8; }
// Bytes beside the codes of one row in one block, as stored
static constexpr long side_bytes(WeightFormat f) {
    if (is_half(f)) return 0;
    return f == WeightFormat::int8 || f == WeightFormat::q4_1 ? 4 : f == WeightFormat::int4_zero ? 3 : 2;
}
static constexpr long groups_of(const QuantizedWeight& w) { return has_one_group(w.format) ? 1 : w.K / w.group; }
static constexpr long chunks_of(const QuantizedWeight& w) { return divide_up(w.K, CHUNK); }
static constexpr long panels_of(const QuantizedWeight& w) { return divide_up(w.N, PANEL); }
// The bytes of one group as stored, of one row or of one panel
static constexpr long stored_block(const QuantizedWeight& w) {
    const long rows = w.panels ? PANEL : 1;
    if (is_half(w.format)) return 2 * w.K * rows;
    const long padded = w.panels && w.format == WeightFormat::int8 ? round_up(w.K, CHUNK) : w.group;
    return (padded / (has_bytes(w.format) ? 1 : 2) + side_bytes(w.format)) * rows;
}

}  // namespace mt
