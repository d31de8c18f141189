// Products with weights in few bits: y = f(x Wᵀ + bias).
//
// With 8-bit inputs everything rests on one instruction, dot4: in each lane 4 products of a byte of the weight and a
// byte of the input. Weights lie 16 rows beside each other (quantized_blocks.hpp), so that a 64-byte line is 16 rows
// times 4 neighbours in k; no sum across lanes is ever needed. As in any product, a tile of sums stays in registers:
// 12 rows of x by 2 panels, or 6 where each group has a scale of its own and there are float sums beside the integers.
//
//   for each pair of panels, handed out to the threads     few rows (decoding): read from memory once
//     many rows: 4-bit codes are unpacked to bytes         once for all rows; stays in the L2 cache
//     for each tile_rows rows of x: one tile               inputs are codes already, in chunks of 32
//
// dot4 wants the weight unsigned: a code c is kept as c + zero, and the sums start at -zero Σ q instead of 0.
//
// With float inputs the weight becomes floats, 256 of k at a time, in the L1 cache, and tile.hpp multiplies.
#include "quantized_gemm.hpp"

#include <utility>

#include "activated.hpp"
#include "quantized_blocks.hpp"
#include "threads.hpp"
#include "tile.hpp"

namespace mt::MT_ISA {
namespace {

constexpr bool wide = MT_WIDTH == 64;
constexpr int PANELS = wide ? 2 : 1;         // of a tile
constexpr int WIDTH = PANELS * PANEL;        // its columns
constexpr int VECTORS = WIDTH / L;           // its registers a row
constexpr int WHOLE_ROWS = wide ? 12 : 4, GROUP_ROWS = wide ? 6 : 2;
constexpr long FEW = 16;                     // rows for which a weight is not unpacked first

// ---------------------------------------------------------------- inputs

// What kernels/numpy/quantized_gemm.py says, in the same operations. Chunk c of the codes goes to codes + c step, with
// zeros behind the last; sums, if wanted, are those of each `group` codes, `sum_step` apart.
float quantize_row(long K, const float* x, float scale, int8_t* codes, long step, bool pad, int32_t* sums, long group,
                   long sum_step) {
    // As integers the bits of |x| are ordered like |x|, and those of infinity and NaN come last.
    ints<float> top[4] = {};
    auto widen = [](ints<float>& t, vec<float> v) {
        const ints<float> size = bits<float>(vabs(v));
        t = size > t ? size : t;
    };
    long start = 0;
    for (; start + 4 * L <= K; start += 4 * L)
        for (int j = 0; j < 4; j++) widen(top[j], load(x + start + j * L));
    for (; start < K; start += L) widen(top[0], load_n<float>(x + start, int(smaller(K - start, long(L)))));
    for (int j = 1; j < 4; j++) top[0] = top[j] > top[0] ? top[j] : top[0];
    const int32_t largest = hmax(top[0]);
    if (scale <= 0) scale = __builtin_bit_cast(float, largest) / 127.f;
    if (largest >= 0x7f800000) scale = __builtin_nanf("");
    if (scale < 0x1p-126f) scale = 0;  // its inverse might be infinite
    const bool usable = scale > 0 && scale <= 3.4028234e38f;
    const float inverse = usable ? 1.f / scale : 0.f;
    const vec<float> round = splat<float>(12582912.f);  // 1.5 2²³: adding it rounds to integers, ties to even
    typedef int8_t Bytes __attribute__((vector_size(L)));
    words sum = {};  // unsigned: where nobody reads it, it may run over
    for (long k = 0; k < K; k += CHUNK) {
        int8_t chunk[CHUNK], *to = codes + k / CHUNK * step;
        const bool direct = pad || K - k >= CHUNK;
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK; i += L) {
            const long left = K - k - i;
            const vec<float> v = left >= L ? load(x + k + i) : load_n<float>(x + k + i, int(larger(left, 0L)));
            vec<float> q = vmin(vmax(v * inverse, splat<float>(-127.f)), splat<float>(127.f));
            q = (usable ? q : vec<float>{}) + round;
            const ints<float> n = bits<float>(q) - bits<float>(round);
            const Bytes narrow = __builtin_convertvector(n, Bytes);
            __builtin_memcpy((direct ? to : chunk) + i, &narrow, L);
            sum += words(n);
        }
        if (!direct) __builtin_memcpy(to, chunk, size_t(K - k));
        if (sums && ((k + CHUNK) % group == 0 || k + CHUNK >= K)) {
            *sums = int32_t(hsum(sum));
            sums += sum_step;
            sum = words{};
        }
    }
    return scale;
}

void quantize_rows(long rows, long K, const float* x, long x_row, float scale, int8_t* codes, float* scales) {
    parallel_for(rows, larger(1L, 16384 / larger(K, 1L)), [&](long begin, long end) {
        for (long i = begin; i < end; i++)
            scales[i] = quantize_row(K, x + i * x_row, scale, codes + i * K, CHUNK, false, nullptr, 1, 0);
    });
}

// ---------------------------------------------------------------- the tile of integer sums

// Where a tile's lines come from: blocks of bytes, or 4-bit codes as they are stored.
template <WeightFormat F> struct Bytes {
    static constexpr bool whole = F == WeightFormat::int8, minimum = has_minimum(F);
    static constexpr int zero = zero_of(F);
    static constexpr long chunk_bytes = CHUNK_BYTES;
    [[gnu::always_inline]] static words shift(const uint8_t*, int) { return words{}; }
    [[gnu::always_inline]] static words line(const uint8_t* chunk, int j, int v, words) {
        return load_words(chunk + 64 * j + v * MT_WIDTH);
    }
};
template <WeightFormat F> struct Nibbles {
    static constexpr bool whole = false, minimum = has_minimum(F);
    static constexpr int zero = zero_of(F);
    static constexpr long chunk_bytes = CHUNK_BYTES / 2;
    [[gnu::always_inline]] static words shift(const uint8_t* scales, int v) {
        return F == WeightFormat::int4_zero ? shift_of(scales + 2 * PANEL + v * L) : words{};
    }
    [[gnu::always_inline]] static words line(const uint8_t* chunk, int j, int v, words shift) {
        const words both = load_words(chunk + 64 * (j % 4) + v * MT_WIDTH);
        const words codes = (j < 4 ? both : both >> 4) & 0x0f0f0f0f;
        return F == WeightFormat::int4_zero ? codes + shift : codes;
    }
};

// The blocks of a tile's panels. While `turns` tiles use them, each asks for a part of those that come next: `ahead`
// bytes further on.
struct Stream {
    const uint8_t* panel[PANELS];
    long ahead[PANELS];
    long turn, turns;
};

// values (R, WIDTH) = Σ over the groups of scale (Σ q c) + minimum Σ q; blocks are `size` bytes apart.
template <int R, class Source>
void integer_tile(long groups, long chunks, const int8_t* q, const int32_t* sums, const Stream& stream, long size,
                  float* values) {
    constexpr int per_panel = PANEL / L;
    vec<float> total[R][VECTORS] = {};
    long due = stream.turn;
    for (long g = 0; g < groups; g++, sums += R) {
        const uint8_t *block[PANELS], *scales[PANELS];
        words sum[R][VECTORS], shift[VECTORS];
#pragma GCC unroll 2
        for (int p = 0; p < PANELS; p++) {
            block[p] = stream.panel[p] + g * size;
            scales[p] = block[p] + chunks * Source::chunk_bytes;
        }
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) shift[v] = Source::shift(scales[v / per_panel], v % per_panel);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[i][v] = splat_words(-uint32_t(Source::zero) * uint32_t(sums[i]));
        for (long c = 0; c < chunks; c++, q += R * CHUNK) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                words lines[VECTORS];
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++)
                    lines[v] = Source::line(block[v / per_panel], j, v % per_panel, shift[v]);
#pragma GCC unroll 12
                for (int i = 0; i < R; i++) {
                    uint32_t four;
                    __builtin_memcpy(&four, q + i * CHUNK + 4 * j, 4);
                    const words inputs = splat_words(four);
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; v++) dot4(sum[i][v], lines[v], inputs);
                }
            }
            if (due-- == 0) {
                due = stream.turns - 1;
                for (int p = 0; p < PANELS; p++)
                    for (int i = 0; i < Source::chunk_bytes; i += 64)
                        __builtin_prefetch(block[p] + stream.ahead[p] + i, 0, 2);  // into the L2 cache
            }
