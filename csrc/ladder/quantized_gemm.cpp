// A product with an int8 weight and int8 inputs, y_mn = s_m d_n Σ_k q_mk c_nk, from the naive loop to the shipped
// kernel.
//
// x (M, K) float is rounded to codes q, s_m = max |x_m| / 127 a row (what `quantize` does in every rung, M K work); the
// weight has codes c (N, K) and scales d (N,). `panels` holds the same codes as rung 5 wants them, packed once and for
// all. What is useful is 2 M N K operations, and N K + 4 M K + 4 M N bytes if each array came from memory once.
//
// Sums of integers are exact, in any order: all rungs but the first give the same bits.
#include <algorithm>
#include <cstdint>

#include "ladder.hpp"

// codes (K) = round(x / s), s = max |x| / 127; returns s. In vectors: it is not what this ladder is about.
static float quantize(long K, const float* x, int8_t* codes) {
    vec<float> largest = {};
    for (long k = 0; k < K; k += L) largest = vmax(vabs(load_n<float>(x + k, int(std::min(K - k, long(L))))), largest);
    const float s = hmax(largest) / 127;
    const vec<float> round = splat(12582912.f);  // 1.5 2²³: adding it rounds to whole numbers, ties to even
    for (long k = 0; k < K; k += L) {
        const int n = int(std::min(K - k, long(L)));
        const vec<float> q = load_n<float>(x + k, n) / (s > 0 ? s : 1.f) + round;
        typedef int8_t Codes __attribute__((vector_size(L)));
        const Codes eight = __builtin_convertvector(bits<float>(q) - bits<float>(round), Codes);
        __builtin_memcpy(codes + k, &eight, size_t(n));
    }
    return s;
}

// All rows of x, side by side, `row` apart and zeros behind each.
struct Inputs {
    std::vector<int8_t> codes;
    std::vector<float> scales;
    Inputs(long M, long K, long row, const float* x) : codes(M * row), scales(M) {
        for (long m = 0; m < M; m++) scales[m] = quantize(K, x + m * K, &codes[m * row]);
    }
};

// [1] naive: codes made floats again, a float dot product
// What a reader of the formula writes: (s q) (d c), summed up in floats. The weight's bytes are a quarter of a float's,
// but each becomes a float for every row of x again: 2 conversions and 2 products for each useful pair. Limited by the
// sum, whose every addition waits some 4 cycles for the one before; floats may not be added in another order.
extern "C" void naive(long M, long N, long K, const float* x, const int8_t* c, const float* d, const uint8_t*,
                      float* y) {
    const Inputs in(M, K, K, x);
    for (long m = 0; m < M; m++)
        for (long n = 0; n < N; n++) {
            float sum = 0;
            for (long k = 0; k < K; k++) sum += (in.scales[m] * in.codes[m * K + k]) * (d[n] * c[n * K + k]);
            y[m * N + n] = sum;
        }
}

// [2] integers: int8 products summed up in int32, scales at the end
// The scales leave the sum, 1 conversion and 2 products a result instead of a pair. Whole numbers may be added in any
// order, so that the compiler makes vectors of the loop by itself: it widens bytes to 16 bits, multiplies and adds
// pairs, all exactly. The weight (N K bytes) is read once a row of x: from the L2 cache or beyond, 1 byte a product.
extern "C" void integers(long M, long N, long K, const float* x, const int8_t* c, const float* d, const uint8_t*,
                         float* y) {
    const Inputs in(M, K, K, x);
    for (long m = 0; m < M; m++)
        for (long n = 0; n < N; n++) {
            int32_t sum = 0;
            for (long k = 0; k < K; k++) sum += int32_t(in.codes[m * K + k]) * c[n * K + k];
            y[m * N + n] = float(sum) * d[n] * in.scales[m];
        }
}

