// Sums of products of 8-bit numbers, four at a time, exact on every instruction set. For files compiled once per
// instruction set.
//
// The obvious AVX2 instruction (vpmaddubsw) is not used: it adds two products of a byte and a signed byte in 16 bits,
// and 255·127 + 255·127 saturates. Here the bytes become 16-bit numbers first, whose products are added in 32 bits.
#pragma once
#include "simd.hpp"

namespace mt::MT_ISA {

// In each 32-bit lane: sum += Σ_j unsigned byte j of a × signed byte j of b.
MT_INLINE void dot4(words& sum, words a, words b) {
#if defined(__AVX512VNNI__)
    // As an intrinsic, GCC 12 keeps the sums in memory instead of registers, at half the speed.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#elif MT_WIDTH == 64
    const __m512i x = __m512i(a), y = __m512i(b);
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(255)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(y, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), _mm512_srai_epi16(y, 8));
    sum += words(even) + words(odd);
#elif MT_WIDTH == 32
    const __m256i x = __m256i(a), y = __m256i(b);
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(y, 8));
    sum += words(even) + words(odd);
#else
    for (int j = 0; j < 32; j += 8)
        sum += (a >> j & 255) * words(ints<float>(b << (24 - j)) >> 24);
#endif
}

}  // namespace mt::MT_ISA
