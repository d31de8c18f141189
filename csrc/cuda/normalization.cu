// Layer norm and RMS norm over rows of n elements. One team of threads a row (rows.cuh); the gradients of weight and
// bias are sums over all rows, column by column, and have a kernel of their own.
#include "rows.cuh"

namespace mt {

// y = (x - mean) rstd weight + bias. The variance is that of x - mean, in a second pass: mean(x²) - mean² would cancel.
template <class T>
__device__ void layer_norm_forward(const T* x, const T* weight, const T* bias, T* y, T* means, T* rstds, long long rows,
                                   int n, wide<T> eps) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, y += row * n;
    wide<T> mean = 0, variance = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mean += load(x[i]);
    mean = team_sum(mean) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) variance += (load(x[i]) - mean) * (load(x[i]) - mean);
    variance = team_sum(variance) / n;
    const wide<T> rstd = 1 / sqrt(variance + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const wide<T> scaled = (load(x[i]) - mean) * rstd * load(weight[i]);
        store(y[i], bias ? scaled + load(bias[i]) : scaled);
    }
    if (threadIdx.x == 0) store(means[row], mean), store(rstds[row], rstd);
}

// y = x rstd weight, rstd = 1/√(mean(x²) + eps)
template <class T>
__device__ void rms_norm_forward(const T* x, const T* weight, T* y, T* rstds, long long rows, int n, wide<T> eps) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, y += row * n;
    wide<T> square = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) square += load(x[i]) * load(x[i]);
    const wide<T> rstd = 1 / sqrt(team_sum(square) / n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) store(y[i], load(x[i]) * rstd * load(weight[i]));
    if (threadIdx.x == 0) store(rstds[row], rstd);
}

// With h = (x - mean) rstd and g = dy weight:   dx = rstd (g - mean(g) - h mean(g h)). Without means, RMS norm's:
// h = x rstd,   dx = rstd (g - h mean(g h)).
template <class T>
__device__ void norm_backward(const T* dy, const T* x, const T* weight, const T* means, const T* rstds, T* dx,
                              long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    dy += row * n, x += row * n, dx += row * n;
    const wide<T> mean = means ? load(means[row]) : 0, rstd = load(rstds[row]);
    wide<T> g_total = 0, gh_total = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const wide<T> g = load(dy[i]) * load(weight[i]);
        g_total += g, gh_total += g * ((load(x[i]) - mean) * rstd);
    }
    const wide<T> g_mean = means ? team_sum(g_total) / n : 0, gh_mean = team_sum(gh_total) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const wide<T> g = load(dy[i]) * load(weight[i]), h = (load(x[i]) - mean) * rstd;
        store(dx[i], rstd * (g - g_mean - h * gh_mean));
    }
}

// dweight_i = Σ_rows dy h and dbias_i = Σ_rows dy, for 32 columns a block: blockDim = (32, 8), thread (i, j) adds up rows
// j, j + 8 … of its block's share, so that a warp reads 32 neighbours of one row; then the eight are added up. blockIdx.y
// counts the shares of the rows: one sum for each goes out, and the few sums of a column are added up by the caller.
template <class T>
__device__ void norm_backward_columns(const T* dy, const T* x, const T* means, const T* rstds, wide<T>* dweight,
                                      wide<T>* dbias, long long rows, int n) {
    __shared__ wide<T> of_thread[2][8][32];
    const int i = blockIdx.x * 32 + threadIdx.x;
    wide<T> dy_h = 0, dy_total = 0;
    if (i < n)
        for (long long row = blockIdx.y * 8 + threadIdx.y; row < rows; row += gridDim.y * 8) {
            const wide<T> mean = means ? load(means[row]) : 0, d = load(dy[row * n + i]);
            dy_h += d * ((load(x[row * n + i]) - mean) * load(rstds[row])), dy_total += d;
        }
    of_thread[0][threadIdx.y][threadIdx.x] = dy_h, of_thread[1][threadIdx.y][threadIdx.x] = dy_total;
    __syncthreads();
    if (threadIdx.y < 2 && i < n) {
        wide<T> total = 0;
        for (int j = 0; j < 8; j++) total += of_thread[threadIdx.y][j][threadIdx.x];
        wide<T>* to = threadIdx.y ? dbias : dweight;
        if (to) to[(long long)blockIdx.y * n + i] = total;
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void layer_norm_forward_##NAME(const T* x, const T* weight, const T* bias, T* y, T* means,  \
                                                         T* rstds, long long rows, int n, mt::wide<T> eps) {          \
        mt::layer_norm_forward(x, weight, bias, y, means, rstds, rows, n, eps);                                       \
    }                                                                                                                 \
    extern "C" __global__ void rms_norm_forward_##NAME(const T* x, const T* weight, T* y, T* rstds, long long rows,   \
                                                       int n, mt::wide<T> eps) {                                      \
        mt::rms_norm_forward(x, weight, y, rstds, rows, n, eps);                                                      \
    }                                                                                                                 \
    extern "C" __global__ void norm_backward_##NAME(const T* dy, const T* x, const T* weight, const T* means,         \
                                                    const T* rstds, T* dx, long long rows, int n) {                   \
        mt::norm_backward(dy, x, weight, means, rstds, dx, rows, n);                                                  \
    }                                                                                                                 \
    extern "C" __global__ void norm_backward_columns_##NAME(const T* dy, const T* x, const T* means, const T* rstds,  \
                                                            mt::wide<T>* dweight, mt::wide<T>* dbias, long long rows, \
                                                            int n) {                                                  \
        mt::norm_backward_columns<T>(dy, x, means, rstds, dweight, dbias, rows, n);                                   \
    }
FLOATS(KERNELS)
