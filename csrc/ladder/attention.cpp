// Causal attention of one head, o_i = Σ_{j <= i} softmax_j(q_i·k_j / √d) v_j, from the formula to the shipped kernel.
//
// q, k, v, o are (T, d). What is useful is 2 T² d FLOPs (a product and a sum for each of the T²/2 pairs and d numbers,
// for the scores and for the values), and 16 T d bytes if each array came from memory once.
//
// Sources: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention).
#include <algorithm>

#include "ladder.hpp"

// [1] naive: the formula, three passes over a T × T matrix
// Scores, softmax, sums of values, each finished before the next begins. The matrix is written and read twice: 16 T²
// bytes, 64 MiB at T = 2048. Of the 4 T² d FLOPs half are for pairs that the mask throws away. Limited by the dot
// product, whose every addition waits some 4 cycles for the one before, and by v read down its columns.
extern "C" void naive(long T, long d, const float* q, const float* k, const float* v, float* o) {
    std::vector<float> s(T * T);
    for (long i = 0; i < T; i++)
        for (long j = 0; j < T; j++) {
            float sum = 0;
            for (long c = 0; c < d; c++) sum += q[i * d + c] * k[j * d + c];
            s[i * T + j] = j <= i ? sum / std::sqrt(float(d)) : -INFINITY;
        }
    for (long i = 0; i < T; i++) {
        float top = -INFINITY, total = 0;
        for (long j = 0; j < T; j++) top = std::max(top, s[i * T + j]);
        for (long j = 0; j < T; j++) total += s[i * T + j] = std::exp(s[i * T + j] - top);
        for (long j = 0; j < T; j++) s[i * T + j] /= total;
    }
    for (long i = 0; i < T; i++)
        for (long c = 0; c < d; c++) {
            float sum = 0;
            for (long j = 0; j < T; j++) sum += s[i * T + j] * v[j * d + c];
            o[i * d + c] = sum;
        }
}

// [2] row at a time: no matrix; the future is not computed
// A query's scores are used and forgotten, 4 T bytes that stay in the L1 cache; half the FLOPs are gone. v is read
// along its rows, so that the compiler turns the last loop into vectors by itself. It may not do so with the dot
// product, whose sum would be added up in another order: that is what limits now. k and v are read once a query.
extern "C" void row_at_a_time(long T, long d, const float* q, const float* k, const float* v, float* o) {
    std::vector<float> s(T);
    const float scale = 1 / std::sqrt(float(d));
    for (long i = 0; i < T; i++) {
        float top = -INFINITY, total = 0;
        for (long j = 0; j <= i; j++) {
            float sum = 0;
            for (long c = 0; c < d; c++) sum += q[i * d + c] * k[j * d + c];
            top = std::max(top, s[j] = sum * scale);
        }
        for (long j = 0; j <= i; j++) total += s[j] = std::exp(s[j] - top);
        std::fill(o + i * d, o + i * d + d, 0.f);
        for (long j = 0; j <= i; j++)
            for (long c = 0; c < d; c++) o[i * d + c] += s[j] / total * v[j * d + c];
    }
}

// A block of queries beside a block of keys, the sizes of the rungs 3 to 5.
constexpr long QUERIES = 16, KEYS = 64;

