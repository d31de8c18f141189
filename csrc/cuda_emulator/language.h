// CUDA's own words.
#pragma once
#include <cassert>

#include "scheduler.h"

#if !defined(CUDA_EMULATOR_LIST)  // the build lists a file's kernels first, and looks for these two words
#define __global__
#define __launch_bounds__(...)
#define __shared__ thread_local
#endif
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__  // not an attribute here: the standard library writes __attribute__((__noinline__))
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define threadIdx (::cuda_emulator::running->index)
#define blockIdx (::cuda_emulator::running->block->index)
#define blockDim (::cuda_emulator::running->block->size)
#define gridDim (::cuda_emulator::running->block->grid)
#define warpSize 32

inline void __syncthreads(cuda_emulator::Place at = cuda_emulator::place()) {
    cuda_emulator::block_barrier(0, "__syncthreads", at);
}
inline int __syncthreads_count(int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return cuda_emulator::block_barrier(predicate != 0, "__syncthreads_count", at);
}
inline int __syncthreads_or(int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return cuda_emulator::block_barrier(predicate != 0, "__syncthreads_or", at) != 0;
}
inline int __syncthreads_and(int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return cuda_emulator::block_barrier(predicate == 0, "__syncthreads_and", at) == 0;
}

[[noreturn]] inline void __trap(cuda_emulator::Place at = cuda_emulator::place()) {
    cuda_emulator::fail(at, "the kernel called __trap()");
}
#undef assert
#if defined(NDEBUG)
#define assert(condition) ((void)0)
#else
#define assert(condition) \
    ((condition) ? (void)0 : ::cuda_emulator::fail(::cuda_emulator::place(), "assertion failed: " #condition))
#endif