// [3] row blocks: 4 × 4 sums share what is loaded
// 4 rows of x meet 4 rows of the weight: 8 loads (and 8 widenings) for 16 products instead of 32, and the weight comes
// from the cache M / 4 times. What limits is the widening, and at the end of each sum one addition across the lanes.
extern "C" void row_blocks(long M, long N, long K, const float* x, const int8_t* c, const float* d, const uint8_t*,
                           float* y) {
    const Inputs in(M, K, K, x);
    const int8_t* q = in.codes.data();
    for (long m0 = 0; m0 < M; m0 += 4)
        for (long n0 = 0; n0 < N; n0 += 4) {
            const int8_t *a[4], *b[4];  // beyond the last row: the last again
            for (long i = 0; i < 4; i++) a[i] = q + std::min(m0 + i, M - 1) * K, b[i] = c + std::min(n0 + i, N - 1) * K;
            int32_t sum[4][4] = {};
            for (long k = 0; k < K; k++)
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++) sum[i][j] += int32_t(a[i][k]) * b[j][k];
            for (long m = m0; m < std::min(M, m0 + 4); m++)
                for (long n = n0; n < std::min(N, n0 + 4); n++)
                    y[m * N + n] = float(sum[m - m0][n - n0]) * d[n] * in.scales[m];
        }
}

// ---------------------------------------------------------------- vectors

// In each 32-bit lane: the products of its two 16-bit numbers, added up. Exact: nowhere near 2³¹.
static words pairs(words a, words b) {
#if MT_WIDTH == 64
    return words(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif MT_WIDTH == 32
    return words(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#else
    const ints<float> x = ints<float>(a), y = ints<float>(b);
    return words((x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16));
#endif
}

typedef int16_t halves __attribute__((vector_size(MT_WIDTH)));
typedef int8_t bytes __attribute__((vector_size(MT_WIDTH / 2)));
static words widened(const int8_t* p) {  // 2 L neighbours as 16-bit numbers
    bytes b;
    __builtin_memcpy(&b, p, sizeof b);
    return words(__builtin_convertvector(b, halves));
}

// [4] vectors: bytes widened to 16 bits, multiplied in pairs
// By hand what the compiler does with rung 2: 32 neighbours in k a register, their products added in pairs to 32 bits.
// The instruction that takes bytes as they are (vpmaddubsw) adds pairs in 16 bits, where 2 · 255 · 127 does not fit,
// and cuts off in silence: faster, and wrong. 4 × 4 rows: 8 loads and widenings for 16 products, 16 sums across lanes
// at the end. The sums fill the registers; the loads, 8 rows apart, limit.
extern "C" void vectors(long M, long N, long K, const float* x, const int8_t* c, const float* d, const uint8_t*,
                        float* y) {
    const Inputs in(M, K, K, x);
    const int8_t* q = in.codes.data();
    for (long m0 = 0; m0 < M; m0 += 4)
        for (long n0 = 0; n0 < N; n0 += 4) {
            const int8_t *a[4], *b[4];
            for (long i = 0; i < 4; i++) a[i] = q + std::min(m0 + i, M - 1) * K, b[i] = c + std::min(n0 + i, N - 1) * K;
            words sum[4][4] = {};
            long k = 0;
            for (; k + 2 * L <= K; k += 2 * L) {
                words row[4];
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) row[i] = widened(a[i] + k);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const words column = widened(b[j] + k);
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++) sum[i][j] += pairs(row[i], column);
                }
            }
            int32_t sums[4][4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) sums[i][j] = int32_t(hsum(sum[i][j]));
            for (long m = m0; m < std::min(M, m0 + 4); m++)
                for (long n = n0; n < std::min(N, n0 + 4); n++) {
                    int32_t& total = sums[m - m0][n - n0];
                    for (long rest = k; rest < K; rest++) total += int32_t(a[m - m0][rest]) * b[n - n0][rest];
                    y[m * N + n] = float(total) * d[n] * in.scales[m];
                }
        }
}

// ---------------------------------------------------------------- panels

// A panel is L rows of the weight side by side: for each 4 neighbours in k, 4 bytes of each row, one lane a row. So
// each lane adds up a result of its own. Codes are kept as c + 128, unsigned, as the dot-product instruction wants
// them: Σ q (c + 128) is Σ q c + 128 Σ q, and a tile's sums begin at -128 Σ q.
constexpr long PANEL = L;
static long padded(long K) { return (K + 3) / 4 * 4; }