// [3] cache blocks: 16 queries share each block of 64 keys
// A block of k or v (16 KiB at d = 64) comes into the L1 cache once for 16 queries: 1/16 of the traffic, 16 T² d / 16
// bytes in all. It costs a buffer of 16 T scores, since the softmax needs a whole row. Little is won as long as k and
// v fit into the L2 cache and each addition waits for the one before: this rung is what the next one stands on.
extern "C" void cache_blocks(long T, long d, const float* q, const float* k, const float* v, float* o) {
    std::vector<float> s(QUERIES * T);
    const float scale = 1 / std::sqrt(float(d));
    for (long i0 = 0; i0 < T; i0 += QUERIES) {
        const long i1 = std::min(T, i0 + QUERIES);
        for (long j0 = 0; j0 < i1; j0 += KEYS)
            for (long i = i0; i < i1; i++)
                for (long j = j0; j < std::min(j0 + KEYS, i + 1); j++) {
                    float sum = 0;
                    for (long c = 0; c < d; c++) sum += q[i * d + c] * k[j * d + c];
                    s[(i - i0) * T + j] = sum * scale;
                }
        for (long i = i0; i < i1; i++) {
            float *row = &s[(i - i0) * T], top = *std::max_element(row, row + i + 1), total = 0;
            for (long j = 0; j <= i; j++) total += row[j] = std::exp(row[j] - top);
            for (long j = 0; j <= i; j++) row[j] /= total;
            std::fill(o + i * d, o + i * d + d, 0.f);
        }
        for (long j0 = 0; j0 < i1; j0 += KEYS)
            for (long i = i0; i < i1; i++)
                for (long j = j0; j < std::min(j0 + KEYS, i + 1); j++)
                    for (long c = 0; c < d; c++) o[i * d + c] += s[(i - i0) * T + j] * v[j * d + c];
    }
}

// A query's softmax so far: the largest score, and Σ exp(score - largest). When a larger score comes, what was summed
// up before is too large by exp(new - old): multiplied by the inverse it is right again.
struct Running {
    float top = -INFINITY, total = 0;
};

// [4, failed] online, key by key: the softmax corrected at every key
// The textbook's form of the next rung: one pass, nothing kept but a running row. But each key now pays a second exp
// and a pass over the d sums, and its correction must finish before the next key begins.
// Measured: 0.9× the speed of the next rung (Zen 5, T = 2048, d = 64).
extern "C" void online_by_key(long T, long d, const float* q, const float* k, const float* v, float* o) {
    const float scale = 1 / std::sqrt(float(d));
    for (long i = 0; i < T; i++) {
        Running row;
        std::fill(o + i * d, o + i * d + d, 0.f);
        for (long j = 0; j <= i; j++) {
            float score = 0;
            for (long c = 0; c < d; c++) score += q[i * d + c] * k[j * d + c];
            score *= scale;
            const float top = std::max(row.top, score), before = std::exp(row.top - top), p = std::exp(score - top);
            row = {top, row.total * before + p};
            for (long c = 0; c < d; c++) o[i * d + c] = o[i * d + c] * before + p * v[j * d + c];
        }
        for (long c = 0; c < d; c++) o[i * d + c] /= row.total;
    }
}

// [4] online softmax: one pass over the keys; a tile of scores
// What rung 3 kept of 16 T scores becomes a tile of 16 × 64 (4 KiB): k and v are read together, once, and the memory
// beyond inputs and outputs no longer depends on T. The price is a correction a block: 16 d products for 16 · 64 · 4 d
// FLOPs, 1/64. The dot product still limits, and 1 exp a pair from the C library.
extern "C" void online_softmax(long T, long d, const float* q, const float* k, const float* v, float* o) {
    const float scale = 1 / std::sqrt(float(d));
    for (long i0 = 0; i0 < T; i0 += QUERIES) {
        const long i1 = std::min(T, i0 + QUERIES);
        Running rows[QUERIES];
        std::fill(o + i0 * d, o + i1 * d, 0.f);
        for (long j0 = 0; j0 < i1; j0 += KEYS)
            for (long i = i0; i < i1; i++) {
                const long keys = std::min(KEYS, i + 1 - j0);
                if (keys <= 0) continue;
                float s[KEYS];
                Running& row = rows[i - i0];
                float top = row.top;
                for (long j = 0; j < keys; j++) {
                    float sum = 0;
                    for (long c = 0; c < d; c++) sum += q[i * d + c] * k[(j0 + j) * d + c];
                    top = std::max(top, s[j] = sum * scale);
                }
                const float before = std::exp(row.top - top);
                row = {top, row.total * before};
                for (long j = 0; j < keys; j++) row.total += s[j] = std::exp(s[j] - top);
                for (long c = 0; c < d; c++) o[i * d + c] *= before;
                for (long j = 0; j < keys; j++)
                    for (long c = 0; c < d; c++) o[i * d + c] += s[j] * v[(j0 + j) * d + c];
            }
        for (long i = i0; i < i1; i++)
            for (long c = 0; c < d; c++) o[i * d + c] /= rows[i - i0].total;
    }
}

