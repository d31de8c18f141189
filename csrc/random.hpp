// Philox 4×32-10 (Salmon et al. 2011): random words as a function of key and counter.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

template <class T> struct RandomKernels {
    // words[i] = lane i % 4 of counter offset + i / 4
    void (*bits)(uint64_t key, uint64_t offset, long count, T* words);  // T = uint32_t
};

MT_KERNELS(RandomKernels, random_kernels)

}  // namespace mt
