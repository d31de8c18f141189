// y = f(x Wᵀ + bias) with a weight in few bits (quantized_gemm.cuh), x in float or, by quantize_rows, in int8.
//
//     few rows of x   a warp for each output: it is the reading of the weight that takes time, once for 4 rows of x
//     many            a block for 64 x 64 outputs, 4 x 4 a thread; 32 columns at a time through shared memory
//
// quantized_gemm_tensor_cores.cu has the product of int8 with int8.
// Source: Jacob et al. 2018; ggml's block formats.
#include "quantized_gemm.cuh"

namespace mt {

// codes = round(x (1/scale)) within ±127, scale = max |x| / 127 unless given, 0 where that is no normal number;
// a row that is not finite gets codes 0 and scale NaN. Every operation is one that IEEE 754 rounds exactly: the same
// bits everywhere. One team a row; `stride` bytes from a row of codes to the next, zeros between.
template <class T>
__device__ void quantize_rows(const T* x, signed char* codes, float* scales, long long rows, int n, int stride,
                              float given) {
    const long long row = row_of_team();
    if (row >= rows) return;
    x += row * n, codes += row * stride;
    float largest = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float size = fabsf(float(load(x[i])));
        largest = larger(largest, size == size ? size : infinity<float>());
    }
    largest = team_max(largest);
    const bool finite = largest < infinity<float>();
    float scale = given > 0 ? given : largest / 127;
    if (scale < 1.17549435e-38f) scale = 0;  // its inverse might be infinite
    if (!finite) scale = not_a_number<float>();
    const float inverse = 1 / scale;
    for (int i = threadIdx.x; i < stride; i += blockDim.x) {
        float code = 0;
        if (i < n && scale > 0) code = min(max(rintf(float(load(x[i])) * inverse), -127.0f), 127.0f);
        codes[i] = (signed char)code;
    }
    if (threadIdx.x == 0) scales[row] = scale;
}

constexpr int few = 4;  // rows of x that a warp has at once

// One warp for each n, and for rows 4 blockIdx.y … + 3 of x. Lane l has word l, l + 32 …, so that a warp reads on.
template <class T> __device__ void product_of_few(const Weight& weight, const Inputs<T>& in, const Outputs<T>& out) {
    const int n = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x, row = blockIdx.y * few;
    if (n >= weight.N) return;
    wide<T> sum[few] = {};
    for (int word = lane; word < weight.words(); word += 32) {
        wide<T> w[4];
        weight.numbers(n, word, w);
#pragma unroll
        for (int m = 0; m < few; m++)
            for (int i = 0; i < 4; i++)
                if (row + m < in.M && 4 * word + i < in.K)
                    sum[m] += w[i] * load(in.x[(long long)(row + m) * in.K + 4 * word + i]);
    }
#pragma unroll
    for (int m = 0; m < few; m++) {
        const wide<T> total = team_sum(sum[m]);
        if (lane == 0 && row + m < in.M) out(row + m, n, total);
    }
}

// The same with codes. The lanes of a group (8, 16 or all 32) add up their ints first, so that a scale multiplies the
// whole sum of its group; of int8 that is the sum of the row, at the end.
template <class T>
__device__ void product_of_few_codes(const Weight& weight, const Inputs<T>& in, const Outputs<T>& out) {
    const int n = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x, row = blockIdx.y * few;
    if (n >= weight.N) return;
    const bool by_row = weight.format == int8_rows, with_minimum = weight.format == q4_1;
    const int lanes = by_row ? 1 : weight.group / 4;
    wide<T> sum[few] = {};
    int of_row[few] = {};
    for (int start = 0; start < weight.words(); start += 32) {
        const int word = start + lane, g = weight.group_of(word);
        const bool there = word < weight.words();
        const int w = there ? int(weight.integers(n, word)) : 0;
        const bool adds = there && !by_row && lane % lanes == 0;
        const wide<T> d = adds ? weight.scale(n, g) : 0, least = adds && with_minimum ? weight.minimum(n, g) : 0;
#pragma unroll
        for (int m = 0; m < few; m++) {
            const int x = there && row + m < in.M ? in.codes[(long long)(row + m) * in.words + word] : 0;
            int products = __dp4a(w, x, 0), codes = __dp4a(0x01010101, x, 0);
            for (int distance = lanes / 2; distance > 0; distance /= 2) {
                products += __shfl_xor_sync(everyone, products, distance);
                if (with_minimum) codes += __shfl_xor_sync(everyone, codes, distance);
            }
            of_row[m] += products;
            if (adds) sum[m] += wide<T>(products) * d;
            if (adds && with_minimum) sum[m] += wide<T>(codes) * least;
        }
    }
#pragma unroll
    for (int m = 0; m < few; m++) {
        wide<T> total;
        if (by_row) total = wide<T>(team_sum(of_row[m])) * weight.scale(n, 0);
        else total = team_sum(sum[m]);
        if (lane == 0 && row + m < in.M) out(row + m, n, total * in.scales[row + m]);
    }
}

// A block of 16 x 16 threads has 64 x 64 outputs; thread (i, j) those of columns i, i + 16 … and rows j, j + 16 …
constexpr int side = 64, each = 4, run = 32, run_words = run / 4;

