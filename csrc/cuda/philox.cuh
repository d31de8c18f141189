// Philox 4×32-10: ten rounds turn a counter and a key into four random words. Any word can be computed by itself, so
// every thread has its own, with no state to share. The same bits as kernels/numpy/random.py and csrc/philox.hpp.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
#pragma once

namespace mt {

struct Words {
    unsigned word[4];
};

__device__ inline Words philox(unsigned long long key, unsigned long long counter) {
    unsigned c0 = unsigned(counter), c1 = unsigned(counter >> 32), c2 = 0, c3 = 0;
    unsigned k0 = unsigned(key), k1 = unsigned(key >> 32);
    for (int round = 0; round < 10; round++) {
        const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = unsigned(b >> 32) ^ c1 ^ k0, c1 = unsigned(b);
        c2 = unsigned(a >> 32) ^ c3 ^ k1, c3 = unsigned(a);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace mt