extern "C" long panel_bytes(long N, long K) { return (N + PANEL - 1) / PANEL * PANEL * padded(K); }
extern "C" void pack_panels(long N, long K, const int8_t* c, uint8_t* panels) {
    for (long n0 = 0; n0 < N; n0 += PANEL)
        for (long k = 0; k < padded(K); k += 4)
            for (long n = n0; n < n0 + PANEL; n++)
                for (long i = k; i < k + 4; i++) *panels++ = uint8_t((n < N && i < K ? c[n * K + i] : 0) + 128);
}

static words four(const int8_t* q) {  // 4 codes of x, the same in every lane
    uint32_t bytes;
    __builtin_memcpy(&bytes, q, 4);
    return words{} + bytes;
}

// In each 32-bit lane: sum + Σ_j unsigned byte j of a × signed byte j of b, by products of 16 bits: the even bytes and
// the odd ones, widened where they are.
static words by_pairs(words sum, words a, words b) {
    const words even = words(halves(b) << 8 >> 8), odd = words(halves(b) >> 8);
    return sum + pairs(a & 0x00ff00ff, even) + pairs(a >> 8 & 0x00ff00ff, odd);
}

// The same by products of 32 bits: 4 of them, each of a byte cut out of either side.
static words by_words(words sum, words a, words b) {
    for (int j = 0; j < 32; j += 8) sum += (a >> j & 255) * words(ints<float>(b << (24 - j)) >> 24);
    return sum;
}

// y of R rows of x (codes q, `row` apart) and PANELS panels from n0 on: R × PANELS registers of sums.
template <int R, int PANELS, class Dot>
[[gnu::always_inline]] static inline void tile(Dot dot, long N, long row, const int8_t* q, const float* s,
                                               const uint8_t* panel, const float* d, long n0, float* y) {
    words sum[R][PANELS];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        int32_t total = 0;
        for (long k = 0; k < row; k++) total += q[i * row + k];
#pragma GCC unroll 2
        for (int p = 0; p < PANELS; p++) sum[i][p] = words{} - 128u * uint32_t(total);
    }
    for (long k = 0; k < row; k += 4) {
        words line[PANELS];
#pragma GCC unroll 2
        for (int p = 0; p < PANELS; p++) __builtin_memcpy(&line[p], panel + (p * row + k) * PANEL, sizeof line[p]);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const words inputs = four(q + i * row + k);
#pragma GCC unroll 2
            for (int p = 0; p < PANELS; p++) sum[i][p] = dot(sum[i][p], line[p], inputs);
        }
    }
    int32_t sums[R][PANELS * PANEL];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
        for (int p = 0; p < PANELS; p++) __builtin_memcpy(&sums[i][p * PANEL], &sum[i][p], sizeof sum[i][p]);
    for (int i = 0; i < R; i++)
        for (long j = 0; j < std::min(PANELS * PANEL, N - n0); j++)
            y[i * N + j] = float(sums[i][j]) * d[n0 + j] * s[i];
}

// Columns from n0 on, `PANELS` panels of them, of all rows of x.
template <int R, int PANELS, class Dot>
[[gnu::always_inline]] static inline void columns(Dot dot, long M, long N, long row, const Inputs& in,
                                                  const uint8_t* panels, const float* d, long n0, float* y) {
    const uint8_t* panel = panels + n0 * row;
    long m = 0;
    for (; m + R <= M; m += R)
        tile<R, PANELS>(dot, N, row, &in.codes[m * row], &in.scales[m], panel, d, n0, y + m * N + n0);
    for (; m < M; m++) tile<1, PANELS>(dot, N, row, &in.codes[m * row], &in.scales[m], panel, d, n0, y + m * N + n0);
}

// Two panels a tile; where their number is odd, the last has one.
template <int R, class Dot>
static void by_panels(Dot dot, long M, long N, long K, const float* x, const float* d, const uint8_t* panels,
                      float* y) {
    const Inputs in(M, K, padded(K), x);
    for (long n0 = 0; n0 < N; n0 += 2 * PANEL)
        if (n0 + PANEL < N) columns<R, 2>(dot, M, N, padded(K), in, panels, d, n0, y);
        else columns<R, 1>(dot, M, N, padded(K), in, panels, d, n0, y);
}

