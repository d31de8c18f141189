// What the CUDA ladders share: global memory that counts what goes through it, and barriers that do.
//
// A CPU's times say nothing about a GPU's; counts do. With LADDER_COUNTS, as the emulator compiles it, each read and
// write of global memory adds its bytes (what a kernel asks for: the caches of a GPU may serve some of it), and each
// barrier counts once a block. Without it nothing is left of that.
#pragma once
#include <cuda_fp16.h>

#ifdef LADDER_COUNTS
__device__ unsigned long long loaded, stored, barriers;
#define LADDER_COUNT(what, n) (what += (n))
extern "C" __global__ void take_counts(unsigned long long* counts) {
    counts[0] = loaded, counts[1] = stored, counts[2] = barriers;
    loaded = stored = barriers = 0;
}
#else
#define LADDER_COUNT(what, n) ((void)0)
#endif

// An array in global memory.
template <class T> class Global {
  public:
    __device__ explicit Global(T* data) : data_(data) {}
    __device__ T operator[](long long i) const {
        LADDER_COUNT(loaded, sizeof(T));
        return data_[i];
    }
    template <class V> __device__ void put(long long i, V value) const {
        LADDER_COUNT(stored, sizeof(T));
        data_[i] = value;
    }

  private:
    T* data_;
};

// All threads of a block wait for each other.
__device__ inline void barrier() {
    if (threadIdx.x == 0 && threadIdx.y == 0) LADDER_COUNT(barriers, 1);
    __syncthreads();
}

extern __shared__ __align__(32) unsigned char memory[];  // a block's shared memory, as much as the launch asks for
constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline float warp_max(float x) {
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, distance));
    return x;
}
__device__ inline float warp_sum(float x) {
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(all_lanes, x, distance);
    return x;
}
__device__ inline int smaller(int a, int b) { return a < b ? a : b; }
