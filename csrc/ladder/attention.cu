// Causal attention of one head on a GPU, q, k, v, o (T, d) float, d <= 64: the four steps of its history.
#include <mma.h>

#include "ladder.cuh"

constexpr int MOST = 64;  // d at most
constexpr int KEYS = 32;  // of a tile in shared memory

// A query's softmax so far (csrc/ladder/attention.cpp); returns what earlier sums must be multiplied by.
struct Running {
    float top = -INFINITY, total = 0;
    __device__ float move_to(float higher) {
        const float before = expf(top - higher);
        top = higher, total *= before;
        return before;
    }
};

// [1] global memory: a thread a query, all from global memory
// The loop of a CPU, T times at once. Each pair reads 3 d numbers, q too, again and again: 6 T² d bytes (half of 12).
// A GPU does some 20 FLOPs in the time of a byte from its memory; here it gets 1/3 FLOP a byte, and the neighbouring
// threads of a warp read k at the same address but q d numbers apart. The d sums of a thread are local memory.
extern "C" __global__ void __launch_bounds__(128) global_memory(
    const float* q_, const float* k_, const float* v_, float* o_, int T, int d) {
    const Global<const float> q(q_), k(k_), v(v_);
    const Global<float> o(o_);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= T) return;
    float sum[MOST] = {};
    Running row;
    for (int j = 0; j <= i; j++) {
        float score = 0;
        for (int c = 0; c < d; c++) score += q[i * d + c] * k[j * d + c];
        score *= rsqrtf(float(d));
        const float before = row.move_to(fmaxf(row.top, score)), p = expf(score - row.top);
        row.total += p;
        for (int c = 0; c < d; c++) sum[c] = sum[c] * before + p * v[j * d + c];
    }
    for (int c = 0; c < d; c++) o.put(i * d + c, sum[c] / row.total);
}

// Keys and values from j0 on come to shared memory, rows `row` apart, zeros beyond the last.
__device__ inline void load_tile(const Global<const float>& k, const Global<const float>& v, int j0, int T, int d,
                                 int row, float* keys, float* values) {
    for (int n = threadIdx.x; n < KEYS * d; n += blockDim.x) {
        const int j = n / d, c = n % d;
        keys[j * row + c] = j0 + j < T ? k[(j0 + j) * d + c] : 0.f;
        values[j * row + c] = j0 + j < T ? v[(j0 + j) * d + c] : 0.f;
    }
}

// [2] shared tiles: 32 queries share each tile of 32 keys
// The block brings 32 keys and values to shared memory together, neighbours reading neighbours, and waits; then all its
// queries use them. Reads fall to 1/32 of those of k and v, q is read once: T² d / 8 bytes. Two barriers a tile. But a
// block is one warp here, and a thread's d numbers of q and d sums, indexed by what the compiler does not know, are no
// registers but local memory: 8 d bytes a thread that lie, and travel, where global memory does.
extern "C" __global__ void __launch_bounds__(32) shared_tiles(
    const float* q_, const float* k_, const float* v_, float* o_, int T, int d) {
    const Global<const float> q(q_), k(k_), v(v_);
    const Global<float> o(o_);
    float *keys = reinterpret_cast<float*>(memory), *values = keys + KEYS * d;
    const int first = blockIdx.x * blockDim.x, i = first + threadIdx.x, seen = smaller(T, first + int(blockDim.x));
    float mine[MOST], sum[MOST] = {};
    for (int c = 0; c < d; c++) mine[c] = i < T ? q[i * d + c] * rsqrtf(float(d)) : 0.f;
    Running row;
    for (int j0 = 0; j0 < seen; j0 += KEYS) {
        load_tile(k, v, j0, T, d, d, keys, values);
        barrier();
        for (int j = 0; j < KEYS && j0 + j <= i; j++) {
            float score = 0;
            for (int c = 0; c < d; c++) score += mine[c] * keys[j * d + c];
            const float before = row.move_to(fmaxf(row.top, score)), p = expf(score - row.top);
            row.total += p;
            for (int c = 0; c < d; c++) sum[c] = sum[c] * before + p * values[j * d + c];
        }
        barrier();  // the tile is used until here
    }
    if (i < T)
        for (int c = 0; c < d; c++) o.put(i * d + c, sum[c] / row.total);
}

constexpr int WARPS = 8, EACH = 4;  // EACH queries a warp

