// Dropout: y_i = x_i / keep where bits_i >= threshold, else 0. The bits are made where they are used, and made again in
// backward: no mask is ever in memory. A thread has the four elements of one counter.
#include "numbers.cuh"
#include "philox.cuh"

namespace mt {

template <class T>
__device__ void dropout(const T* x, T* y, long long n, unsigned long long key, unsigned long long offset,
                        unsigned long long threshold, wide<T> keep) {
    for (long long block = first(); 4 * block < n; block += all()) {
        const Words four = philox(key, offset + block);
        for (int lane = 0; lane < 4 && 4 * block + lane < n; lane++) {
            const long long i = 4 * block + lane;
            store(y[i], four.word[lane] >= threshold ? load(x[i]) / keep : 0);
        }
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void dropout_##NAME(const T* x, T* y, long long n, unsigned long long key,                  \
                                              unsigned long long offset, unsigned long long threshold,                \
                                              mt::wide<T> keep) {                                                     \
        mt::dropout(x, y, n, key, offset, threshold, keep);                                                           \
    }
FLOATS(KERNELS)