#pragma GCC unroll 2
            for (int p = 0; p < PANELS; p++) block[p] += Source::chunk_bytes;
        }
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            const uint8_t* at = scales[v / per_panel] + v % per_panel * L * (Source::whole ? 4 : 2);
            vec<float> scale, minimum = {};
            if constexpr (Source::whole) __builtin_memcpy(&scale, at, sizeof scale);
            else scale = load_float16(at);
            if constexpr (Source::minimum) minimum = load_float16(at + 2 * PANEL);
#pragma GCC unroll 12
            for (int i = 0; i < R; i++) {
                const vec<float> exact = __builtin_convertvector(ints<float>(sum[i][v]), vec<float>);
                total[i][v] += exact * scale;
                if constexpr (Source::minimum) total[i][v] += float(sums[i]) * minimum;
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < VECTORS; v++) store(values + i * WIDTH + v * L, total[i][v]);
}

using IntegerTile = void (*)(long, long, const int8_t*, const int32_t*, const Stream&, long, float*);
template <class Source, int... R> constexpr IntegerTile pick_height(int height, std::integer_sequence<int, R...>) {
    constexpr IntegerTile tiles[] = {integer_tile<R + 1, Source>...};
    return tiles[height - 1];
}
template <class Source> IntegerTile pick_height(int height) {
    return pick_height<Source>(height, std::make_integer_sequence<int, Source::whole ? WHOLE_ROWS : GROUP_ROWS>());
}
IntegerTile pick_tile(WeightFormat format, bool stored_nibbles, int height) {
    using enum WeightFormat;
    switch (format) {
        case int8: return pick_height<Bytes<int8>>(height);
        case q8_0: return pick_height<Bytes<q8_0>>(height);
        case int4:
        case q4_0: return stored_nibbles ? pick_height<Nibbles<q4_0>>(height) : pick_height<Bytes<q4_0>>(height);
        case int4_zero:
            return stored_nibbles ? pick_height<Nibbles<int4_zero>>(height) : pick_height<Bytes<int4_zero>>(height);
        default: return stored_nibbles ? pick_height<Nibbles<q4_1>>(height) : pick_height<Bytes<q4_1>>(height);
    }
}

