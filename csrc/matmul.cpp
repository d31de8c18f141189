// Matrix product at the speed of the FMA units.
//
// A core starts two multiply-adds a cycle and has their sums four cycles later: only many sums that stay in registers
// keep it busy. So the innermost step is a tile of C, tile_rows x tile_columns (12 x 32 floats with AVX-512, in 24
// registers), to which each k adds a column of A times a row of B: 32 numbers loaded, 12 broadcast, 384 products.
//
// Around it, so that those loads hit the caches (Goto & van de Geijn 2008):
//   for each block of C, handed out to the threads     a thread shares nothing and waits for nobody
//     for each slab of k
//       for each group_rows rows of A                  packed into panels of tile_rows, stays in the L2 cache
//         for each panel of B, tile_columns wide       packed for the first group, for the others read from L3
//           for each panel of A: one tile              with the last slab bias and activation, while it is in L1
// Each thread packs what it uses, even where another packs the same: copying is cheap beside the products, and what
// costs on many machines is to fetch from another core what it has just written.
#include "matmul.hpp"

#include <utility>

#include "activated.hpp"
#include "threads.hpp"

namespace mt::MT_ISA {
namespace {

// Measured: longer slabs and groups than fit L1 and L2 to the byte do no harm, shorter ones cost passes over C.
constexpr int tile_rows = MT_WIDTH == 64 ? 12 : 6;  // 24 of 32 or 12 of 16 registers hold sums
template <class T> constexpr int tile_columns = 2 * lanes<T>;
constexpr int group_rows = 8 * tile_rows;
template <class T> constexpr int slab = 2048 / int(sizeof(T));  // longest, in k
template <class T> constexpr int panel_size = tile_rows * slab<T> + lanes<T>;  // of A; a register's room at the end
constexpr int block_columns = 2048;

// c (+)= A B (+ bias) for one tile. A is packed in one of two ways, both plain copies of how it lies in memory: panels
// of `rows` have a row every `slab` numbers, the others a column every tile_rows. `width` columns of c are written.
template <class T, int R, int V, bool rows>
void tile(long K, const T* a, const T* b, long b_row, T* c, long c_row, int width, bool add, const T* bias) {
    constexpr int row = rows ? slab<T> : 1, step = rows ? 1 : tile_rows;
    vec<T> sum[R][V] = {};
    if (add)  // it will be wanted at the end
        for (int i = 0; i < R; i++) {
            __builtin_prefetch(c + i * c_row, 1);
            __builtin_prefetch(c + i * c_row + V * lanes<T> - 1, 1);
        }
    for (long k = 0; k < K; k++, a += step, b += b_row) {
        vec<T> bk[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) bk[v] = load(b + v * lanes<T>);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) sum[i][v] += a[i * row] * bk[v];
    }
#pragma GCC unroll 12
    for (int i = 0; i < R; i++, c += c_row)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            const int n = width - v * lanes<T>;
            T* p = c + v * lanes<T>;
            if (n >= lanes<T>) {
                if (add) sum[i][v] += load(p);
                if (bias) sum[i][v] += load(bias + v * lanes<T>);
                store(p, sum[i][v]);
            } else {
                if (add) sum[i][v] += load_n<T>(p, n);
                if (bias) sum[i][v] += load_n<T>(bias + v * lanes<T>, n);
                store_n<T>(p, sum[i][v], n);
            }
        }
}

template <class T> using Tile = void (*)(long, const T*, const T*, long, T*, long, int, bool, const T*);
template <class T, bool rows, int V, int... R> constexpr auto tiles_of_heights(std::integer_sequence<int, R...>) {
    struct Heights { Tile<T> tile[sizeof...(R)]; };
    return Heights{{tile<T, R + 1, V, rows>...}};
}
template <class T, bool rows, int V>  // .tile[height - 1]
constexpr auto tiles = tiles_of_heights<T, rows, V>(std::make_integer_sequence<int, tile_rows>());

template <class T> Tile<T> pick_tile(bool rows, int height, int width) {
    if (rows) return width > lanes<T> ? tiles<T, true, 2>.tile[height - 1] : tiles<T, true, 1>.tile[height - 1];
    return width > lanes<T> ? tiles<T, false, 2>.tile[height - 1] : tiles<T, false, 1>.tile[height - 1];
}

template <class T> void copy(const T* from, long n, T* to) {
    long i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) store(to + i, load(from + i));
    if (i < n) store_n<T>(to + i, load_n<T>(from + i, int(n - i)), int(n - i));
}

