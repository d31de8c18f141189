// One row, one team of threads: how kernels that reduce along the last axis divide their work.
//
//     blockDim = (32, R)    short rows: a warp is the team of one row, R rows a block
//     blockDim = (W, 1)     long rows: the whole block, W = 64 … 1024 threads, is the team of one row
//
// Thread t of a team reads elements t, t + W, t + 2W …: neighbours read neighbours, so that the 32 reads of a warp are
// one wide access to memory. Then the team adds up what its threads have:
//
//     within a warp     lane i takes the value of lane i ^ 16, then i ^ 8, 4, 2, 1 and adds it. A shuffle goes from
//                       register to register; after five of them every lane has the sum of all 32.
//     among warps       one lane of each writes the sum of its warp to shared memory, all wait (__syncthreads), and
//                       every thread adds up those few numbers itself.
//
// The order of the additions is fixed, so the same input gives the same bits, always.
#pragma once
#include "numbers.cuh"

namespace mt {

constexpr unsigned everyone = 0xffffffffu;  // all 32 lanes take part in a shuffle

__device__ inline long long row_of_team() { return (long long)blockIdx.x * blockDim.y + threadIdx.y; }

template <class A, class Join> __device__ inline A team_reduce(A value, Join join) {
    for (int distance = 16; distance > 0; distance /= 2)
        value = join(value, __shfl_xor_sync(everyone, value, distance));
    if (blockDim.x == 32) return value;

    __shared__ A of_warp[32];
    __syncthreads();  // an earlier reduction may still be reading
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++) value = join(value, of_warp[warp]);
    return value;
}

template <class A> __device__ inline A team_sum(A value) {
    return team_reduce(value, [](A a, A b) { return a + b; });
}
template <class A> __device__ inline A team_max(A value) {
    return team_reduce(value, [](A a, A b) { return larger(a, b); });
}

}  // namespace mt
