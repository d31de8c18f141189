// Atomics and fences.

extern "C" __global__ void histogram(const unsigned char* x, int* counts, int n) {  // counts (256,)
    __shared__ int mine[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) mine[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i]], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&counts[i], mine[i]);
}

extern "C" __global__ void every_atomic(int* ints, unsigned* unsigneds, unsigned long long* longs, float* floats,
                                        double* doubles) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&ints[0], i), atomicSub(&ints[1], i), atomicMax(&ints[2], i), atomicMin(&ints[3], -i);
    atomicXor(&ints[4], i);
    atomicOr(&unsigneds[0], 1u << (i % 32)), atomicAnd(&unsigneds[1], ~(1u << (i % 32))), atomicInc(&unsigneds[2], 9);
    atomicDec(&unsigneds[3], 9);
    atomicAdd(&longs[0], 1ull << 33);
    atomicAdd(&floats[0], 0.5f), atomicAdd(&doubles[0], 0.25);
    for (int seen = ints[5], expected; ; ) {  // the largest, by compare and swap
        expected = seen;
        if (expected >= i || (seen = atomicCAS(&ints[5], expected, i)) == expected) break;
    }
}

// Each block leaves its sum; the last one to finish adds them all.
extern "C" __global__ void last_block_adds(const float* x, float* sums, unsigned* finished, float* total) {
    __shared__ float s[64];
    __shared__ bool last;
    s[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < 64; i++) sum += s[i];
        sums[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(finished, 1u) == gridDim.x - 1;
        __threadfence();
        if (last) {
            float all = 0;
            for (int i = 0; i < gridDim.x; i++) all += sums[i];
            *total = all;
        }
    }
}

// One thread waits for another one's flag without any barrier, or all wait for one thread's.
extern "C" __global__ void flag(int* y) {
    __shared__ int ready;
    if (threadIdx.x == 0) ready = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        while (atomicAdd(&ready, 0) == 0) {}
        y[0] = 1;
    }
    if (threadIdx.x == 40) atomicExch(&ready, 1);
}
extern "C" __global__ void flag_of_one(int* y, int sets) {
    __shared__ int ready, value;
    if (threadIdx.x == 0) ready = 0;
    __syncthreads();
    if (threadIdx.x == sets) {
        value = 7;
        __threadfence_block();
        atomicExch(&ready, 1);
    } else {
        for (int tries = 0; atomicAdd(&ready, 0) == 0;)
            if (++tries == 1 << 20) __trap();
        __threadfence_block();
    }
    y[threadIdx.x] = value;
}

#ifdef ATOMIC
extern "C" __global__ void an_atomic(NUMBER* x) { ATOMIC(x, x[1]); }
#endif
