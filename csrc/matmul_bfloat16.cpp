// matmul.cpp with one change of view: what is packed is not numbers but pairs of neighbours in k, two bfloat16 in 32
// bits. One instruction (vdpbf16ps) multiplies 16 pairs by a pair and adds both products to each sum: twice what a float
// FMA does, on half the bytes. The conversion happens while packing, which has to touch every number anyway, so
// it is nearly free. Without the instruction each pair is taken apart and costs two FMAs: no gain, and not the same
// bits, since the instruction rounds its two additions in its own way and takes numbers below 2⁻¹²⁶ for 0, as inputs
// and as results.
#include "matmul_bfloat16.hpp"

#include <utility>

#include "threads.hpp"
#include "tile.hpp"

namespace mt::MT_ISA {
namespace {

constexpr int L = lanes<float>, W = 2 * L;          // columns of a tile
constexpr int tile_rows = MT_WIDTH == 64 ? 12 : 6;  // 24 of 32 or 12 of 16 registers hold sums
constexpr int group_rows = 8 * tile_rows;
constexpr int slab = 512;                           // pairs
constexpr int block_columns = 2048;
constexpr int panel_size = tile_rows * slab + L;    // of A; a register's room at the end

// ---------------------------------------------------------------- pairs

#if !defined(__AVX512BF16__)
// The upper 16 bits of each lane are the nearest bfloat16, ties to even; NaN stays NaN.
MT_INLINE words rounded(vec<float> x) {
    const words b = words(x);
    return words(x != x) != 0 ? b | 0x400000 : b + 0x7fff + (b >> 16 & 1);
}
#endif

// Lane i: the pair (first_i, second_i)
MT_INLINE words pairs(vec<float> first, vec<float> second) {
#if defined(__AVX512BF16__)
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                                6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return words(_mm512_permutexvar_epi16(interleave, __m512i(_mm512_cvtne2ps_pbh(__m512(second), __m512(first)))));
#else
    return rounded(first) >> 16 | (rounded(second) & 0xffff0000);
#endif
}

// 2 L neighbours, `low` before `high`: lane i is the pair (2i, 2i + 1) of them.
template <int... i> MT_INLINE words neighbours(vec<float> low, vec<float> high, std::integer_sequence<int, i...>) {
#if defined(__AVX512BF16__)
    return words(_mm512_cvtne2ps_pbh(__m512(high), __m512(low)));
#else
    return pairs(__builtin_shufflevector(low, high, (2 * i)...), __builtin_shufflevector(low, high, (2 * i + 1)...));
#endif
}
MT_INLINE words load_neighbours(const float* p, long n) {
    const auto all = std::make_integer_sequence<int, L>();
    if (n >= 2 * L) return neighbours(load(p), load(p + L), all);
    if (n <= L) return neighbours(load_n<float>(p, int(n)), vec<float>{}, all);
    return neighbours(load(p), load_n<float>(p + L, int(n - L)), all);
}

// sum += a.first b.first + a.second b.second
MT_INLINE void dot2(vec<float>& sum, words a, words b) {
#if defined(__AVX512BF16__)
    sum = vec<float>(_mm512_dpbf16_ps(__m512(sum), __m512bh(a), __m512bh(b)));
#else
    sum += vec<float>(a << 16) * vec<float>(b << 16);
    sum += vec<float>(a & 0xffff0000) * vec<float>(b & 0xffff0000);
#endif
}

// ---------------------------------------------------------------- packing

// Up to group_rows rows of A, K columns. Where k is dense, a row of pairs every `slab`; else for each pair of columns
// tile_rows pairs side by side.
void pack_a(Matrix<const float> a, long rows, long K, uint32_t* packed) {
    if (a.column == 1) {
        for (long i = 0; i < rows; i++) {
            uint32_t* to = packed + i / tile_rows * panel_size + i % tile_rows * slab;
            for (long k = 0; k < K; k += 2 * L) store_words(to + k / 2, load_neighbours(a.data + i * a.row + k, K - k));
        }
        return;
    }
    for (long k = 0; k < K; k += 2, a.data += 2 * a.column)
        for (long i = 0; i < rows; i += tile_rows) {
            uint32_t* to = packed + i / tile_rows * panel_size + k / 2 * tile_rows;
            for (long r = 0; r < tile_rows && i + r < rows; r += L) {  // what is too much, the next pair overwrites
                const int n = int(smaller(rows - i - r, long(L)));
                const float* from = a.data + i + r;
                const vec<float> second = k + 1 < K ? load_n<float>(from + a.column, n) : vec<float>{};
                store_words(to + r, pairs(load_n<float>(from, n), second));
            }
        }
}

// Up to W columns of B, K rows: pair u goes to packed + u W, filled up with zeros.
void pack_b(Matrix<const float> b, int columns, long K, uint32_t* packed) {
    for (int half = 0; half < W; half += L) {
        const int n = larger(smaller(columns - half, L), 0);
        if (b.column == 1) {
            for (long k = 0; k < K; k += 2) {
                const float* from = b.data + k * b.row + half;
                const vec<float> second = k + 1 < K ? load_n<float>(from + b.row, n) : vec<float>{};
                store_words(packed + k / 2 * W + half, pairs(load_n<float>(from, n), second));
            }
            continue;
        }
        for (long k = 0; k < K; k += 2 * L) {
            vec<float> r[L];
#pragma GCC unroll 16
            for (int j = 0; j < L; j++)
                r[j] = j < n ? vec<float>(load_neighbours(b.data + (half + j) * b.column + k, K - k)) : vec<float>{};
            exchange_quarters<float, L / 2>(r, std::make_integer_sequence<int, L>());
#pragma GCC unroll 16
            for (int i = 0; i < L; i++)
                if (k + 2 * i < K) store_words(packed + (k / 2 + i) * W + half, words(r[i]));
        }
    }
}

// ---------------------------------------------------------------- the tile

template <int R, bool rows>
void pair_tile(long count, const uint32_t* a, const uint32_t* b, float* c, long c_row, int width, bool add) {
    constexpr int row = rows ? slab : 1, step = rows ? 1 : tile_rows;
    vec<float> sum[R][2] = {};
    for (long u = 0; u < count; u++, a += step, b += W) {
        const words b0 = load_words(b), b1 = load_words(b + L);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++) {
            const words x = splat_words(a[i * row]);
            dot2(sum[i][0], x, b0);
            dot2(sum[i][1], x, b1);
        }
    }
    const int n0 = smaller(width, L), n1 = width - n0;
#pragma GCC unroll 12
    for (int i = 0; i < R; i++, c += c_row) {
        store_n<float>(c, add ? load_n<float>(c, n0) + sum[i][0] : sum[i][0], n0);
        if (n1) store_n<float>(c + L, add ? load_n<float>(c + L, n1) + sum[i][1] : sum[i][1], n1);
    }
}

using PairTile = void (*)(long, const uint32_t*, const uint32_t*, float*, long, int, bool);
template <bool rows, int... R> PairTile pick_tile(int height, std::integer_sequence<int, R...>) {
    static constexpr PairTile tiles[] = {pair_tile<R + 1, rows>...};
    return tiles[height - 1];
}
PairTile pick_tile(bool rows, int height) {
    constexpr auto heights = std::make_integer_sequence<int, tile_rows>();
    return rows ? pick_tile<true>(height, heights) : pick_tile<false>(height, heights);
}

// ---------------------------------------------------------------- blocks

// In slabs of equal length, even, which depends on K alone: it decides the order of the additions.
long slab_length(long K) { return K ? round_up(divide_up(K, divide_up(K, 2 * slab)), 2) : 2; }

void block(long rows, long columns, long K, Matrix<const float> a, Matrix<const float> b, Matrix<float> c,
           uint32_t* packed_a) {
    uint32_t* packed_b = packed_a + group_rows / tile_rows * panel_size;
    const long depth = slab_length(K);
    for (long k = 0; k == 0 || k < K; k += depth) {
        const long length = smaller(K - k, depth), count = divide_up(length, 2);
        for (long j = 0; j < columns; j += W)
            pack_b({b.data + k * b.row + j * b.column, b.row, b.column}, int(smaller(columns - j, long(W))), length,
                   packed_b + j * depth / 2);
        for (long group = 0; group < rows; group += group_rows) {
            const long end = smaller(rows, group + group_rows);
            pack_a({a.data + group * a.row + k * a.column, a.row, a.column}, end - group, length, packed_a);
            for (long j = 0; j < columns; j += W) {
                const int width = int(smaller(columns - j, long(W)));
                const uint32_t* strip = packed_a;
                for (long i = group; i < end; i += tile_rows, strip += panel_size)
                    pick_tile(a.column == 1, int(smaller(end - i, long(tile_rows))))(
                        count, strip, packed_b + j * depth / 2, c.data + i * c.row + j, c.row, width, k > 0);
            }
        }
    }
}

void multiply(const Product<float>& p) {
    if (p.M == 0 || p.N == 0) return;
    constexpr double small = 1e6;  // products that take a thread some 5 us: for less, no other is woken
    const double work = double(p.M) * double(p.N) * double(larger(p.K, 1l));
    const int threads = int(smaller(double(thread_count()), larger(work / small, 1.)));
    long rows = p.M, columns = round_up(divide_up(p.N, divide_up(p.N, block_columns)), W);
    auto blocks = [&] { return divide_up(p.M, rows) * divide_up(p.N, columns); };
    const long several = smaller(2l * threads, larger(long(threads), long(work / (8 * small))));
    while (threads > 1 && blocks() < several) {
        if (rows > 16 * tile_rows && rows > columns / 2) rows = round_up(divide_up(rows, 2), tile_rows);
        else if (columns > W) columns = round_up(divide_up(columns, 2), W);
        else break;
    }
    const long across = divide_up(p.N, columns);
    const long space = group_rows / tile_rows * panel_size + slab_length(p.K) / 2 * columns + L;
    auto* scratch = static_cast<uint32_t*>(thread_scratch(size_t(threads) * size_t(space) * sizeof(uint32_t)));
    parallel_for(blocks(), threads == 1 ? blocks() : 1, [&](long begin, long end, int thread) {
        for (long item = begin; item < end; item++) {
            const long i = item / across * rows, j = item % across * columns;
            block(smaller(rows, p.M - i), smaller(columns, p.N - j), p.K, {p.a.data + i * p.a.row, p.a.row, p.a.column},
                  {p.b.data + j * p.b.column, p.b.row, p.b.column}, {p.c.data + i * p.c.row + j, p.c.row, 1},
                  scratch + thread * space);
        }
    }, threads);
}

}  // namespace

template <class T> MatmulBfloat16Kernels<T> matmul_bfloat16_kernels() { return {multiply}; }
template MatmulBfloat16Kernels<float> matmul_bfloat16_kernels<float>();

}  // namespace mt::MT_ISA