// [3] warps: a lane is a key for the scores, a column for the sums
// A warp works on one query at a time: each lane's dot product with one key, the maximum and the total by shuffles from
// register to register, 5 steps each; then p goes round by shuffle and each lane adds up 2 columns of o. The same
// bytes, but 256 threads a block instead of 32, their sums in registers, and one correction for 32 keys. k's rows lie d
// + 1 apart, so that the 32 lanes hit 32 different banks. The lone multiply-adds limit now.
extern "C" __global__ void __launch_bounds__(256) warps(
    const float* q_, const float* k_, const float* v_, float* o_, int T, int d) {
    const Global<const float> q(q_), k(k_), v(v_);
    const Global<float> o(o_);
    const int pitch = d + 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *keys = reinterpret_cast<float*>(memory), *values = keys + KEYS * pitch, *queries = values + KEYS * pitch;
    const int first = blockIdx.x * WARPS * EACH, seen = smaller(T, first + WARPS * EACH);
    for (int n = threadIdx.x; n < WARPS * EACH * d; n += blockDim.x)
        queries[n] = first * d + n < T * d ? q[first * d + n] * rsqrtf(float(d)) : 0.f;
    Running rows[EACH];
    float sum[EACH][2] = {};
    for (int j0 = 0; j0 < seen; j0 += KEYS) {
        load_tile(k, v, j0, T, d, pitch, keys, values);
        barrier();
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const int i = first + warp * EACH + n;
            if (j0 > i) continue;  // the whole warp
            float score = 0;
            for (int c = 0; c < d; c++) score += queries[(warp * EACH + n) * d + c] * keys[lane * pitch + c];
            if (j0 + lane > i) score = -INFINITY;
            const float before = rows[n].move_to(fmaxf(rows[n].top, warp_max(score))), p = expf(score - rows[n].top);
            rows[n].total += warp_sum(p);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int c = lane + 32 * half;
                sum[n][half] *= before;
                for (int j = 0; j < KEYS; j++) {
                    const float of_key = __shfl_sync(all_lanes, p, j);
                    if (c < d) sum[n][half] += of_key * values[j * pitch + c];
                }
            }
        }
        barrier();
    }
#pragma unroll
    for (int n = 0; n < EACH; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = first + warp * EACH + n, c = lane + 32 * half;
            if (i < T && c < d) o.put(i * d + c, sum[n][half] / rows[n].total);
        }
}

namespace wmma = nvcuda::wmma;
using Rows = wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major>;
using Turned = wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major>;
using Straight = wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major>;
using Sums = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;

// [4] tensor cores: 16 × 16 × 16 products in one instruction
// Scores and sums of 16 queries and 32 keys by wmma: inputs rounded to 16 bits, sums in float. 64 queries a block, half
// the reads of rung 3: T² d / 16 bytes. Between the two products the tile goes through shared memory, where the softmax
// is two lanes a row: fragments do not tell which lane holds what. (FlashAttention 2 keeps it in registers, by PTX.)
extern "C" __global__ void __launch_bounds__(128) tensor_cores(
    const float* q_, const float* k_, const float* v_, float* o_, int T, int d) {
    const Global<const float> q(q_), k(k_), v(v_);
    const Global<float> o(o_);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * 64, mine = first + warp * 16;
    __half *keys = reinterpret_cast<__half*>(memory), *values = keys + KEYS * d;       // of the block
    __half* queries = values + KEYS * d + warp * 16 * (d + KEYS), *p = queries + 16 * d;  // of the warp
    float* s = reinterpret_cast<float*>(values + KEYS * d + 64 * (d + KEYS)) + warp * 16 * (KEYS + d);
    float* sum = s + 16 * KEYS;
    for (int n = lane; n < 16 * d; n += 32) {
        queries[n] = __float2half(mine * d + n < T * d ? q[mine * d + n] * rsqrtf(float(d)) : 0.f);
        sum[n] = 0;
    }
    Running row;  // of query lane / 2; the two lanes agree
    const int i = mine + lane / 2, seen = smaller(T, first + 64);
    for (int j0 = 0; j0 < seen; j0 += KEYS) {
        for (int n = threadIdx.x; n < KEYS * d; n += blockDim.x) {
            const bool there = j0 * d + n < T * d;
            keys[n] = __float2half(there ? k[j0 * d + n] : 0.f), values[n] = __float2half(there ? v[j0 * d + n] : 0.f);
        }
        barrier();
        if (j0 <= mine + 15) {  // else all of the warp's queries come before these keys
            Rows a;
            Sums c;
            for (int j = 0; j < KEYS; j += 16) {
                Turned b;
                wmma::fill_fragment(c, 0.f);
                for (int n = 0; n < d; n += 16) {
                    wmma::load_matrix_sync(a, queries + n, d);
                    wmma::load_matrix_sync(b, keys + j * d + n, d);
                    wmma::mma_sync(c, a, b, c);
                }
                wmma::store_matrix_sync(s + j, c, KEYS, wmma::mem_row_major);
            }
            __syncwarp();
            float high = row.top, total = 0;
            const int begin = lane / 2 * KEYS + lane % 2 * 16;
            for (int j = 0; j < 16; j++)
                if (j0 + lane % 2 * 16 + j <= i) high = fmaxf(high, s[begin + j]);
            const float before = row.move_to(fmaxf(high, __shfl_xor_sync(all_lanes, high, 1)));
            for (int j = 0; j < 16; j++) {
                const float e = j0 + lane % 2 * 16 + j <= i ? expf(s[begin + j] - row.top) : 0.f;
                p[begin + j] = __float2half(e);
                total += e;
            }
            row.total += total + __shfl_xor_sync(all_lanes, total, 1);
            for (int n = lane % 2; n < d; n += 2) sum[lane / 2 * d + n] *= before;
            __syncwarp();
            for (int n = 0; n < d; n += 16) {
                Straight b;
                wmma::load_matrix_sync(c, sum + n, d, wmma::mem_row_major);
                for (int j = 0; j < KEYS; j += 16) {
                    wmma::load_matrix_sync(a, p + j, KEYS);
                    wmma::load_matrix_sync(b, values + j * d + n, d);
                    wmma::mma_sync(c, a, b, c);
                }
                wmma::store_matrix_sync(sum + n, c, d, wmma::mem_row_major);
            }
        }
        barrier();
    }
    for (int n = lane % 2; n < d; n += 2)
        if (i < T) o.put(i * d + n, sum[lane / 2 * d + n] / row.total);
}
