// wmma: one product of each kind by one warp, straight from global memory.
#include <mma.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
using namespace nvcuda;

template <int M, int N, class T, class Sum, class LayoutA, class LayoutB>
__device__ void product(const T* a, const T* b, const Sum* c, Sum* d, int lda, int ldb) {
    wmma::fragment<wmma::matrix_a, M, N, 16, T, LayoutA> fa;
    wmma::fragment<wmma::matrix_b, M, N, 16, T, LayoutB> fb;
    wmma::fragment<wmma::accumulator, M, N, 16, Sum> sum;
    wmma::load_matrix_sync(sum, c, N, wmma::mem_row_major);
    wmma::load_matrix_sync(fa, a, lda);
    wmma::load_matrix_sync(fb, b, ldb);
    wmma::mma_sync(sum, fa, fb, sum);
    for (int i = 0; i < sum.num_elements; i++) sum.x[i] = sum.x[i] + sum.x[i];
    wmma::store_matrix_sync(d, sum, M, wmma::mem_col_major);
}

extern "C" __global__ void bf16_rows_rows(const __nv_bfloat16* a, const __nv_bfloat16* b, const float* c, float* d) {
    product<16, 16, __nv_bfloat16, float, wmma::row_major, wmma::row_major>(a, b, c, d, 16, 16);
}
extern "C" __global__ void bf16_rows_columns(const __nv_bfloat16* a, const __nv_bfloat16* b, const float* c, float* d) {
    product<16, 16, __nv_bfloat16, float, wmma::row_major, wmma::col_major>(a, b, c, d, 16, 16);
}
extern "C" __global__ void half_columns_rows(const half* a, const half* b, const float* c, float* d) {
    product<32, 8, half, float, wmma::col_major, wmma::row_major>(a, b, c, d, 32, 8);
}
extern "C" __global__ void half_half(const half* a, const half* b, const half* c, half* d) {
    product<8, 32, half, half, wmma::row_major, wmma::row_major>(a, b, c, d, 16, 32);
}
extern "C" __global__ void bytes(const signed char* a, const signed char* b, const int* c, int* d) {
    product<16, 16, signed char, int, wmma::row_major, wmma::col_major>(a, b, c, d, 16, 16);
}
extern "C" __global__ void one_lane_missing(const half* a, float* d) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
    if (threadIdx.x != 7) wmma::load_matrix_sync(fa, a, 16);
    if (threadIdx.x == 7) __syncthreads();
    d[threadIdx.x] = __half2float(fa.x[0]);
}
extern "C" __global__ void misaligned(const half* a, float* d, int offset, int ld) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
    wmma::load_matrix_sync(fa, a + offset, ld);
    d[threadIdx.x] = __half2float(fa.x[0]);
}
