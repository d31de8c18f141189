// The gradient of a table look-up: a row that was read several times receives the sum of several gradients.
//
// Adding with atomics as the tokens come would give other last bits in each run. So the caller sorts the tokens first
// (stably: equal ones stay in their order), and a row of the table finds its own side by side:
//     order[start[r]] … order[start[r + 1] - 1] are the tokens that read row r.
#include "numbers.cuh"

namespace mt {

// dweight_r = Σ dy_i over its tokens i, in the order of i. Block (c, r) has blockDim.x columns of row r.
template <class T>
__device__ void embedding_backward(const T* dy, const long long* order, const long long* start, T* dweight,
                                   long long rows, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        wide<T> total = 0;
        for (long long j = start[row]; j < start[row + 1]; j++) total += load(dy[order[j] * n + i]);
        store(dweight[row * n + i], total);
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void embedding_backward_##NAME(const T* dy, const long long* order, const long long* start, \
                                                         T* dweight, long long rows, int n) {                         \
        mt::embedding_backward(dy, order, start, dweight, rows, n);                                                   \
    }
FLOATS(KERNELS)
