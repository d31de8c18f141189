// Attention, forward, in bfloat16 on tensor cores (sm_80 and later): what attention.cu's kernel does, by products of
// 16 x 16 matrices. Products are exact, sums are float; weights are rounded to bfloat16 before they meet the values.
//
// A block has 64 queries, 16 for each of its 4 warps, and goes along tiles of 64 keys:
//
//     scores = Q Kᵀ            tensor cores, to shared memory
//     weights = exp(...)       two lanes a row: online softmax
//     O = keep O + weights V   tensor cores; O stays in registers all the time
//
// Which lane has which elements of a fragment is not known, so how are rows of O rescaled? All accumulators are laid
// out alike: a matrix whose row r is filled with keep_r, loaded as an accumulator, stands element for element beside O.
// Source: Dao 2023 (FlashAttention-2), algorithm 1.
#include <mma.h>

#include "attention.cuh"

extern __shared__ __align__(32) unsigned char tensor_memory[];

namespace mt {

using nvcuda::wmma::accumulator;
using nvcuda::wmma::col_major;
using nvcuda::wmma::fragment;
using nvcuda::wmma::matrix_a;
using nvcuda::wmma::matrix_b;
using nvcuda::wmma::mem_row_major;
using nvcuda::wmma::row_major;
using bf16 = __nv_bfloat16;

constexpr int side = 16, rows_a_block = 64, keys_a_tile = 64, threads_a_block = 128;
constexpr int scores_ld = keys_a_tile + 4, weights_ld = keys_a_tile + 8;  // not a multiple of the 32 banks
template <int W> constexpr int tile_ld = W + 8;

// Eight neighbours are one access of 16 bytes, where they lie so.
struct __align__(16) Eight {
    bf16 x[8];
};

// Rows first … first + 63 to shared memory, 0 outside of the matrix. Returns whether this thread's part is finite.
template <int W> __device__ bool load_tile(bf16* tile, const Rows<bf16>& matrix, int first) {
    const int parts = (matrix.width + side - 1) / side * 2, thread = threadIdx.y * 32 + threadIdx.x;
    const bool whole = matrix.width % 8 == 0 && (unsigned long long)matrix.first % 16 == 0;
    bool finite = true;
#pragma unroll 2
    for (int n = thread; n < 64 * parts; n += threads_a_block) {
        const int r = n / parts, column = n % parts * 8, j = first + r;
        const bf16* row = j < matrix.count ? matrix[j] : nullptr;
        Eight eight;
        if (whole && row && column < matrix.width) eight = *reinterpret_cast<const Eight*>(row + column);
        else
            for (int i = 0; i < 8; i++) store(eight.x[i], matrix.at(j, column + i));
        for (int i = 0; i < 8; i++) finite &= load(eight.x[i]) - load(eight.x[i]) == 0;
        *reinterpret_cast<Eight*>(tile + r * tile_ld<W> + column) = eight;
    }
    return finite;
}

// W: the widest d and dv that there is room for; the products are as many as d and dv need.
template <int W>
__device__ void attention_forward(const bf16* q, const bf16* k, const bf16* v, bf16* o, bf16* lse, Options<bf16> x,
                                  const long long* table, const long long* lengths, int page, int pages, int slots) {
    constexpr int ld = tile_ld<W>;
    bf16* const queries_there = reinterpret_cast<bf16*>(tensor_memory);
    bf16* const tile = queries_there + rows_a_block * ld;  // of keys, then of values
    float* const all_scores = reinterpret_cast<float*>(tile + keys_a_tile * ld);
    bf16* const all_weights = reinterpret_cast<bf16*>(all_scores + rows_a_block * scores_ld);

    const int lane = threadIdx.x, warp = threadIdx.y, half = lane % 2;
    const int count = (x.Tq + rows_a_block - 1) / rows_a_block;
    const int block_row = blockIdx.x % count * rows_a_block, head = blockIdx.x / count, h = head % x.H, b = head / x.H;
    const int g = h / (x.H / x.G), row = block_row + warp * side + lane / 2;  // this lane's, and its neighbour's
    x = paged(x, lengths, b, page, slots);
    const Rows<bf16> queries = {q + (long long)head * x.Tq * x.d, x.Tq, x.d};
    const Rows<bf16> keys = keys_of(k, x, x.d, b, g, table, page, pages, slots);
    const Rows<bf16> values = keys_of(v, x, x.dv, b, g, table, page, pages, slots);
    bf16* const mine = queries_there + warp * side * ld;
    float *const scores = all_scores + warp * side * scores_ld, *const scores_row = scores + lane / 2 * scores_ld;
    bf16 *const weights = all_weights + warp * side * weights_ld, *const weights_row = weights + lane / 2 * weights_ld;

    fragment<accumulator, side, side, side, float> sums[W / side];
#pragma unroll
    for (int c = 0; c < W / side; c++) fill_fragment(sums[c], 0.0f);
    const Interval seen = row < x.Tq ? x.sees(b, row) : Interval{0, 0};
    float top = -infinity<float>(), mass = 0;
    load_tile<W>(queries_there, queries, block_row);

    const int last = x.sees(b, min(block_row + rows_a_block, x.Tq) - 1).high;
    for (int first = x.sees(b, block_row).low; first < last; first += keys_a_tile) {
        __syncthreads();  // the values before are no longer read
        load_tile<W>(tile, keys, first);
        __syncthreads();
        {
            fragment<accumulator, side, side, side, float> products[keys_a_tile / side];
            for (int n = 0; n < keys_a_tile / side; n++) fill_fragment(products[n], 0.0f);
            for (int c = 0; c < x.d; c += side) {
                fragment<matrix_a, side, side, side, bf16, row_major> left;
                load_matrix_sync(left, mine + c, ld);
#pragma unroll
                for (int n = 0; n < keys_a_tile / side; n++) {  // row by row in memory, K is column by column Kᵀ
                    fragment<matrix_b, side, side, side, bf16, col_major> right;
                    load_matrix_sync(right, tile + n * side * ld + c, ld);
                    mma_sync(products[n], left, right, products[n]);
                }
            }
            for (int n = 0; n < keys_a_tile / side; n++)
                store_matrix_sync(scores + n * side, products[n], scores_ld, mem_row_major);
        }
        __syncwarp();  // the scores of other lanes are there

        float higher = top;
        for (int j = half; j < keys_a_tile; j += 2) {
            scores_row[j] = x.score(scores_row[j], b, h, row, first + j, seen);
            higher = larger(higher, scores_row[j]);
        }
        higher = larger(higher, __shfl_xor_sync(everyone, higher, 1));
        const float keep = weight_of(top, higher);
        mass *= keep, top = higher;
        for (int j = half; j < keys_a_tile; j += 2) {
            const float weight = weight_of(scores_row[j], top);
            mass += weight;
            store(weights_row[j], weight);
        }
        __syncwarp();  // the scores have been read: their place is free
        for (int j = half; j < side; j += 2) scores_row[j] = keep;
        __syncwarp();
        fragment<accumulator, side, side, side, float> part;
        load_matrix_sync(part, scores, scores_ld, mem_row_major);
#pragma unroll
        for (int c = 0; c < W / side; c++)
            for (int e = 0; e < part.num_elements; e++) sums[c].x[e] *= part.x[e];

        __syncthreads();  // the keys are no longer read
        const bool finite = load_tile<W>(tile, values, first);
        const bool careful = __syncthreads_or(!finite);
        if (!careful) {
            for (int n = 0; n < keys_a_tile / side; n++) {
                fragment<matrix_a, side, side, side, bf16, row_major> left;
                load_matrix_sync(left, weights + n * side, weights_ld);
#pragma unroll
                for (int c = 0; c < W / side; c++) {
                    if (c * side >= x.dv) break;
                    fragment<matrix_b, side, side, side, bf16, row_major> right;
                    load_matrix_sync(right, tile + n * side * ld + c * side, ld);
                    mma_sync(sums[c], left, right, sums[c]);
                }
            }
        } else {
            // In a tile with something that is not finite a pair of weight 0 must add nothing, and 0 · inf is NaN.
#pragma unroll
            for (int c = 0; c < W / side; c++) {
                if (c * side >= x.dv) break;
                __syncwarp();
                for (int i = half; i < side; i += 2) {
                    float sum = 0;
                    for (int j = 0; j < keys_a_tile; j++) {
                        const float weight = load(weights_row[j]);
                        if (weight != 0) sum += weight * load(tile[j * ld + c * side + i]);
                    }
                    scores_row[i] = sum;
                }
                __syncwarp();
                load_matrix_sync(part, scores, scores_ld, mem_row_major);
                for (int e = 0; e < part.num_elements; e++) sums[c].x[e] += part.x[e];
            }
        }
    }

    mass += __shfl_xor_sync(everyone, mass, 1);
    if (half == 0 && row < x.Tq) store(lse[(long long)head * x.Tq + row], top + log(mass));
    if (mass == 0) mass = 1;  // a row without keys, whose sum is 0 already
#pragma unroll
    for (int c = 0; c < W / side; c++) {
        if (c * side >= x.dv) break;
        __syncwarp();
        store_matrix_sync(scores, sums[c], scores_ld, mem_row_major);
        __syncwarp();
        for (int i = half; i < side && row < x.Tq && c * side + i < x.dv; i += 2)
            store(o[((long long)head * x.Tq + row) * x.dv + c * side + i], scores_row[i] / mass);
    }
}

}  // namespace mt

#define KERNEL(W)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(128) attention_forward_bfloat16_##W(                                \
        const __nv_bfloat16* q, const __nv_bfloat16* k, const __nv_bfloat16* v, __nv_bfloat16* o, __nv_bfloat16* lse, \
        PAGED_PARAMETERS, ATTENTION_PARAMETERS(__nv_bfloat16)) {                                                     \
        mt::attention_forward<W>(q, k, v, o, lse, ATTENTION_OPTIONS(__nv_bfloat16), table, lengths, page, pages,     \
                                 slots);                                                                             \
    }
KERNEL(64)
KERNEL(128)
KERNEL(256)
