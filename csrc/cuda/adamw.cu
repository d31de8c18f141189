// The AdamW update, and the norm that gradient clipping needs.
#include "rows.cuh"

namespace mt {

// What is the same for every element, worked out once by the caller.
template <class A> struct AdamW {
    A beta1, beta2, one_minus_beta1, one_minus_beta2;  // 1 - β is exact only before β is rounded to A
    A correction1, correction2;                        // 1 - β^step
    A lr, eps, decay;                                  // decay = 1 - lr λ
};

//  m <- β1 m + (1-β1) g,   v <- β2 v + (1-β2) g²,   θ <- θ (1 - lr λ) - lr m̂ / (√v̂ + eps)
// One kernel instead of a dozen array expressions: each of the four arrays is read once, and three are written.
template <class T>
__device__ void adamw_step(T* parameter, const T* gradient, T* m, T* v, long long n, AdamW<wide<T>> with) {
    for (long long i = first(); i < n; i += all()) {
        const wide<T> g = load(gradient[i]);
        const wide<T> m_new = with.beta1 * load(m[i]) + with.one_minus_beta1 * g;
        const wide<T> v_new = with.beta2 * load(v[i]) + with.one_minus_beta2 * (g * g);
        const wide<T> update = m_new / with.correction1 / (sqrt(v_new / with.correction2) + with.eps);
        store(parameter[i], load(parameter[i]) * with.decay - with.lr * update);
        store(m[i], m_new), store(v[i], v_new);
    }
}

// One sum of squares for each block, in float64; blockDim = (W, 1), a team for the whole block.
template <class T> __device__ void squared_norm(const T* x, double* sums, long long n) {
    double sum = 0;
    for (long long i = first(); i < n; i += all()) sum += double(load(x[i])) * double(load(x[i]));
    sum = team_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                             \
    extern "C" __global__ void adamw_step_##NAME(                                                                     \
        T* parameter, const T* gradient, T* m, T* v, long long n, mt::wide<T> beta1, mt::wide<T> beta2,               \
        mt::wide<T> one_minus_beta1, mt::wide<T> one_minus_beta2, mt::wide<T> correction1, mt::wide<T> correction2,   \
        mt::wide<T> lr, mt::wide<T> eps, mt::wide<T> decay) {                                                         \
        mt::adamw_step<T>(parameter, gradient, m, v, n,                                                               \
                          {beta1, beta2, one_minus_beta1, one_minus_beta2, correction1, correction2, lr, eps, decay}); \
    }                                                                                                                 \
    extern "C" __global__ void squared_norm_##NAME(const T* x, double* sums, long long n) {                           \
        mt::squared_norm(x, sums, n);                                                                                 \
    }
FLOATS(KERNELS)
