// Mistakes that must be reported. Tests name the lines by their comments.

extern "C" __global__ void neighbour(const float* x, float* y) {  // reads what another thread writes
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];  // neighbour writes
#ifndef NO_BARRIER
    __syncthreads();
#endif
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];  // neighbour reads
}

extern "C" __global__ void overwritten(const float* x, float* y, int rounds) {  // the next round's write comes too early
    __shared__ float s[64];
    float sum = 0;
    for (int r = 0; r < rounds; r++) {
        s[threadIdx.x] = x[64 * r + threadIdx.x];  // overwritten writes
        __syncthreads();
        sum += s[63 - threadIdx.x];  // overwritten reads
#ifndef NO_BARRIER
        __syncthreads();
#endif
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void across_blocks(float* y) {
    if (threadIdx.x == 0) y[0] += 1;  // across blocks
}

extern "C" __global__ void beyond_dynamic(float* y, int n, int write) {
    extern __shared__ float d[];
    if (write) d[n] = 1;  // beyond dynamic, write
    else y[0] = d[n];  // beyond dynamic, read
}
extern "C" __global__ void beyond_static(float* y, int n, int write) {
    __shared__ float s[8];
    if (write) s[n] = 1;  // beyond static, write
    else y[0] = s[n];  // beyond static, read
}
extern "C" __global__ void beyond_global(const float* x, float* y, int read_from, int write_to) {
    const float v = x[threadIdx.x + read_from];  // beyond global, read
    y[threadIdx.x + write_to] = v;  // beyond global, write
}
extern "C" __global__ void misaligned(const float* x, float4* y, int offset) {
    y[0] = *reinterpret_cast<const float4*>(x + offset);  // misaligned
}

extern "C" __global__ void divergent(int* y) {
    if (threadIdx.x < 32) {
        __syncthreads();  // divergent one
        y[0] = 1;
    } else {
        __syncthreads();  // divergent two
        y[1] = 1;
    }
}
extern "C" __global__ void deadlock(int* y) {
    if (threadIdx.x < 40) __syncthreads();  // deadlock at the barrier
    else y[threadIdx.x] = __shfl_sync(~0u, 1, 0);  // deadlock in the shuffle
}
extern "C" __global__ void left_out(int* y) { y[threadIdx.x] = __shfl_sync(0x0000ffff, 1, 0); }  // left out
extern "C" __global__ void other_mask(int* y) {
    const unsigned mask = threadIdx.x < 16 ? 0xffffffffu : 0xfffffffeu;
    y[threadIdx.x] = __shfl_sync(mask, 1, 0);  // other mask
}
extern "C" __global__ void other_shuffle(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(~0u, 1, 0);  // other shuffle, one
    else y[threadIdx.x] = __shfl_sync(~0u, 2, 0);  // other shuffle, two
}
extern "C" __global__ void bad_width(int* y) { y[threadIdx.x] = __shfl_sync(~0u, 1, 0, 12); }  // bad width

// The same line of two files. Nothing may follow: lines are no longer this file's.
#line 7 "one.cuh"
__device__ void one(int* y, bool shuffle) { y[threadIdx.x] = shuffle ? __shfl_sync(~0u, 1, 0) : __syncthreads_or(1); }
#line 7 "two.cuh"
__device__ void two(int* y, bool shuffle) { y[threadIdx.x] = shuffle ? __shfl_sync(~0u, 1, 0) : __syncthreads_or(1); }
#line 1 "bugs.cu, the end"
extern "C" __global__ void two_files(int* y, bool shuffle) {
    if (threadIdx.x < 16) one(y, shuffle);
    else two(y, shuffle);
}
