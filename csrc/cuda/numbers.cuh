// The number types of the kernels: four that arrays are stored in, two that are computed with.
//
//     stored    float   double   __half   __nv_bfloat16
//     computed  float   double   float    float
//
// A kernel is a template over the stored type T. It reads with `load`, computes in `wide<T>` and rounds once, with
// `store`. FLOATS(KERNEL) at the end of a file makes the `extern "C"` functions NAME_float, NAME_double, NAME_half and
// NAME_bfloat16, which Python asks for by name.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define FLOATS(KERNEL) KERNEL(float, float) KERNEL(double, double) KERNEL(__half, half) KERNEL(__nv_bfloat16, bfloat16)

namespace mt {

template <class T> struct Wide { using type = float; };
template <> struct Wide<double> { using type = double; };
template <class T> using wide = typename Wide<T>::type;

__device__ inline float load(float x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(__half x) { return __half2float(x); }
__device__ inline float load(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void store(float& y, float x) { y = x; }
__device__ inline void store(double& y, double x) { y = x; }
__device__ inline void store(__half& y, float x) { y = __float2half(x); }
__device__ inline void store(__nv_bfloat16& y, float x) { y = __float2bfloat16(x); }

// The accurate functions, by the type of their argument. __expf and the like are faster and lose digits.
__device__ inline float exp(float x) { return expf(x); }
__device__ inline double exp(double x) { return ::exp(x); }
__device__ inline float log(float x) { return logf(x); }
__device__ inline double log(double x) { return ::log(x); }
__device__ inline float sqrt(float x) { return sqrtf(x); }
__device__ inline double sqrt(double x) { return ::sqrt(x); }
__device__ inline float erfc(float x) { return erfcf(x); }
__device__ inline double erfc(double x) { return ::erfc(x); }
__device__ inline float abs(float x) { return fabsf(x); }
__device__ inline double abs(double x) { return fabs(x); }

template <class A> __device__ inline A larger(A a, A b) { return a > b ? a : b; }
template <class A> __device__ inline A infinity() { return A(1) / A(0); }
template <class A> __device__ inline A not_a_number() { return infinity<A>() - infinity<A>(); }

// An element-wise kernel: for (long long i = first(); i < n; i += all()). Any grid covers any n, neighbouring threads
// touch neighbouring elements (one wide access to memory for the 32 of a warp), and a thread may take several.
__device__ inline long long first() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline long long all() { return (long long)gridDim.x * blockDim.x; }

}  // namespace mt
