// Softmax and its logarithm along rows of n elements. One team of threads a row (rows.cuh).
//
// A row is read two or three times; only the first time comes from memory, then it is in the cache.
#include "rows.cuh"

namespace mt {

// max x and Σ_j exp(x_j - max x) of a row, the same in every thread of its team.
template <class T> __device__ void row_mass(const T* x, int n, wide<T>& top, wide<T>& mass) {
    top = -infinity<wide<T>>();
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = larger(top, load(x[i]));
    top = team_max(top);
    mass = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mass += exp(load(x[i]) - top);
    mass = team_sum(mass);
}

// y_i = exp(x_i - max x) / Σ_j exp(x_j - max x)
template <class T> __device__ void softmax(const T* x, T* y, long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, y += row * n;
    wide<T> top, mass;
    row_mass(x, n, top, mass);
    for (int i = threadIdx.x; i < n; i += blockDim.x) store(y[i], exp(load(x[i]) - top) / mass);
}

// dx_i = y_i (dy_i - Σ_j dy_j y_j)
template <class T> __device__ void softmax_backward(const T* dy, const T* y, T* dx, long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    dy += row * n, y += row * n, dx += row * n;
    wide<T> along = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) along += load(dy[i]) * load(y[i]);
    along = team_sum(along);
    for (int i = threadIdx.x; i < n; i += blockDim.x) store(dx[i], load(y[i]) * (load(dy[i]) - along));
}

// y_i = x_i - max x - log Σ_j exp(x_j - max x)
template <class T> __device__ void log_softmax(const T* x, T* y, long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, y += row * n;
    wide<T> top, mass;
    row_mass(x, n, top, mass);
    mass = log(mass);
    for (int i = threadIdx.x; i < n; i += blockDim.x) store(y[i], load(x[i]) - top - mass);
}

// dx_i = dy_i - exp(y_i) Σ_j dy_j
template <class T> __device__ void log_softmax_backward(const T* dy, const T* y, T* dx, long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    dy += row * n, y += row * n, dx += row * n;
    wide<T> total = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) total += load(dy[i]);
    total = team_sum(total);
    for (int i = threadIdx.x; i < n; i += blockDim.x) store(dx[i], load(dy[i]) - exp(load(y[i])) * total);
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void softmax_##NAME(const T* x, T* y, long long rows, int n) {                              \
        mt::softmax(x, y, rows, n);                                                                                   \
    }                                                                                                                 \
    extern "C" __global__ void softmax_backward_##NAME(const T* dy, const T* y, T* dx, long long rows, int n) {       \
        mt::softmax_backward(dy, y, dx, rows, n);                                                                     \
    }                                                                                                                 \
    extern "C" __global__ void log_softmax_##NAME(const T* x, T* y, long long rows, int n) {                          \
        mt::log_softmax(x, y, rows, n);                                                                               \
    }                                                                                                                 \
    extern "C" __global__ void log_softmax_backward_##NAME(const T* dy, const T* y, T* dx, long long rows, int n) {   \
        mt::log_softmax_backward(dy, y, dx, rows, n);                                                                 \
    }
FLOATS(KERNELS)
