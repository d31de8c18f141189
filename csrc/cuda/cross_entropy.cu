// Cross-entropy of rows of n logits, with label smoothing ε and ignored rows. One team of threads a row (rows.cuh).
//
// Nobody has looked at the targets of a GPU. One that is no column is never followed: its row is NaN.
#include "rows.cuh"

namespace mt {

// loss = lse - (1-ε) x_target - ε mean(x),   lse = log Σ_v exp(x_v);   0 in ignored rows
template <class T>
__device__ void cross_entropy_forward(const T* x, const long long* targets, T* losses, T* lses, long long rows, int n,
                                      long long ignored, wide<T> smoothing) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n;
    wide<T> top = -infinity<wide<T>>(), mass = 0, total = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = larger(top, load(x[i]));
    top = team_max(top);
    for (int i = threadIdx.x; i < n; i += blockDim.x) mass += exp(load(x[i]) - top), total += load(x[i]);
    const wide<T> lse = top + log(team_sum(mass));
    if (smoothing != 0) total = team_sum(total);
    if (threadIdx.x != 0) return;
    const long long target = targets[row];
    wide<T> loss = 0;
    if (target != ignored) {
        loss = target >= 0 && target < n ? lse - (1 - smoothing) * load(x[target]) : not_a_number<wide<T>>();
        if (smoothing != 0) loss -= smoothing * (total / n);  // else an x of -inf would make 0 · mean(x) NaN
    }
    store(losses[row], loss), store(lses[row], lse);
}

// dx_v = dloss (exp(x_v - lse) - (1-ε)[v = target] - ε/n);   0 in ignored rows
template <class T>
__device__ void cross_entropy_backward(const T* dlosses, const T* x, const long long* targets, const T* lses, T* dx,
                                       long long rows, int n, long long ignored, wide<T> smoothing) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, dx += row * n;
    const long long target = targets[row];
    const bool counts = target != ignored, known = target >= 0 && target < n;
    const wide<T> dloss = known ? load(dlosses[row]) : not_a_number<wide<T>>(), lse = load(lses[row]);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const wide<T> wanted = smoothing / n + (i == target ? 1 - smoothing : 0);
        store(dx[i], counts ? dloss * (exp(load(x[i]) - lse) - wanted) : 0);
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void cross_entropy_forward_##NAME(const T* x, const long long* targets, T* losses, T* lses, \
                                                            long long rows, int n, long long ignored,                 \
                                                            mt::wide<T> smoothing) {                                  \
        mt::cross_entropy_forward(x, targets, losses, lses, rows, n, ignored, smoothing);                             \
    }                                                                                                                 \
    extern "C" __global__ void cross_entropy_backward_##NAME(const T* dlosses, const T* x, const long long* targets,  \
                                                             const T* lses, T* dx, long long rows, int n,             \
                                                             long long ignored, mt::wide<T> smoothing) {              \
        mt::cross_entropy_backward(dlosses, x, targets, lses, dx, rows, n, ignored, smoothing);                       \
    }
FLOATS(KERNELS)
