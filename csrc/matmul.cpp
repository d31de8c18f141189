// Matrix product at the speed of the FMA units.
//
// An FMA unit starts a multiplication each half cycle or so and needs the sum back 4 cycles later: only a block of sums that stays in
// registers feeds it. So the innermost step is a tile of C, tile_rows x tile_columns (12 x 32 floats with AVX-512: 24 registers of sums), to
// which each k adds one column of A times one row of B:  tile_columns loaded, tile_rows broadcast, all of it used 12 or 32 times.
//
// Around it, so that those loads hit the caches (Goto & van de Geijn 2008, simplified):
//   for each block of C, handed out to the threads            a thread shares nothing and waits for nobody
//     for each slab of k                                      B's part, packed into panels of tile_columns, stays in the L2 cache
//       for each tile_rows rows of A                          packed likewise, stays in the L1 cache
//         for each panel of B: one tile
// Each thread packs what it uses, even where another packs the same: copying is cheap beside the products, and what costs on many
// machines is to fetch from another core what it has just written.
#include "matmul.hpp"

#include <utility>

#include "simd.hpp"
#include "threads.hpp"

namespace mt::MT_ISA {
namespace {

constexpr int tile_rows = MT_WIDTH == 64 ? 12 : 6;       // 24 of 32 or 12 of 16 registers hold sums
template <class T> constexpr int tile_columns = 2 * lanes<T>;
template <class T> constexpr int slab = 1536 / int(sizeof(T));      // length in k; part of the result's definition
template <class T> constexpr int block_columns = 16 * MT_WIDTH / int(sizeof(T));

// c (+)= A B (+ bias) for one tile. A is packed in one of two ways, both plain copies of how it lies in memory: `rows` panels keep
// rows (a row each `slab`), others keep columns (a column each tile_rows). `width` columns of c are written.
template <class T, int R, int V, bool rows>
void tile(long K, const T* a, const T* b, long b_row, T* c, long c_row, int width, bool add, const T* bias) {
    constexpr int row = rows ? slab<T> : 1, step = rows ? 1 : tile_rows;
    vec<T> sum[R][V] = {};
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

// Up to tile_rows rows of A, K columns.
template <class T> void pack_a(Matrix<const T> a, int rows, long K, T* packed) {
    if (a.column == 1)
        for (int i = 0; i < rows; i++) copy(a.data + i * a.row, K, packed + i * slab<T>);
    else
        for (long k = 0; k < K; k++, a.data += a.column, packed += tile_rows)
            for (int i = 0; i < rows; i += lanes<T>)  // full registers: what is written too much, the next column overwrites
                store(packed + i, load_n<T>(a.data + i, smaller(lanes<T>, rows - i)));
}

// a0 b0 a1 b1 ... of the lower halves (first = 0) or of the upper ones (first = lanes / 2)
template <class T, int first, int... i> MT_INLINE vec<T> interleave(vec<T> a, vec<T> b, std::integer_sequence<int, i...>) {
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
            const T* from = b.data + half * b.column + k;
            vec<T> r[L];
            if (n == L && half + L <= columns)
#pragma GCC unroll 16
                for (int j = 0; j < L; j++) r[j] = load(from + j * b.column);
            else
                for (int j = 0; j < L; j++) r[j] = half + j < columns ? load_n<T>(from + j * b.column, n) : vec<T>{};
            transpose<T>(r);
#pragma GCC unroll 16
            for (int i = 0; i < L; i++)
                if (i < n) store(packed + (k + i) * W + half, r[i]);
        }
}

// One block of C: `rows` x `columns` from a, b, c on; columns <= block_columns. Panels that are read only once or twice stay where they are.
template <class T>
void block(long rows, long columns, long K, Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const T* bias, T* scratch) {
    constexpr int W = tile_columns<T>;
    T *packed_a = scratch, *packed_b = scratch + tile_rows * slab<T> + lanes<T>;
    const bool in_place = b.column == 1 && rows <= 2 * tile_rows;
    for (long k = 0; k == 0 || k < K; k += slab<T>) {
        const long depth = smaller(K - k, long(slab<T>));
        auto panel_in_place = [&](long j) { return in_place && columns - j >= W; };
        for (long j = 0; j < columns; j += W)
            if (!panel_in_place(j))
                pack_b<T>({b.data + k * b.row + j * b.column, b.row, b.column}, int(smaller(columns - j, long(W))), depth,
                          packed_b + j * slab<T>);
        for (long i = 0; i < rows; i += tile_rows) {
            const int height = int(smaller(rows - i, long(tile_rows)));
            pack_a<T>({a.data + i * a.row + k * a.column, a.row, a.column}, height, depth, packed_a);
            for (long j = 0; j < columns; j += W) {
                const int width = int(smaller(columns - j, long(W)));
                const T* panel = panel_in_place(j) ? b.data + k * b.row + j : packed_b + j * slab<T>;
                pick_tile<T>(a.column == 1, height, width)(
                    depth, packed_a, panel, panel_in_place(j) ? b.row : W, c.data + i * c.row + j, c.row, width, k > 0,
                    bias && k + depth == K ? bias + j : nullptr);
            }
        }
    }
}

long divide_up(long a, long b) { return (a + b - 1) / b; }

template <class T> void multiply(const Product<T>& p) {
    if (p.M == 0 || p.N == 0 || p.batch == 0) return;
    constexpr int W = tile_columns<T>;
    constexpr double small = 5e5;  // products a thread should have before another is worth waking, and before a block is worth halving
    const double work = double(p.M) * double(p.N) * double(larger(p.K, 1l)) * double(p.batch);
    const int threads = int(smaller(double(thread_count()), larger(work / small, 1.)));

    // Blocks of C: wide ones, cut until there are some for each thread to balance with. Long ones use a packed B best.
    long rows = p.M, columns = divide_up(divide_up(p.N, W), divide_up(p.N, block_columns<T>)) * W;
    auto blocks = [&] { return divide_up(p.M, rows) * divide_up(p.N, columns); };
    const long wanted = threads == 1 ? 1 : divide_up(smaller(4l * threads, larger(long(threads), long(work / (4 * small)))), p.batch);
    while (blocks() < wanted) {
        if (rows > 8 * tile_rows && rows > columns / 2) rows = divide_up(divide_up(rows, tile_rows), 2) * tile_rows;
        else if (columns > W) columns = divide_up(columns / W, 2) * W;
        else break;
    }
    if (p.M <= tile_rows) columns = W;

    const long per_matrix = blocks(), across = divide_up(p.N, columns);
    const long scratch_size = slab<T> * (tile_rows + columns) + 2 * lanes<T>;
    T* scratch = static_cast<T*>(thread_scratch(size_t(threads) * size_t(scratch_size) * sizeof(T)));
    const long grain = larger(1l, long(small / 4 / (work / double(per_matrix * p.batch))));
    parallel_for(per_matrix * p.batch, threads == 1 ? per_matrix * p.batch : grain, [&](long begin, long end, int thread) {
        for (long item = begin; item < end; item++) {
            const long matrix = item / per_matrix, i = item % per_matrix / across * rows, j = item % per_matrix % across * columns;
            const T* a = p.a.data + (p.a_start ? p.a_start[matrix] : 0) + i * p.a.row;
            const T* b = p.b.data + (p.b_start ? p.b_start[matrix] : 0) + j * p.b.column;
            T* c = p.c.data + matrix * p.M * p.N + i * p.c.row + j;
            block<T>(smaller(rows, p.M - i), smaller(columns, p.N - j), p.K, {a, p.a.row, p.a.column}, {b, p.b.row, p.b.column},
                     {c, p.c.row, 1}, p.bias ? p.bias + j : nullptr, scratch + thread * scratch_size);
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