// c = f(c), a tile that was written just now. From L1 and not from the sums in their registers: those are all taken,
// so f would have to be compiled, and to put them into memory, in each of the tiles above.
template <class T> void activate(long rows, int width, T* c, long c_row, Activation f) {
    for (long i = 0; i < rows; i++, c += c_row)
        for (int j = 0; j < width; j += lanes<T>) {
            const int n = smaller(width - j, lanes<T>);
            store_n<T>(c + j, activated<T>(load_n<T>(c + j, n), f), n);
        }
}

// Up to group_rows rows of A, K columns, as panels of tile_rows.
template <class T> void pack_a(Matrix<const T> a, long rows, long K, T* packed) {
    if (a.column == 1) {
        for (long i = 0; i < rows; i++) {  // rows that lie apart are not fetched ahead by the hardware
            const T* later = a.data + smaller(i + 4, rows - 1) * a.row;
            for (long k = 0; k < K; k += 64 / long(sizeof(T))) __builtin_prefetch(later + k);
            copy(a.data + i * a.row, K, packed + i / tile_rows * panel_size<T> + i % tile_rows * slab<T>);
        }
        return;
    }
    for (long k = 0; k < K; k++, a.data += a.column, packed += tile_rows) {
        const T* later = a.data + smaller(8l, K - 1 - k) * a.column;
        for (long r = 0; r < rows; r += 64 / long(sizeof(T))) __builtin_prefetch(later + r);
        long i = 0;  // full registers: what a panel's column has too much, its next column overwrites
        T* to = packed;
        for (; i + tile_rows + lanes<T> <= rows; i += tile_rows, to += panel_size<T>)
            for (int r = 0; r < tile_rows; r += lanes<T>) store(to + r, load(a.data + i + r));
        for (; i < rows; i += tile_rows, to += panel_size<T>)
            for (int r = 0; r < smaller(rows - i, long(tile_rows)); r += lanes<T>)
                store(to + r, load_n<T>(a.data + i + r, int(smaller(rows - i - r, long(lanes<T>)))));
    }
}

// a0 b0 a1 b1 ... of the lower halves (first = 0) or of the upper ones (first = lanes / 2)
template <class T, int first, int... i>
MT_INLINE vec<T> interleave(vec<T> a, vec<T> b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (first + i / 2 + i % 2 * lanes<T>)...);
}

// A square of lanes x lanes, transposed in registers: a riffle shuffle of the rows, log2(lanes) times.
template <class T> MT_INLINE void transpose(vec<T> (&r)[lanes<T>]) {
    constexpr auto all = std::make_integer_sequence<int, lanes<T>>();
#pragma GCC unroll 4
    for (int stage = 1; stage < lanes<T>; stage *= 2) {
        vec<T> s[lanes<T>];
#pragma GCC unroll 8
        for (int i = 0; i < lanes<T> / 2; i++) {
            s[2 * i] = interleave<T, 0>(r[i], r[i + lanes<T> / 2], all);
            s[2 * i + 1] = interleave<T, lanes<T> / 2>(r[i], r[i + lanes<T> / 2], all);
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; i++) r[i] = s[i];
    }
}

// Column j of b, n long, becomes r[j]; zeros beyond n and beyond `columns`.
template <class T> MT_INLINE void load_square(Matrix<const T> b, int n, int columns, vec<T> (&r)[lanes<T>]) {
    if (n == lanes<T> && columns >= lanes<T>)
#pragma GCC unroll 16
        for (int j = 0; j < lanes<T>; j++) r[j] = load(b.data + j * b.column);
    else
        for (int j = 0; j < lanes<T>; j++) r[j] = j < columns ? load_n<T>(b.data + j * b.column, n) : vec<T>{};
}

// Up to tile_columns columns of B, K rows: row k goes to packed + k tile_columns, filled up with zeros.
template <class T> void pack_b(Matrix<const T> b, int columns, long K, T* packed) {
    constexpr int L = lanes<T>, W = tile_columns<T>;
    if (b.column == 1) {
        if (columns == W)
            for (long k = 0; k < K; k++, b.data += b.row, packed += W) {
                store(packed, load(b.data));
                store(packed + L, load(b.data + L));
            }
        else
            for (long k = 0; k < K; k++, b.data += b.row, packed += W) {
                store(packed, load_n<T>(b.data, smaller(columns, L)));
                store(packed + L, load_n<T>(b.data + L, larger(columns - L, 0)));
            }
        return;
    }
    for (int half = 0; half < W; half += L)
        for (long k = 0; k < K; k += L) {
            const int n = int(smaller(K - k, long(L)));
            vec<T> r[L];
            load_square(Matrix<const T>{b.data + half * b.column + k, 1, b.column}, n, columns - half, r);
            transpose<T>(r);
#pragma GCC unroll 16
            for (int i = 0; i < L; i++)
                if (i < n) store(packed + (k + i) * W + half, r[i]);
        }
}

