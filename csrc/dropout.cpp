#include "dropout.hpp"

#include "philox.hpp"
#include "threads.hpp"

namespace mt::MT_ISA {
namespace {

template <class T> void drop(int n, const T* x, const uint32_t* words, uint32_t limit, T keep, T* y) {
    for (int i = 0; i < n; i++) {
        const T scaled = x[i] / keep;  // also where it is not needed: a loop without a branch becomes vectors
        y[i] = words[i] > limit ? scaled : T(0);
    }
}

template <class T> void forward(long n, const T* x, double p, uint64_t key, uint64_t offset, T* y) {
    if (p == 0) {
        __builtin_memcpy(y, x, sizeof(T) * n);
        return;
    }
    // word >= p 2³² is word > limit, for whole numbers and p > 0
    const uint32_t limit = uint32_t(uint64_t(__builtin_ceil(p * 4294967296.0)) - 1);
    const T keep = T(1 - p);
    parallel_for(divide_up(n, philox_words), 64, [=](long begin, long end) {
        uint32_t words[philox_words];
        for (long b = begin; b < end; b++) {
            const long at = b * philox_words;
            philox(key, offset + uint64_t(b) * philox_counters, words);
            if (at + philox_words <= n)
                drop(philox_words, x + at, words, limit, keep, y + at);
            else
                drop(int(n - at), x + at, words, limit, keep, y + at);
        }
    });
}

}  // namespace

template <class T> DropoutKernels<T> dropout_kernels() {
    return {forward<T>};
}
template DropoutKernels<float> dropout_kernels<float>();
template DropoutKernels<double> dropout_kernels<double>();

}  // namespace mt::MT_ISA
