// A weight in few bits, read as it lies, the blocks of kernels/quantized_weight.py in "rows"; and what goes into a
// product with it and out.
//
//     a block (one group of one row)   its scale, a zero or a minimum where the format has one, its codes
//     w = scale (code - zero) + minimum
//
// Everything goes by words: four codes as four signed bytes in 32 bits, whatever the format. __dp4a multiplies two
// words byte by byte and adds the four products to an int, exactly. So with x in int8 the sums of each group are those
// of every other implementation.
#pragma once
#include "activation.cuh"
#include "rows.cuh"

namespace mt {

enum Format { int8_rows, int4, int4_zero, q8_0, q4_1, float16, bfloat16 };  // q4_0 is int4 in groups of 32
enum Activation { none, relu_of, gelu_of, silu_of, gelu_tanh_of };

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
    if (activation == gelu_tanh_of) return gelu_tanh(y);
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

}  // namespace mt