// [5, failed] lanes along the width: each dot product in vectors
// The obvious place for vectors: 16 products at once. But each score then ends in a sum across the lanes (8 dependent
// operations for 4 of useful work at d = 64), and maximum, exp and total are still one number at a time.
// Measured: 0.3× the speed of the next rung, whose lanes are queries (Zen 5, T = 2048, d = 64).
extern "C" void lanes_along_the_width(long T, long d, const float* q, const float* k, const float* v, float* o) {
    const float scale = 1 / std::sqrt(float(d));
    std::vector<float> s(T);
    for (long i = 0; i < T; i++) {
        float top = -INFINITY, total = 0;
        for (long j = 0; j <= i; j++) {
            vec<float> sum = {};
            for (long c = 0; c < d; c += L) {
                const int n = int(std::min(d - c, long(L)));
                sum += load_n<float>(q + i * d + c, n) * load_n<float>(k + j * d + c, n);
            }
            top = std::max(top, s[j] = hsum(sum) * scale);
        }
        for (long j = 0; j <= i; j++) total += s[j] = std::exp(s[j] - top);
        std::fill(o + i * d, o + i * d + d, 0.f);
        for (long j = 0; j <= i; j++)
            for (long c = 0; c < d; c++) o[i * d + c] += s[j] * v[j * d + c];
        for (long c = 0; c < d; c++) o[i * d + c] /= total;
    }
}

// A strip of queries from i0 on, turned round: qt[c, lane] = q[i0 + lane, c] / √d, zeros beyond the last query.
static void turn(const float* q, long i0, long T, long d, long width, float* qt) {
    for (long c = 0; c < d; c++)
        for (long l = 0; l < width; l++)
            qt[c * width + l] = i0 + l < T ? q[(i0 + l) * d + c] / std::sqrt(float(d)) : 0.f;
}

// Keys of the tile (keys × width) from j0 on that the lanes, queries from i0 on, may not see: -inf.
static void hide_future(float* s, long i0, long j0, long keys, long width) {
    for (long j = std::max(0L, i0 + 1 - j0); j < keys; j++)
        for (long l = 0; l < width; l += L) {
            const vec<float> query = lane_numbers() + float(i0 + l);
            store(s + j * width + l, query < float(j0 + j) ? splat(-INFINITY) : load(s + j * width + l));
        }
}

// The softmax of a tile of scores, lane by lane: s becomes exp(s - top), `ot` (d × width) is corrected.
static void soften(float* s, long keys, long width, long d, float* top, float* total, float* ot) {
    for (long l = 0; l < width; l += L) {
        vec<float> now = load(top + l), sum = {};
        for (long j = 0; j < keys; j++) now = vmax(load(s + j * width + l), now);
        for (long j = 0; j < keys; j++) {
            const vec<float> p = vexp(load(s + j * width + l) - now);
            store(s + j * width + l, p);
            sum += p;
        }
        const vec<float> before = vexp(load(top + l) - now);
        store(top + l, now);
        store(total + l, load(total + l) * before + sum);
        for (long c = 0; c < d; c++) store(ot + c * width + l, load(ot + c * width + l) * before);
    }
}

static void write_strip(const float* ot, const float* total, long i0, long T, long d, long width, float* o) {
    for (long l = 0; l < std::min(width, T - i0); l++)
        for (long c = 0; c < d; c++) o[(i0 + l) * d + c] = ot[c * width + l] / total[l];
}