// [5, failed] products of 32 bits: no pairs, 4 products a lane
// Panels as in the next rung, and what C++ vectors offer without any intrinsic: cut out a byte, multiply, add. 5
// operations around each of 4 products of which 3/4 of the bits are zeros, and the 32-bit multiplier is the slow one.
// Measured: 0.45× the speed of the next rung (Zen 5, M = 64, N = K = 1024).
extern "C" void products_of_words(long M, long N, long K, const float* x, const int8_t*, const float* d,
                                  const uint8_t* panels, float* y) {
    by_panels<4>([](words sum, words a, words b) { return by_words(sum, a, b); }, M, N, K, x, d, panels, y);
}

// [5] packed panels: 16 rows of the weight side by side, a lane each
// Packed once, when the weight is loaded. A register of the weight meets 4 codes of x, the same in every lane: nothing
// is added up across lanes, y is written by whole registers, the weight is one stream, and what is widened of it serves
// 4 rows. 2 products, 2 sums and the widening for 64 products: the layout prepares for the next rung.
extern "C" void packed_panels(long M, long N, long K, const float* x, const int8_t*, const float* d,
                              const uint8_t* panels, float* y) {
    by_panels<4>([](words sum, words a, words b) { return by_pairs(sum, a, b); }, M, N, K, x, d, panels, y);
}

#if defined(__AVX512VNNI__) && MT_WIDTH == 64
constexpr int ROWS = 8;

// [6, failed] VNNI, sums by index: an array that somebody indexes is memory
// The next rung, but the sums are written out by `sum[i][p]` with an i that is no constant. So the compiler keeps
// the array in memory, and stores and reloads a sum around each instruction: 5 cycles for what takes half a one.
// Measured: 0.4× the speed of the next rung (Zen 5, GCC 12): what touches an array of registers must be unrolled.
extern "C" void sums_by_index(long M, long N, long K, const float* x, const int8_t*, const float* d,
                              const uint8_t* panels, float* y) {
    const Inputs in(M, K, padded(K), x);
    for (long n0 = 0; n0 < N; n0 += PANEL)
        for (long m0 = 0; m0 < M; m0 += ROWS) {
            words sum[ROWS] = {};
            for (long k = 0; k < padded(K); k += 4) {
                words line;
                __builtin_memcpy(&line, panels + n0 * padded(K) + k * PANEL, sizeof line);
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; i++)
                    dot4(sum[i], line, four(&in.codes[std::min(m0 + i, M - 1) * padded(K) + k]));
            }
            for (long m = m0; m < std::min(M, m0 + ROWS); m++) {
                int32_t total = 0;
                for (long k = 0; k < padded(K); k++) total += in.codes[m * padded(K) + k];
                for (long j = 0; j < std::min(PANEL, N - n0); j++)
                    y[m * N + n0 + j] = float(int32_t(sum[m - m0][j]) - 128 * total) * d[n0 + j] * in.scales[m];
            }
        }
}
#else
constexpr int ROWS = 4;
#endif

// The best that this processor has (dot4.hpp): vpdpbusd, or pairs.
static words best(words sum, words a, words b) {
    dot4(sum, a, b);
    return sum;
}

#if defined(__AVX512VNNI__) && MT_WIDTH == 64
// [6] VNNI: 4 products and their sum in one instruction
// 128 operations an instruction and none to widen. 8 rows × 2 panels of sums stay in registers: 2 loads and 8
// broadcasts for 16 instructions. Limited by the dot-product units of one core, 8 L operations a cycle each.
extern "C" void vnni(long M, long N, long K, const float* x, const int8_t*, const float* d, const uint8_t* panels,
                     float* y) {
    by_panels<ROWS>(best, M, N, K, x, d, panels, y);
}
#endif

// [7] threads: pairs of panels dealt out to all cores
// Each thread reads its own columns of the weight, N K bytes for all together, and writes its own of y. For few rows
// that read is what limits, for many the dot-product units. x is rounded by one thread only, before the others start.
extern "C" void threads(long M, long N, long K, const float* x, const int8_t*, const float* d, const uint8_t* panels,
                        float* y) {
    const Inputs in(M, K, padded(K), x);
    parallel((N + 2 * PANEL - 1) / (2 * PANEL), [&](long item) {
        const long n0 = item * 2 * PANEL;
        if (n0 + PANEL < N) columns<ROWS, 2>(best, M, N, padded(K), in, panels, d, n0, y);
        else columns<ROWS, 1>(best, M, N, padded(K), in, panels, d, n0, y);
    });
}