long divide_up(long a, long b) { return (a + b - 1) / b; }

// Slabs of equal length, which depends on K alone: it decides the order of the additions.
template <class T> long slab_length(long K) { return K ? divide_up(K, divide_up(K, slab<T>)) : 1; }

// One row of C (decoding): nothing is used twice, so nothing is packed, and what counts is to read B in long runs. B's
// columns are taken V registers at a time or, where they are contiguous in k, as squares that are transposed in
// registers. The order of the additions is that of `tile`, and so is every bit.
template <class T>
void single_row(long columns, long K, const T* a, long a_step, Matrix<const T> b, T* c, const T* bias, Activation f) {
    constexpr int L = lanes<T>, wide = MT_WIDTH == 64 ? 16 : 8;
    const long depth = slab_length<T>(K);
    auto sums = [&]<int V>(std::integral_constant<int, V>, long j, int width) {  // width <= L only where V == 1
        vec<T> total[V] = {};
        for (long k = 0; k < K; k += depth) {
            const long end = smaller(K, k + depth);
            vec<T> sum[V] = {};
            if (b.column == 1)
                for (long i = k; i < end; i++)
#pragma GCC unroll 16
                    for (int v = 0; v < V; v++) {
                        const T* from = b.data + i * b.row + j + v * L;
                        sum[v] += a[i * a_step] * (V > 1 ? load(from) : load_n<T>(from, width));
                    }
            else
                for (long i = k; i < end; i += L) {
                    const int n = int(smaller(end - i, long(L)));
                    vec<T> r[L];
                    load_square(Matrix<const T>{b.data + i + j * b.column, 1, b.column}, n, width, r);
                    transpose<T>(r);
#pragma GCC unroll 16
                    for (int m = 0; m < L; m++)
                        if (m < n) sum[0] += a[(i + m) * a_step] * r[m];
                }
            for (int v = 0; v < V; v++) total[v] = k ? total[v] + sum[v] : sum[v];
        }
        for (int v = 0; v < V; v++) {
            const int n = V > 1 ? L : width;
            store_n<T>(c + j + v * L, bias ? total[v] + load_n<T>(bias + j + v * L, n) : total[v], n);
            if (f != Activation::none) activate<T>(1, n, c + j + v * L, 0, f);
        }
    };
    long j = 0;
    if (b.column == 1)
        for (; j + wide * L <= columns; j += wide * L) sums(std::integral_constant<int, wide>(), j, L);
    for (; j < columns; j += L) sums(std::integral_constant<int, 1>(), j, int(smaller(columns - j, long(L))));
}

// One block of C: `rows` x `columns` from a, b, c on, columns <= block_columns. Panels of B that few rows read stay
// unpacked.
template <class T>
void block(long rows, long columns, long K, Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const T* bias,
           Activation f, T* scratch) {
    if (rows == 1) return single_row<T>(columns, K, a.data, a.column, b, c.data, bias, f);
    constexpr int W = tile_columns<T>;
    T *packed_a = scratch, *packed_b = scratch + group_rows / tile_rows * panel_size<T>;
    const long depth = slab_length<T>(K);
    const bool in_place = b.column == 1 && rows <= 2 * tile_rows;
    for (long k = 0; k == 0 || k < K; k += depth) {
        const long length = smaller(K - k, depth);
        const bool last = k + length == K;
        const T* b_slab = b.data + k * b.row;
        auto panel_in_place = [&](long j) { return in_place && columns - j >= W; };
        for (long group = 0; group < rows; group += group_rows) {
            const long end = smaller(rows, group + group_rows);
            pack_a<T>({a.data + group * a.row + k * a.column, a.row, a.column}, end - group, length, packed_a);
            for (long j = 0; j < columns; j += W) {
                const int width = int(smaller(columns - j, long(W)));
                if (group == 0 && !panel_in_place(j))
                    pack_b<T>({b_slab + j * b.column, b.row, b.column}, width, length, packed_b + j * depth);
                const T *panel = panel_in_place(j) ? b_slab + j : packed_b + j * depth, *strip = packed_a;
                for (long i = group; i < end; i += tile_rows, strip += panel_size<T>) {
                    const int height = int(smaller(end - i, long(tile_rows)));
                    T* to = c.data + i * c.row + j;
                    pick_tile<T>(a.column == 1, height, width)(length, strip, panel, panel_in_place(j) ? b.row : W, to,
                                                               c.row, width, k > 0, last && bias ? bias + j : nullptr);
                    if (last && f != Activation::none) activate<T>(height, width, to, c.row, f);
                }
            }
        }
    }
}

