// Philox 4×32-10 for many counters at once. For files compiled once per instruction set.
#pragma once
#include <cstdint>

#include "simd.hpp"

namespace mt::MT_ISA {

inline constexpr int philox_counters = 64;                  // in one call: the compiler makes vectors of them
inline constexpr int philox_words = 4 * philox_counters;

// words[4 i + lane] for the counters offset + i. Ten rounds of two 32 × 32 -> 64 bit products, of which the high halves
// mix with the other words and with the key, and the key moves on.
[[gnu::noinline]] static void philox(uint64_t key, uint64_t offset, uint32_t* words) {
    uint32_t c0[philox_counters], c1[philox_counters], c2[philox_counters], c3[philox_counters];
    for (int i = 0; i < philox_counters; i++) {
        const uint64_t counter = offset + uint64_t(i);
        c0[i] = uint32_t(counter), c1[i] = uint32_t(counter >> 32), c2[i] = c3[i] = 0;
    }
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < philox_counters; i++) {
            const uint64_t a = uint64_t(0xD2511F53) * c0[i], b = uint64_t(0xCD9E8D57) * c2[i];
            c0[i] = uint32_t(b >> 32) ^ c1[i] ^ k0, c1[i] = uint32_t(b);
            c2[i] = uint32_t(a >> 32) ^ c3[i] ^ k1, c3[i] = uint32_t(a);
        }
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    for (int i = 0; i < philox_counters; i++) {
        words[4 * i] = c0[i], words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i], words[4 * i + 3] = c3[i];
    }
}

}  // namespace mt::MT_ISA
