// GELU and SiLU, element by element, and their gradients.
#include "activation.cuh"

// y = f(x),   dx = dy f'(x)
#define KERNEL_OF(FUNCTION, T, NAME)                                                                                  \
    extern "C" __global__ void FUNCTION##_##NAME(const T* x, T* y, long long n) {                                     \
        for (long long i = mt::first(); i < n; i += mt::all()) mt::store(y[i], mt::FUNCTION(mt::load(x[i])));         \
    }                                                                                                                 \
    extern "C" __global__ void FUNCTION##_backward_##NAME(const T* dy, const T* x, T* dx, long long n) {              \
        for (long long i = mt::first(); i < n; i += mt::all())                                                        \
            mt::store(dx[i], mt::load(dy[i]) * mt::FUNCTION##_slope(mt::load(x[i])));                                 \
    }
#define KERNELS(T, NAME) KERNEL_OF(gelu, T, NAME) KERNEL_OF(gelu_tanh, T, NAME) KERNEL_OF(silu, T, NAME)
FLOATS(KERNELS)