// [5] vectors: a lane is a query
// Sᵀ = k qᵀ and oᵀ = vᵀ pᵀ with 16 queries side by side: maximum, exp (a polynomial, simd.hpp) and total go lane by
// lane, and nothing is ever added up across lanes. The FLOPs and bytes are those of rung 4. Each FMA needs a load of
// qt, and for the values a load and a store of ot: the load units limit, and the one sum that waits for itself.
extern "C" void vectors(long T, long d, const float* q, const float* k, const float* v, float* o) {
    std::vector<float> qt(d * L), ot(d * L);
    float s[KEYS * L], top[L], total[L];
    for (long i0 = 0; i0 < T; i0 += L) {
        turn(q, i0, T, d, L, qt.data());
        std::fill(ot.begin(), ot.end(), 0.f), std::fill(top, top + L, -INFINITY), std::fill(total, total + L, 0.f);
        const long seen = std::min(T, i0 + L);
        for (long j0 = 0; j0 < seen; j0 += KEYS) {
            const long keys = std::min(KEYS, seen - j0);
            for (long j = 0; j < keys; j++) {
                vec<float> sum = {};
                for (long c = 0; c < d; c++) sum += k[(j0 + j) * d + c] * load(&qt[c * L]);
                store(s + j * L, sum);
            }
            hide_future(s, i0, j0, keys, L);
            soften(s, keys, L, d, top, total, ot.data());
            for (long j = 0; j < keys; j++)
                for (long c = 0; c < d; c++)
                    store(&ot[c * L], load(&ot[c * L]) + v[(j0 + j) * d + c] * load(s + j * L));
        }
        write_strip(ot.data(), total, i0, T, d, L, o);
    }
}

// c (R × W) = (add ? c : 0) + Σ_k a[i row + k step] b[k, :], the sums in registers until the end.
constexpr long W = 2 * L;
template <int R> void tile(long depth, const float* a, long row, long step, const float* b, float* c, bool add) {
    vec<float> sum[R][2] = {};
    for (long k = 0; k < depth; k++) {
        const vec<float> b0 = load(b + k * W), b1 = load(b + k * W + L);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const float x = a[i * row + k * step];
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++, c += W) {
        store(c, add ? load(c) + sum[i][0] : sum[i][0]);
        store(c + L, add ? load(c + L) + sum[i][1] : sum[i][1]);
    }
}
static void product(long rows, long depth, const float* a, long row, long step, const float* b, float* c, bool add) {
    constexpr int R = MT_WIDTH == 64 ? 8 : 4;
    long i = 0;
    for (; i + R <= rows; i += R) tile<R>(depth, a + i * row, row, step, b, c + i * W, add);
    for (; i < rows; i++) tile<1>(depth, a + i * row, row, step, b, c + i * W, add);
}

// The strip of W queries from i0 on.
static void strip(long i0, long T, long d, const float* q, const float* k, const float* v, float* o) {
    std::vector<float> memory(2 * d * W);
    float *qt = memory.data(), *ot = qt + d * W, s[KEYS * W], top[W], total[W] = {};
    turn(q, i0, T, d, W, qt);
    std::fill(top, top + W, -INFINITY);
    const long seen = std::min(T, i0 + W);
    for (long j0 = 0; j0 < seen; j0 += KEYS) {
        const long keys = std::min(KEYS, seen - j0);
        product(keys, d, k + j0 * d, d, 1, qt, s, false);
        hide_future(s, i0, j0, keys, W);
        soften(s, keys, W, d, top, total, ot);
        product(d, keys, v + j0 * d, 1, d, s, ot, true);
    }
    write_strip(ot, total, i0, T, d, W, o);
}

// [6] register tiles: 8 keys × 32 queries of sums in registers
// Both products become tiles of 16 sums: 16 FMAs in flight instead of one, and for them only 2 loads and 8 broadcasts
// (a number read from k or v, used twice). FLOPs and bytes as before. It is the FMA units that limit the products now;
// what is left beside them is exp, and the half of each tile on the diagonal that is thrown away.
extern "C" void register_tiles(long T, long d, const float* q, const float* k, const float* v, float* o) {
    for (long i0 = 0; i0 < T; i0 += W) strip(i0, T, d, q, k, v, o);
}

// [7] threads: strips dealt out to all cores, the longest first
// A strip writes its own rows of o, so nobody waits for anybody. The last strips see all keys and the first only one
// block: given out one by one from the longest, all threads end together. k and v are read by each core.
// Limited by the FMA units of all cores.
extern "C" void threads(long T, long d, const float* q, const float* k, const float* v, float* o) {
    const long strips = (T + W - 1) / W;
    parallel(strips, [=](long n) { strip((strips - 1 - n) * W, T, d, q, k, v, o); });
}
