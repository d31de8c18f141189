// y_mn = s_m d_n Σ_k q_mk c_nk on a GPU: codes q (M, K) and c (N, K) of 8 bits, K a multiple of 4. All rungs are exact.
#include <mma.h>

#include "ladder.cuh"

// [1] global memory: a thread a result, bytes from global memory
// Each result reads a row of q and a row of c, 2 K bytes for 2 K operations: 1 operation a byte, 2 M N K bytes in all.
// Neighbouring threads read rows of c that lie K apart, a byte at a time: the memory brings 32 bytes for each.
extern "C" __global__ void __launch_bounds__(256) global_memory(
    const signed char* q_, const float* s_, const signed char* c_, const float* d_, float* y_, int M, int N, int K) {
    const Global<const signed char> q(q_), c(c_);
    const Global<const float> s(s_), d(d_);
    const Global<float> y(y_);
    const int n = blockIdx.x * blockDim.x + threadIdx.x, m = blockIdx.y * blockDim.y + threadIdx.y;
    if (m >= M || n >= N) return;
    int sum = 0;
    for (int k = 0; k < K; k++) sum += int(q[(long long)m * K + k]) * c[(long long)n * K + k];
    y.put((long long)m * N + n, float(sum) * d[n] * s[m]);
}

// [2, failed] warps: a warp a result, its sum by shuffles
// The lanes read neighbouring words, 4 codes each, and add up by shuffles: for one row of x, as in decoding, the best
// there is. For many rows it reads as much as rung 1, 2 M N K bytes: wide accesses, but nothing is used twice.
extern "C" __global__ void __launch_bounds__(256) warps(
    const signed char* q_, const float* s_, const signed char* c_, const float* d_, float* y_, int M, int N, int K) {
    const Global<const int> q(reinterpret_cast<const int*>(q_)), c(reinterpret_cast<const int*>(c_));
    const Global<const float> s(s_), d(d_);
    const Global<float> y(y_);
    const int words = K / 4, lane = threadIdx.x % 32;
    const long long result = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (result >= (long long)M * N) return;
    const int m = result / N, n = result % N;
    int sum = 0;
    for (int k = lane; k < words; k += 32) sum = __dp4a(q[(long long)m * words + k], c[(long long)n * words + k], sum);
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(all_lanes, sum, distance);
    if (lane == 0) y.put((long long)m * N + n, float(sum) * d[n] * s[m]);
}

constexpr int STEP = 32;  // of k, at a time in shared memory

// Words of rows first .. first + rows, the k from k0 on, to shared memory: to[word][row]; zeros beyond the end.
__device__ inline void load_words(const Global<const int>& from, int first, int rows, int all, int k0, int words,
                                  int* to) {
    for (int n = threadIdx.y * blockDim.x + threadIdx.x; n < rows * STEP / 4; n += blockDim.x * blockDim.y) {
        const int row = n / (STEP / 4), word = n % (STEP / 4);
        const bool there = first + row < all && k0 / 4 + word < words;
        to[word * rows + row] = there ? from[(long long)(first + row) * words + k0 / 4 + word] : 0;
    }
}

// [2] shared tiles: 16 × 16 results share 16 rows of q and of c
// A block brings 32 k of its rows to shared memory, by words, and uses each 16 times: M N K / 8 bytes, 16 operations a
// byte. One instruction (dp4a) makes 4 products and their sum. Two barriers for 32 k; each dp4a needs two reads of
// shared memory, which limit.
extern "C" __global__ void __launch_bounds__(256) shared_tiles(
    const signed char* q_, const float* s_, const signed char* c_, const float* d_, float* y_, int M, int N, int K) {
    const Global<const int> q(reinterpret_cast<const int*>(q_)), c(reinterpret_cast<const int*>(c_));
    const Global<const float> s(s_), d(d_);
    const Global<float> y(y_);
    int *a = reinterpret_cast<int*>(memory), *b = a + 16 * STEP / 4, sum = 0;
    const int m = blockIdx.y * 16 + threadIdx.y, n = blockIdx.x * 16 + threadIdx.x;
    for (int k = 0; k < K; k += STEP) {
        load_words(q, blockIdx.y * 16, 16, M, k, K / 4, a);
        load_words(c, blockIdx.x * 16, 16, N, k, K / 4, b);
        barrier();
        for (int w = 0; w < STEP / 4; w++) sum = __dp4a(a[w * 16 + threadIdx.y], b[w * 16 + threadIdx.x], sum);
        barrier();
    }
    if (m < M && n < N) y.put((long long)m * N + n, float(sum) * d[n] * s[m]);
}