template <class T> __device__ void product(const Weight& weight, const Inputs<T>& in, const Outputs<T>& out) {
    using A = wide<T>;
    __shared__ A ws[run][side + 1], xs[run][side + 1];
    const int i = threadIdx.x, j = threadIdx.y, thread = j * 16 + i, n0 = blockIdx.x * side, m0 = blockIdx.y * side;
    A sum[each][each] = {};
    for (int k0 = 0; k0 < in.K; k0 += run) {
        __syncthreads();  // the tiles before are no longer read
#pragma unroll 1
        for (int part = thread; part < side * run_words; part += 256) {
            const int n = part / run_words, word = part % run_words;
            A w[4] = {};
            if (n0 + n < weight.N && k0 + 4 * word < in.K) weight.numbers(n0 + n, k0 / 4 + word, w);
            for (int c = 0; c < 4; c++) ws[4 * word + c][n] = w[c];
        }
#pragma unroll 2
        for (int part = thread; part < side * run; part += 256) {
            const int m = part / run, k = part % run;
            const bool there = m0 + m < in.M && k0 + k < in.K;
            xs[k][m] = there ? load(in.x[(long long)(m0 + m) * in.K + k0 + k]) : 0;
        }
        __syncthreads();
        // Behind the last column both tiles would be 0, but a row of int8 is followed by anything.
        const int until = min(run, in.K - k0);
        for (int k = 0; k < until; k++)
#pragma unroll
            for (int a = 0; a < each; a++)
#pragma unroll
                for (int b = 0; b < each; b++) sum[a][b] += xs[k][j + 16 * a] * ws[k][i + 16 * b];
    }
    for (int a = 0; a < each; a++)
        for (int b = 0; b < each; b++)
            if (m0 + j + 16 * a < in.M && n0 + i + 16 * b < weight.N) out(m0 + j + 16 * a, n0 + i + 16 * b, sum[a][b]);
}

template <class T> __device__ void product_of_codes(const Weight& weight, const Inputs<T>& in, const Outputs<T>& out) {
    using A = wide<T>;
    __shared__ int ws[run_words][side + 1], xs[run_words][side + 1];
    const int i = threadIdx.x, j = threadIdx.y, thread = j * 16 + i, n0 = blockIdx.x * side, m0 = blockIdx.y * side;
    const bool with_minimum = weight.format == q4_1;
    const int group_words = weight.format == int8_rows ? in.words : weight.group / 4;
    A sum[each][each] = {};
    int products[each][each] = {}, codes[each] = {};  // of the group so far
    for (int w0 = 0; w0 < in.words; w0 += run_words) {
        __syncthreads();
#pragma unroll 1
        for (int part = thread; part < side * run_words; part += 256) {
            const int r = part / run_words, word = part % run_words;
            const bool inside = w0 + word < weight.words();
            ws[word][r] = inside && n0 + r < weight.N ? int(weight.integers(n0 + r, w0 + word)) : 0;
            xs[word][r] = inside && m0 + r < in.M ? in.codes[(long long)(m0 + r) * in.words + w0 + word] : 0;
        }
        __syncthreads();  // the words are there
#pragma unroll 2
        for (int word = 0; word < run_words; word++)
#pragma unroll
            for (int a = 0; a < each; a++) {
                const int x = xs[word][j + 16 * a];
                if (with_minimum) codes[a] = __dp4a(0x01010101, x, codes[a]);
#pragma unroll
                for (int b = 0; b < each; b++) products[a][b] = __dp4a(ws[word][i + 16 * b], x, products[a][b]);
            }
        if ((w0 + run_words) % group_words != 0) continue;  // the group goes on
#pragma unroll
        for (int b = 0; b < each; b++) {
            const int n = min(n0 + i + 16 * b, weight.N - 1), g = weight.group_of(w0);
            const A d = weight.scale(n, g), least = with_minimum ? weight.minimum(n, g) : 0;
#pragma unroll
            for (int a = 0; a < each; a++) {
                sum[a][b] += A(products[a][b]) * d;
                if (with_minimum) sum[a][b] += A(codes[a]) * least;
                products[a][b] = 0;
            }
        }
        for (int a = 0; a < each; a++) codes[a] = 0;
    }
    for (int a = 0; a < each; a++)
        for (int b = 0; b < each; b++) {
            const int m = m0 + j + 16 * a, n = n0 + i + 16 * b;
            if (m < in.M && n < weight.N) out(m, n, sum[a][b] * in.scales[m]);
        }
}

}  // namespace mt

#define FLOAT_KERNEL(NAME, T, SUFFIX, THREADS)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) quantized_##NAME##_##SUFFIX(                                 \
        const T* x, const unsigned char* weight, const T* bias, T* y, int M, int N, int K, int format, int group,      \
        int activation) {                                                                                              \
        mt::NAME<T>(mt::Weight(weight, format, N, K, group), mt::Inputs<T>{x, nullptr, nullptr, M, K, 0},              \
                    mt::Outputs<T>{y, bias, N, activation});                                                           \
    }
#define CODES_KERNEL(NAME, T, SUFFIX, THREADS)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) quantized_##NAME##_##SUFFIX(                                 \
        const int* codes, const float* scales, const unsigned char* weight, const T* bias, T* y, int M, int N, int K,  \
        int format, int group, int activation, int words) {                                                            \
        mt::NAME<T>(mt::Weight(weight, format, N, K, group), mt::Inputs<T>{nullptr, codes, scales, M, K, words},       \
                    mt::Outputs<T>{y, bias, N, activation});                                                           \
    }
#define KERNELS(T, NAME)                                                                                               \
    extern "C" __global__ void quantize_rows_##NAME(const T* x, signed char* codes, float* scales, long long rows,     \
                                                    int n, int stride, float given) {                                  \
        mt::quantize_rows(x, codes, scales, rows, n, stride, given);                                                   \
    }                                                                                                                  \
    FLOAT_KERNEL(product_of_few, T, NAME, 128) FLOAT_KERNEL(product, T, NAME, 256)                                     \
    CODES_KERNEL(product_of_few_codes, T, NAME, 128) CODES_KERNEL(product_of_codes, T, NAME, 256)
FLOATS(KERNELS)
