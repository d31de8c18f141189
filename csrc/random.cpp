#include "random.hpp"

#include "philox.hpp"
#include "threads.hpp"

namespace mt::MT_ISA {

template <class T> static void bits(uint64_t key, uint64_t offset, long count, T* words) {
    const long blocks = divide_up(count, philox_words);
    parallel_for(blocks, 64, [=](long begin, long end) {
        for (long b = begin; b < end; b++) {
            const uint64_t counter = offset + uint64_t(b) * philox_counters;
            const long at = b * philox_words;
            if (at + philox_words <= count) {
                philox(key, counter, words + at);
            } else {
                T last[philox_words];
                philox(key, counter, last);
                __builtin_memcpy(words + at, last, sizeof(T) * (count - at));
            }
        }
    });
}

template <class T> RandomKernels<T> random_kernels() {
    return {bits<T>};
}
template RandomKernels<uint32_t> random_kernels<uint32_t>();

}  // namespace mt::MT_ISA