// [3] register tiles: 4 × 4 results a thread
// 8 reads of shared memory for 16 dp4a instead of 32, and a block has 64 × 64 results: M N K / 32 bytes, 64 operations
// a byte. A thread's rows lie 16 apart, so that neighbours read neighbouring words. dp4a limits.
extern "C" __global__ void __launch_bounds__(256) register_tiles(
    const signed char* q_, const float* s_, const signed char* c_, const float* d_, float* y_, int M, int N, int K) {
    const Global<const int> q(reinterpret_cast<const int*>(q_)), c(reinterpret_cast<const int*>(c_));
    const Global<const float> s(s_), d(d_);
    const Global<float> y(y_);
    int *a = reinterpret_cast<int*>(memory), *b = a + 64 * STEP / 4, sum[4][4] = {};
    for (int k = 0; k < K; k += STEP) {
        load_words(q, blockIdx.y * 64, 64, M, k, K / 4, a);
        load_words(c, blockIdx.x * 64, 64, N, k, K / 4, b);
        barrier();
        for (int w = 0; w < STEP / 4; w++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] = __dp4a(a[w * 64 + 16 * i + threadIdx.y], b[w * 64 + 16 * j + threadIdx.x], sum[i][j]);
        barrier();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int m = blockIdx.y * 64 + 16 * i + threadIdx.y, n = blockIdx.x * 64 + 16 * j + threadIdx.x;
            if (m < M && n < N) y.put((long long)m * N + n, float(sum[i][j]) * d[n] * s[m]);
        }
}

namespace wmma = nvcuda::wmma;

// [4] tensor cores: 16 × 16 × 16 products of bytes in one instruction
// 8 warps, each 32 × 16 results of the block's 64 × 64: a fragment of c serves two of q. 4096 products an instruction
// of a warp against 128 of dp4a. The bytes are those of rung 3. What limits is shared memory again; cp.async, which
// fetches the next tile while this one is multiplied, is the step after this one.
extern "C" __global__ void __launch_bounds__(256) tensor_cores(
    const signed char* q_, const float* s_, const signed char* c_, const float* d_, float* y_, int M, int N, int K) {
    const Global<const int> q(reinterpret_cast<const int*>(q_)), c(reinterpret_cast<const int*>(c_));
    const Global<const float> s(s_), d(d_);
    const Global<float> y(y_);
    // 16 k of 64 rows side by side, then the next 16: a fragment's rows are 16 bytes apart
    signed char *a = reinterpret_cast<signed char*>(memory), *b = a + 64 * STEP;
    int* results = reinterpret_cast<int*>(memory);  // afterwards, 64 × 64
    const int warp = threadIdx.x / 32, row = warp / 4 * 32, column = warp % 4 * 16;
    wmma::fragment<wmma::accumulator, 16, 16, 16, int> sum[2];
    for (int i = 0; i < 2; i++) wmma::fill_fragment(sum[i], 0);
    for (int k = 0; k < K; k += STEP) {
        for (int n = threadIdx.x; n < 64 * STEP / 4; n += blockDim.x) {
            const int r = n / (STEP / 4), word = n % (STEP / 4), at = word / 4 * 256 + r * 4 + word % 4;
            const bool inside = k / 4 + word < K / 4;
            const int m = blockIdx.y * 64 + r, other = blockIdx.x * 64 + r;
            reinterpret_cast<int*>(a)[at] = inside && m < M ? q[(long long)m * (K / 4) + k / 4 + word] : 0;
            reinterpret_cast<int*>(b)[at] = inside && other < N ? c[(long long)other * (K / 4) + k / 4 + word] : 0;
        }
        barrier();
        for (int part = 0; part < STEP / 16; part++) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> inputs;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::col_major> weights;
            wmma::load_matrix_sync(weights, b + part * 1024 + column * 16, 16);
            for (int i = 0; i < 2; i++) {
                wmma::load_matrix_sync(inputs, a + part * 1024 + (row + 16 * i) * 16, 16);
                wmma::mma_sync(sum[i], inputs, weights, sum[i]);
            }
        }
        barrier();
    }
    for (int i = 0; i < 2; i++)
        wmma::store_matrix_sync(results + (row + 16 * i) * 64 + column, sum[i], 64, wmma::mem_row_major);
    barrier();
    for (int r = threadIdx.x; r < 64 * 64; r += blockDim.x) {
        const int m = blockIdx.y * 64 + r / 64, n = blockIdx.x * 64 + r % 64;
        if (m < M && n < N) y.put((long long)m * N + n, float(results[r]) * d[n] * s[m]);
    }
}
