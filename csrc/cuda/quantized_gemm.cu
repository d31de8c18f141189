// y = f(x Wᵀ + bias) with a weight in few bits, read as it lies: the blocks of kernels/quantized_weight.py in "rows".
//
//     a block (one group of one row)   its scale, a zero or a minimum where the format has one, its codes
//     w = scale (code - zero) + minimum
//
// Everything below goes by words: four codes as four signed bytes in 32 bits, whatever the format. One instruction,
// __dp4a, multiplies two words byte by byte and adds the four products to an int, exactly. So with x in int8 the sums
// of each group are those of every other implementation.
//
//     few rows of x   a warp for each output: it is the reading of the weight that takes time, once for 4 rows of x
//     many            a block for 64 x 64 outputs, 4 x 4 a thread; 32 columns at a time through shared memory
//
// Source: Jacob et al. 2018; ggml's block formats.
#include "activation.cuh"
#include "rows.cuh"

namespace mt {

enum Format { int8_rows, int4, int4_zero, q8_0, q4_1, float16, bfloat16 };  // q4_0 is int4 in groups of 32
enum Activation { none, relu_of, gelu_of, silu_of };

// The four bytes at any address, from the two aligned words that they lie in. The weight's memory ends with bytes to
// spare.
__device__ inline unsigned word_at(const unsigned char* p) {
    const unsigned beyond = (unsigned long long)p % 4;
    const unsigned* words = reinterpret_cast<const unsigned*>(p - beyond);
    return beyond ? __funnelshift_r(words[0], words[1], 8 * beyond) : words[0];
}
__device__ inline float half_at(const unsigned char* p) {
    return __half2float(__ushort_as_half((unsigned short)(p[0] | p[1] << 8)));
}

// Four small numbers less `zero` each, without a borrow from one byte to the next: the sign bits are set, then put
// right.
__device__ inline unsigned minus(unsigned bytes, unsigned zero) {
    return ((bytes | 0x80808080u) - zero * 0x01010101u) ^ 0x80808080u;
}

struct Weight {
    const unsigned char* data;
    int format, N, K, group;  // group: of int8 the whole row
    int bits, codes_at, block_bytes, groups;

    __device__ Weight(const unsigned char* data, int format, int N, int K, int group)
        : data(data), format(format), N(N), K(K), group(group) {
        bits = format == int8_rows || format == q8_0 ? 8 : 4;
        codes_at = format == int8_rows || format == q4_1 ? 4 : format == int4_zero ? 3 : 2;
        groups = format == int8_rows || halves() ? 1 : K / group;
        block_bytes = codes_at + group * bits / 8;
    }
    __device__ bool halves() const { return format == float16 || format == bfloat16; }
    __device__ int words() const { return (K + 3) / 4; }  // of a row
    __device__ int group_of(int word) const { return format == int8_rows ? 0 : word / (group / 4); }
    __device__ const unsigned char* block(int n, int g) const {
        return data + ((long long)n * groups + g) * block_bytes;
    }
    __device__ float scale(int n, int g) const {
        return format == int8_rows ? __uint_as_float(word_at(block(n, g))) : half_at(block(n, g));
    }
    __device__ float minimum(int n, int g) const { return half_at(block(n, g) + 2); }  // of q4_1 only

    // Integers 4 word … 4 word + 3 of row n. What lies behind a row of int8 is anything.
    __device__ unsigned integers(int n, int word) const {
        const int g = group_of(word), inside = format == int8_rows ? word : word % (group / 4);
        const unsigned char* codes = block(n, g) + codes_at;
        if (bits == 8) return word_at(codes + 4 * inside);
        // Each 16 bytes are 32 codes: the low halves are 16 of them, and the high halves the 16 after them.
        const int run = inside / 8, i = inside % 8;
        const unsigned bytes = word_at(codes + 16 * run + 4 * (i % 4)) >> (i < 4 ? 0 : 4) & 0x0f0f0f0fu;
        if (format == q4_1) return bytes;
        return minus(bytes, format == int4_zero ? block(n, g)[2] : 8);
    }
    // The numbers that they stand for.
    template <class A> __device__ void numbers(int n, int word, A (&w)[4]) const {
        if (halves()) {
            const unsigned short* row = reinterpret_cast<const unsigned short*>(data) + (long long)n * K;
            for (int i = 0; i < 4; i++) {
                const unsigned short bits_there = 4 * word + i < K ? row[4 * word + i] : 0;
                w[i] = format == float16 ? __half2float(__ushort_as_half(bits_there))
                                         : __bfloat162float(__ushort_as_bfloat16(bits_there));
            }
            return;
        }
        const int g = group_of(word);
        const A d = scale(n, g), least = format == q4_1 ? minimum(n, g) : 0;
        const unsigned four = integers(n, word);
        for (int i = 0; i < 4; i++) w[i] = A((signed char)(four >> (8 * i))) * d + least;
    }
};

template <class A> __device__ A activated(A y, int activation) {
    if (activation == relu_of) return y < 0 ? 0 : y;  // NaN stays
    return activation == gelu_of ? gelu(y) : activation == silu_of ? silu(y) : y;
}

// Rows of x: as they are, or as codes, `words` of four a row, zeros behind the last, and a scale for each row.
template <class T> struct Inputs {
    const T* x;
    const int* codes;
    const float* scales;
    int M, K, words;
};

template <class T> struct Outputs {
    T* y;
    const T* bias;
    int N, activation;
    __device__ void operator()(int m, int n, wide<T> sum) const {
        if (bias) sum += load(bias[n]);
        store(y[(long long)m * N + n], activated(sum, activation));
    }
};

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
