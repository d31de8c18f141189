// Shuffles, votes and masks.

extern "C" __global__ void shuffles(const int* x, int* y, int n, int width) {  // y (4, threads)
    const int i = threadIdx.x, v = x[i];
    y[i] = __shfl_sync(0xffffffff, v, n, width);
    y[blockDim.x + i] = __shfl_up_sync(0xffffffff, v, n, width);
    y[2 * blockDim.x + i] = __shfl_down_sync(0xffffffff, v, n, width);
    y[3 * blockDim.x + i] = __shfl_xor_sync(0xffffffff, v, n, width);
}

extern "C" __global__ void shuffles_of_doubles(const double* x, double* y) {
    y[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 1);
}

extern "C" __global__ void partial_warp(float* y) {
    y[threadIdx.x] = __shfl_down_sync(~0u, float(threadIdx.x), 1);
}

extern "C" __global__ void votes(const int* x, unsigned* y) {
    const int v = x[threadIdx.x];
    const unsigned ballot = __ballot_sync(~0u, v > 0);
    const int any = __any_sync(~0u, v > 8), all = __all_sync(~0u, v >= 0);
    const unsigned same = __match_any_sync(~0u, v), sum = __reduce_add_sync(~0u, unsigned(v));
    const int least = __reduce_min_sync(~0u, v);
    unsigned* const mine = y + 6 * threadIdx.x;
    mine[0] = ballot, mine[1] = any, mine[2] = all, mine[3] = same, mine[4] = sum, mine[5] = least;
}

// The halves of a warp go different ways and meet among themselves, in different numbers of rounds.
extern "C" __global__ void halves(int* y) {
    const int lane = threadIdx.x % 32;
    int v = lane;
    if (lane < 16) {
        for (int round = 0; round < 3; round++) v += __shfl_xor_sync(0x0000ffff, v, 1);
    } else {
        v = __shfl_sync(0xffff0000, v, 16);
        __syncwarp(0xffff0000);
    }
    __syncwarp();
    y[threadIdx.x] = v;
}

extern "C" __global__ void through_shared(const int* x, int* y) {
    __shared__ int s[128];
    s[threadIdx.x] = x[threadIdx.x];
#ifndef NO_SYNCWARP
    __syncwarp();
#else
    __shfl_sync(~0u, 0, 0);  // the lanes meet, but that orders no memory
#endif
    y[threadIdx.x] = s[threadIdx.x ^ 1];
}

extern "C" __global__ void some_return(int* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = __popc(__ballot_sync(~0u, 1));
}