// ---------------------------------------------------------------- the end of every sum

// y = f(scale values + bias), `width` of them; values may be y.
void finish(const float* values, float scale, const float* bias, Activation f, long width, float* y) {
    for (long j = 0; j < width; j += L) {
        const int n = int(smaller(width - j, long(L)));
        vec<float> a = load_n<float>(values + j, n) * scale;
        if (bias) a += load_n<float>(bias + j, n);
        store_n<float>(y + j, activated<float>(a, f), n);
    }
}

// ---------------------------------------------------------------- drivers

long aligned(long bytes) { return round_up(bytes, 64); }

void multiply_integers(const QuantizedProduct<float>& p) {
    const QuantizedWeight& w = p.weight;
    const bool whole = w.format == WeightFormat::int8;
    const long chunks = chunks_of(w), groups = groups_of(w), per_group = whole ? chunks : w.group / CHUNK;
    const bool direct = w.panels && (has_bytes(w.format) || p.M <= FEW);
    const long size = direct ? stored_block(w) : block_bytes(w.format, per_group);

    // Rows of x in parts of nearly equal height, each part's codes by themselves: chunk by chunk, row by row.
    const long parts = divide_up(p.M, whole ? WHOLE_ROWS : GROUP_ROWS);
    auto row_of = [&](long part) { return p.M * part / parts; };
    const long code_bytes = aligned(p.M * chunks * CHUNK), sum_bytes = aligned(p.M * groups * 4);
    const long scale_bytes = aligned(p.M * 4), unpacked_bytes = direct ? 0 : aligned(PANELS * groups * size);
    const int threads = thread_count();
    auto* scratch = static_cast<uint8_t*>(
        thread_scratch(size_t(code_bytes + sum_bytes + scale_bytes + threads * unpacked_bytes)));
    auto* codes = reinterpret_cast<int8_t*>(scratch);
    auto* sums = reinterpret_cast<int32_t*>(scratch + code_bytes);
    auto* scales = reinterpret_cast<float*>(scratch + code_bytes + sum_bytes);
    uint8_t* unpacked = scratch + code_bytes + sum_bytes + scale_bytes;

    const long row_work = w.K * (whole ? WHOLE_ROWS : GROUP_ROWS);
    parallel_for(parts, larger(1L, 32768 / row_work), [&](long begin, long end) {
        for (long part = begin; part < end; part++) {
            const long first = row_of(part), height = row_of(part + 1) - first;
            for (long i = 0; i < height; i++)
                scales[first + i] = quantize_row(
                    w.K, p.x + (first + i) * p.x_row, p.input_scale, codes + first * chunks * CHUNK + i * CHUNK,
                    height * CHUNK, true, sums + first * groups + i, w.group, height);
        }
    });

    // Items: a pair of panels times a strip of x, whose codes stay in the L2 cache for all pairs, but so high that
    // unpacking for it is little work beside its products.
    const long height = smaller(larger(400000 / w.K, 96L), 384L);
    const long columns = divide_up(panels_of(w), long(PANELS)), strips = divide_up(p.M, height);
    const long items = columns * strips;
    const double work = double(p.M) * WIDTH * double(w.K) / double(strips);
    parallel_for(items, larger(1L, long(2e6 / work)), [&](long begin, long end, int thread) {
        Stream stream;
        alignas(64) float values[WHOLE_ROWS * WIDTH];
        for (long item = begin; item < end; item++) {
            const long column = item % columns, strip = item / columns;
            for (int k = 0; k < PANELS; k++) {  // the last of an odd number is computed twice
                const long last = panels_of(w) - 1, at = smaller(column * PANELS + k, last);
                uint8_t* to = unpacked + thread * unpacked_bytes + k * groups * size;
                if (!direct) unpack(w, at, 0, chunks, to);
                stream.panel[k] = direct ? w.data + at * groups * size : to;
                stream.ahead[k] = direct ? (smaller(at + PANELS, last) - at) * groups * size : 0;
            }
            const long from = parts * strip / strips, until = parts * (strip + 1) / strips;
            stream.turns = until - from;
            const long j = column * WIDTH, width = smaller(w.N - j, long(WIDTH));
            for (long part = from; part < until; part++) {
                stream.turn = part - from;
                const long first = row_of(part), height = row_of(part + 1) - first;
                pick_tile(w.format, direct, int(height))(groups, per_group, codes + first * chunks * CHUNK,
                                                        sums + first * groups, stream, size, values);
                for (long i = 0; i < height; i++)
                    finish(values + i * WIDTH, scales[first + i], p.bias ? p.bias + j : nullptr, p.activation, width,
                           p.y + (first + i) * w.N + j);
            }
        }
    }, threads);
}

