// Cross-entropy of rows of logits against integer targets.
#pragma once
#include <cstdint>

#include "dispatch.hpp"

namespace mt {

struct Targets {
    const int64_t* index;  // in [0, width) or `ignored`
    int64_t ignored;
    double smoothing;
};

template <class T> struct CrossEntropyKernels {
    void (*forward)(long rows, long width, const T* logits, Targets targets, T* losses, T* lse);
    void (*backward)(long rows, long width, const T* dlosses, const T* logits, Targets targets, const T* lse,
                     T* dlogits);
};

MT_KERNELS(CrossEntropyKernels, cross_entropy_kernels)

}  // namespace mt
