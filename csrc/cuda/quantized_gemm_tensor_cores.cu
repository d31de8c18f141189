// y = f(s_m d_n Σ_k q_mk c_nk + bias_n): codes of x times codes of an int8 weight on tensor cores, which add up in int,
// exactly. A scale a row and one a column, so nothing but integers is in the loop.
//
// A block has 64 x 64 outputs, each of its 4 warps 32 x 32 of them: 2 x 2 matrices of 16 x 16.
#include <mma.h>

#include "quantized_gemm.cuh"

namespace mt {

using namespace nvcuda::wmma;

constexpr int corner = 16, outputs = 64, step = 32, threads_a_block = 128, sums_ld = outputs + 4;

template <class T>
__device__ void product_of_bytes(const Weight& weight, const Inputs<T>& in, const Outputs<T>& out) {
    // [which 16 of the codes][row][code]: a matrix of 16 x 16 codes begins at a multiple of 32 bytes
    __shared__ __align__(32) signed char ws[step / corner][outputs][corner], xs[step / corner][outputs][corner];
    __shared__ __align__(32) int sums[outputs][sums_ld];
    const int thread = threadIdx.x, warp = thread / 32, n0 = blockIdx.x * outputs, m0 = blockIdx.y * outputs;
    const int warp_m = warp / 2 * 2 * corner, warp_n = warp % 2 * 2 * corner;
    fragment<accumulator, corner, corner, corner, int> products[2][2];
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++) fill_fragment(products[a][b], 0);
    for (int w0 = 0; w0 < in.words; w0 += step / 4) {
        __syncthreads();  // the codes before are no longer read
#pragma unroll 2
        for (int part = thread; part < outputs * step / 4; part += threads_a_block) {
            const int r = part / (step / 4), word = part % (step / 4), which = word / 4, at = word % 4 * 4;
            const bool inside = w0 + word < weight.words();
            const int w = inside && n0 + r < weight.N ? int(weight.integers(n0 + r, w0 + word)) : 0;
            const int x = inside && m0 + r < in.M ? in.codes[(long long)(m0 + r) * in.words + w0 + word] : 0;
            *reinterpret_cast<int*>(&ws[which][r][at]) = w, *reinterpret_cast<int*>(&xs[which][r][at]) = x;
        }
        __syncthreads();  // the codes are there
#pragma unroll
        for (int which = 0; which < step / corner; which++) {
            fragment<matrix_a, corner, corner, corner, signed char, row_major> left[2];
            fragment<matrix_b, corner, corner, corner, signed char, col_major> right[2];
            for (int a = 0; a < 2; a++) load_matrix_sync(left[a], xs[which][warp_m + a * corner], corner);
            for (int b = 0; b < 2; b++) load_matrix_sync(right[b], ws[which][warp_n + b * corner], corner);
            for (int a = 0; a < 2; a++)
                for (int b = 0; b < 2; b++) mma_sync(products[a][b], left[a], right[b], products[a][b]);
        }
    }
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++)
            store_matrix_sync(&sums[warp_m + a * corner][warp_n + b * corner], products[a][b], sums_ld, mem_row_major);
    __syncthreads();
    for (int part = thread; part < outputs * outputs; part += threads_a_block) {
        const int m = m0 + part / outputs, n = n0 + part % outputs;
        if (m >= in.M || n >= weight.N) continue;
        out(m, n, wide<T>(sums[m - m0][n - n0]) * weight.scale(n, 0) * in.scales[m]);
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) quantized_product_of_bytes_##NAME(                              \
        const int* codes, const float* scales, const unsigned char* weight, const T* bias, T* y, int M, int N, int K, \
        int format, int group, int activation, int words) {                                                           \
        mt::product_of_bytes<T>(mt::Weight(weight, format, N, K, group),                                              \
                                mt::Inputs<T>{nullptr, codes, scales, M, K, words},                                   \
                                mt::Outputs<T>{y, bias, N, activation});                                              \
    }
FLOATS(KERNELS)
