// Reads weights in few bits: their bytes become blocks of unsigned 8-bit codes, or floats. For files compiled once per
// instruction set.
//
// A block holds one group of 16 rows: lines of 64 bytes, each with 4 neighbours along k of each of the 16 rows, then 16
// scales (float16; float32 for int8), then 16 minima where the format has them. A code c of it stands for
// scale · (c - zero) + minimum with one `zero` for a whole format: the zero-points of int4_zero are worked into c.
#pragma once
#include "dot4.hpp"
#include "quantized_weight.hpp"

namespace mt::MT_ISA {

constexpr int L = lanes<float>;

MT_INLINE constexpr int zero_of(WeightFormat f) {
    switch (f) {
        case WeightFormat::int8:
        case WeightFormat::q8_0: return 128;
        case WeightFormat::int4:
        case WeightFormat::q4_0: return 8;
        case WeightFormat::int4_zero: return 16;
        default: return 0;
    }
}
// The bytes of a panel's block with 8-bit codes, `chunks` of them
MT_INLINE constexpr long block_bytes(WeightFormat f, long chunks) {
    return chunks * CHUNK_BYTES + (f == WeightFormat::int8 || has_minimum(f) ? 4 : 2) * PANEL;
}

// ---------------------------------------------------------------- half precision

MT_INLINE vec<float> load_float16(const uint8_t* p) {
#if MT_WIDTH == 64
    return vec<float>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif MT_WIDTH == 32
    return vec<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    typedef uint16_t halves __attribute__((vector_size(MT_WIDTH / 2)));
    halves h;
    __builtin_memcpy(&h, p, sizeof h);
    const words w = __builtin_convertvector(h, words);
    // The exponent moved to its place is 112 too small, which the product makes good, for subnormal numbers too.
    const vec<float> size = vec<float>((w & 0x7fff) << 13) * 0x1p112f;
    const words special = words((w & 0x7c00) == 0x7c00) & 0x7f800000;
    return vec<float>(words(size) | special | (w & 0x8000) << 16);
#endif
}
MT_INLINE vec<float> load_bfloat16(const uint8_t* p) {
    typedef uint16_t halves __attribute__((vector_size(MT_WIDTH / 2)));
    halves h;
    __builtin_memcpy(&h, p, sizeof h);
    return vec<float>(__builtin_convertvector(h, words) << 16);
}

// ---------------------------------------------------------------- to 8-bit codes

// 4 lines of 4-bit codes to 8 lines; `shift` is added to each code.
MT_INLINE void widen_lines(const uint8_t* from, uint8_t* to, const words* shift) {
    for (int j = 0; j < 4; j++)
        for (int v = 0; v < PANEL / L; v++) {
            const words both = load_words(from + 64 * j + v * MT_WIDTH);
            const words low = (both & 0x0f0f0f0f) + shift[v], high = (both >> 4 & 0x0f0f0f0f) + shift[v];
            store_words(to + 64 * j + v * MT_WIDTH, low);
            store_words(to + 64 * (j + 4) + v * MT_WIDTH, high);
        }
}

// 16 - zero-point, once for each of the 4 codes that a row has in a line
MT_INLINE words shift_of(const uint8_t* zeros) {
    typedef uint8_t bytes __attribute__((vector_size(L)));
    bytes z;
    __builtin_memcpy(&z, zeros, L);
    return (16 - __builtin_convertvector(z, words)) * 0x01010101;
}

static void unpack_panel_block(const QuantizedWeight& w, const uint8_t* from, long chunks, uint8_t* to) {
    words shift[PANEL / L] = {};
    const uint8_t* scales = from + chunks * CHUNK_BYTES / 2;
    if (w.format == WeightFormat::int4_zero)
        for (int v = 0; v < PANEL / L; v++) shift[v] = shift_of(scales + 2 * PANEL + v * L);
    for (long c = 0; c < chunks; c++) widen_lines(from + c * CHUNK_BYTES / 2, to + c * CHUNK_BYTES, shift);
    __builtin_memcpy(to + chunks * CHUNK_BYTES, scales, 2 * PANEL);
    if (has_minimum(w.format)) __builtin_memcpy(to + chunks * CHUNK_BYTES + 2 * PANEL, scales + 2 * PANEL, 2 * PANEL);
}

// One row's part of a block: words of 4 codes that go 64 bytes apart.
static void unpack_row_block(const QuantizedWeight& w, const uint8_t* codes, int zero_point, long count, uint8_t* to) {
    uint32_t word;
    if (has_bytes(w.format)) {
        long k = 0;
        for (; k + 4 <= count; k += 4) {
            __builtin_memcpy(&word, codes + k, 4);
            word ^= 0x80808080;
            __builtin_memcpy(to + k * PANEL, &word, 4);
        }
        for (; k < count; k++) to[k / 4 * 64 + k % 4] = codes[k] ^ 0x80;
        return;
    }
    const uint32_t shift = w.format == WeightFormat::int4_zero ? uint32_t(16 - zero_point) * 0x01010101 : 0;
    for (long k = 0; k < count; k += CHUNK, codes += CHUNK / 2, to += CHUNK_BYTES)
        for (int j = 0; j < 4; j++) {
            __builtin_memcpy(&word, codes + 4 * j, 4);
            const uint32_t low = (word & 0x0f0f0f0f) + shift, high = (word >> 4 & 0x0f0f0f0f) + shift;
            __builtin_memcpy(to + 64 * j, &low, 4);
            __builtin_memcpy(to + 64 * (j + 4), &high, 4);
        }
}

// Chunks first .. first + count of a panel, as blocks; where the group is a whole row (int8), as one block of that
// length. first and count are whole groups elsewhere.
static void unpack(const QuantizedWeight& w, long panel, long first, long count, uint8_t* to) {
    const bool whole = w.format == WeightFormat::int8;
    const long per_group = whole ? count : w.group / CHUNK, size = block_bytes(w.format, per_group);
    const long groups = groups_of(w), stored = stored_block(w);
    if (w.panels) {
        const uint8_t* from = w.data + panel * groups * stored;
        if (whole) {
            __builtin_memcpy(to, from + first * CHUNK_BYTES, size_t(count * CHUNK_BYTES));
            __builtin_memcpy(to + count * CHUNK_BYTES, from + chunks_of(w) * CHUNK_BYTES, 4 * PANEL);
        } else
            for (long g = first / per_group; g < (first + count) / per_group; g++, to += size) {
                if (has_bytes(w.format)) __builtin_memcpy(to, from + g * stored, size_t(size));
                else unpack_panel_block(w, from + g * stored, per_group, to);
            }
        return;
    }
    const long rows = smaller(PANEL, w.N - panel * PANEL);
    if (rows < PANEL || w.K % CHUNK) __builtin_memset(to, 0, size_t((whole ? 1 : count / per_group) * size));
    const uint8_t* start = w.data + panel * PANEL * groups * stored;
    if (whole) {
        for (long r = 0; r < rows; r++) __builtin_memcpy(to + count * CHUNK_BYTES + 4 * r, start + r * stored, 4);
        for (long c = 0; c < count; c++, to += CHUNK_BYTES)  // 16 rows at once: what is written stays in the L1 cache
            for (long r = 0; r < rows; r++)
                unpack_row_block(w, start + r * stored + 4 + (first + c) * CHUNK, 0,
                                 smaller(CHUNK, w.K - (first + c) * CHUNK), to + 4 * r);
        return;
    }
    for (long g = first / per_group; g < (first + count) / per_group; g++, to += size) {
        uint8_t* scales = to + per_group * CHUNK_BYTES;
        for (long r = 0; r < rows; r++) {
            const uint8_t* from = start + (r * groups + g) * stored;
            __builtin_memcpy(scales + 2 * r, from, 2);
            if (has_minimum(w.format)) __builtin_memcpy(scales + 2 * PANEL + 2 * r, from + 2, 2);
            unpack_row_block(w, from + side_bytes(w.format), from[2], w.group, to + 4 * r);
        }
    }
}

}  // namespace mt::MT_ISA