// Chunks first .. first + count of a panel as floats: to[k, row], rows of `to` WIDTH apart.
void dequantize(const QuantizedWeight& w, long panel, long first, long count, uint8_t* blocks, float* to) {
    constexpr int per_panel = PANEL / L;
    unpack(w, panel, first, count, blocks);
    const bool whole = w.format == WeightFormat::int8, minima = has_minimum(w.format);
    const long chunks = whole ? count : w.group / CHUNK, size = block_bytes(w.format, chunks);
    const float zero = float(zero_of(w.format));
    for (long g = 0; g < (whole ? 1 : count / chunks); g++, blocks += size)
        for (int v = 0; v < per_panel; v++) {
            const uint8_t *scales = blocks + chunks * CHUNK_BYTES, *line = blocks + v * MT_WIDTH;
            vec<float> scale, minimum = {};
            if (whole) __builtin_memcpy(&scale, scales + 4 * v * L, sizeof scale);
            else scale = load_float16(scales + 2 * v * L);
            if (minima) minimum = load_float16(scales + 2 * PANEL + 2 * v * L);
            for (long k = 0; k < chunks * CHUNK; k += 4, line += 64) {
                const words four = load_words(line);
#pragma GCC unroll 4
                for (int t = 0; t < 4; t++) {
                    const vec<float> code = __builtin_convertvector(ints<float>(four >> 8 * t & 255), vec<float>);
                    const vec<float> value = (code - zero) * scale;
                    store(to + (g * chunks * CHUNK + k + t) * WIDTH + v * L, minima ? value + minimum : value);
                }
            }
        }
}