template <class T> void multiply(const Product<T>& p) {
    if (p.M == 0 || p.N == 0 || p.batch == 0) return;
    constexpr int W = tile_columns<T>;
    constexpr double small = 5e5;  // products that take a thread some 5 us: for less, no other is woken
    const double work = double(p.M) * double(p.N) * double(larger(p.K, 1l)) * double(p.batch);
    const int threads = int(smaller(double(thread_count()), larger(work / small, 1.)));

    // Blocks of C: large, since each packs for itself, but some for each thread, so that a slow one can be helped.
    long rows = p.M, columns = divide_up(divide_up(p.N, W), divide_up(p.N, block_columns)) * W;
    auto blocks = [&] { return divide_up(p.M, rows) * divide_up(p.N, columns); };
    const long several = smaller(2l * threads, larger(long(threads), long(work / (8 * small))));
    while (threads > 1 && blocks() * p.batch < several) {
        if (rows > 16 * tile_rows && rows > columns / 2) rows = divide_up(divide_up(rows, tile_rows), 2) * tile_rows;
        else if (columns > W) columns = divide_up(columns / W, 2) * W;
        else break;
    }
    if (p.M <= tile_rows) columns = smaller(columns, 8l * W);

    const long per_matrix = blocks(), across = divide_up(p.N, columns), items = per_matrix * p.batch;
    const long grain = threads == 1 ? items : larger(1l, long(small / 4 / (work / double(items))));
    const long scratch_size = group_rows / tile_rows * panel_size<T> + slab_length<T>(p.K) * columns;
    T* scratch = static_cast<T*>(thread_scratch(size_t(threads) * size_t(scratch_size) * sizeof(T)));
    parallel_for(items, grain, [&](long begin, long end, int thread) {
        for (long item = begin; item < end; item++) {
            const long matrix = item / per_matrix, in_matrix = item % per_matrix;
            const long i = in_matrix / across * rows, j = in_matrix % across * columns;
            const T* a = p.a.data + (p.a_start ? p.a_start[matrix] : 0) + i * p.a.row;
            const T* b = p.b.data + (p.b_start ? p.b_start[matrix] : 0) + j * p.b.column;
            T* c = p.c.data + matrix * p.M * p.N + i * p.c.row + j;
            block<T>(smaller(rows, p.M - i), smaller(columns, p.N - j), p.K, {a, p.a.row, p.a.column},
                     {b, p.b.row, p.b.column}, {c, p.c.row, 1}, p.bias ? p.bias + j : nullptr,
                     p.activation, scratch + thread * scratch_size);
        }
    }, threads);
}

// Each strip of columns is summed by one thread; sums of 64 rows are summed, which keeps the rounding error small.
template <class T> void sum_rows(long M, long N, Matrix<const T> x, T* sums) {
    constexpr long strip = 4 * lanes<T>;
    parallel_for(N, larger(strip, divide_up(20000, larger(M, 1l)) / strip * strip), [&](long begin, long end) {
        for (long n = begin; n < end; n += lanes<T>) {
            const int width = int(smaller(end - n, long(lanes<T>)));
            vec<T> total = {};
            for (long m = 0; m < M; m += 64) {
                vec<T> part = {};
                for (long i = m; i < smaller(M, m + 64); i++) part += load_n<T>(x.data + i * x.row + n, width);
                total += part;
            }
            store_n<T>(sums + n, total, width);
        }
    });
}

}  // namespace

template <class T> MatmulKernels<T> matmul_kernels() { return {multiply<T>, sum_rows<T>}; }
template MatmulKernels<float> matmul_kernels<float>();
template MatmulKernels<double> matmul_kernels<double>();

}  // namespace mt::MT_ISA