// k = first .. first + count of a panel of halves as floats, laid out likewise.
void widen_halves(const QuantizedWeight& w, long panel, long first, long count, float* row, float* to) {
    const bool brain = w.format == WeightFormat::bfloat16;
    auto convert = [&](const uint8_t* from) { return brain ? load_bfloat16(from) : load_float16(from); };
    if (w.panels) {
        const uint8_t* from = w.data + 2 * (panel * w.K + first) * PANEL;
        for (long k = 0; k < count; k++)
            for (int v = 0; v < PANEL / L; v++)
                store(to + k * WIDTH + v * L, convert(from + 2 * (k * PANEL + v * L)));
        return;
    }
    const long rows = smaller(PANEL, w.N - panel * PANEL);
    for (long r = 0; r < rows; r++) {
        const uint8_t* from = w.data + 2 * ((panel * PANEL + r) * w.K + first);
        long k = 0;
        for (; k + L <= count; k += L) store(row + r * count + k, convert(from + 2 * k));
        if (k < count) {
            uint8_t rest[2 * L] = {};
            __builtin_memcpy(rest, from + 2 * k, size_t(2 * (count - k)));
            store_n<float>(row + r * count + k, convert(rest), int(count - k));
        }
    }
    if (rows < PANEL) __builtin_memset(row + rows * count, 0, size_t((PANEL - rows) * count) * sizeof(float));
    transpose<float>(row, count, PANEL, count, to, WIDTH, 1.f, true);
}

void multiply_floats(const QuantizedProduct<float>& p) {
    constexpr long depth = 256;
    const QuantizedWeight& w = p.weight;
    const long columns = divide_up(panels_of(w), long(PANELS)), strips = divide_up(p.M, 192), items = columns * strips;
    const long slab_bytes = aligned(depth * WIDTH * 4), space = aligned(PANEL * depth * 4 + 1024);
    const int threads = thread_count();
    auto* scratch = static_cast<uint8_t*>(thread_scratch(size_t(threads * (slab_bytes + space))));
    const double work = double(p.M) * WIDTH * double(larger(w.K, 1L)) / double(strips);
    parallel_for(items, larger(1L, long(1e6 / work)), [&](long begin, long end, int thread) {
        auto* slab = reinterpret_cast<float*>(scratch + thread * (slab_bytes + space));
        uint8_t* own = reinterpret_cast<uint8_t*>(slab) + slab_bytes;
        for (long item = begin; item < end; item++) {
            const long column = item / strips, first = p.M * (item % strips) / strips;
            const long rows = p.M * (item % strips + 1) / strips - first;
            const long j = column * WIDTH, width = smaller(w.N - j, long(WIDTH));
            float* y = p.y + first * w.N + j;
            for (long k = 0; k == 0 || k < w.K; k += depth) {
                const long length = smaller(w.K - k, depth);
                for (int half = 0; half < PANELS; half++) {
                    const long at = smaller(column * PANELS + half, panels_of(w) - 1);
                    if (is_half(w.format))
                        widen_halves(w, at, k, length, reinterpret_cast<float*>(own), slab + half * PANEL);
                    else dequantize(w, at, k / CHUNK, divide_up(length, CHUNK), own, slab + half * PANEL);
                }
                product<float>(rows, width, length, p.x + first * p.x_row + k, p.x_row, 1, slab, WIDTH, y, w.N, k > 0);
            }
            for (long i = 0; i < rows; i++)
                finish(y + i * w.N, 1.f, p.bias ? p.bias + j : nullptr, p.activation, width, y + i * w.N);
        }
    }, threads);
}

void multiply(const QuantizedProduct<float>& p) {
    if (p.M == 0 || p.weight.N == 0) return;
    p.integer && p.weight.K ? multiply_integers(p) : multiply_floats(p);  // K = 0: there is nothing to round
}

}  // namespace

template <class T> QuantizedKernels<T> quantized_kernels() { return {multiply, quantize_rows}; }
template QuantizedKernels<float> quantized_kernels<float>();

}  // namespace mt::MT_ISA
