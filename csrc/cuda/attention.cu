// Attention, forward and backward, without a matrix of scores in memory. Every number type, every head width.
//
// Three kernels have one shape. A block of 4 warps owns a tile of rows (queries, or keys in the last one) and goes
// along the tiles of 32 rows of the other side that matter to it. Warp w owns R of the rows; lane l is other row l:
//
//     products    s[r] = own_r · other_lane        32 columns at a time through shared memory, any width
//     (each kernel makes its weights of them)
//     add_up      sum_r += Σ_l weight_rl other_l   lane l now stands for column l
//
//     forward      own queries, other keys      s = q k           o += p v
//     dq           own queries, other keys      s = q k, do v     dq += ds k
//     dk, dv       own keys, other queries      s = k q, v do     dv += p do, dk += ds q
//
// A block alone writes its rows, and adds in a fixed order: the same input gives the same bits. The price is that the
// scores are made twice on the way back. attention_tensor_cores.cu is the forward kernel for bfloat16.
// Source: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022, 2023 (FlashAttention).
#include "attention.cuh"

extern __shared__ __align__(16) unsigned char sums_memory[];  // what a block adds up: tile_rows x width of each result

namespace mt {

constexpr int warps = 4;
template <class A> constexpr int rows_a_warp = 32 / sizeof(A);  // 8, of doubles 4
template <class A> constexpr int tile_rows = warps * rows_a_warp<A>;

// 33 wide, so that the 32 lanes of a warp find a column in 32 different banks.
template <class A> struct Tiles {
    A other[32][33];          // [other row][column]
    A own[tile_rows<A>][33];  // [own row][column], then [own row][other row]: the weights. A warp's rows are its own.
};

// s[r] = own[row + r] · other[first + lane]
template <class T, class A, int R>
__device__ void products(Tiles<A>& tiles, const Rows<T>& own, int row, const Rows<T>& other, int first, A (&s)[R]) {
    const int lane = threadIdx.x, warp = threadIdx.y;
    for (int r = 0; r < R; r++) s[r] = 0;
    for (int begin = 0; begin < own.width; begin += 32) {
        __syncthreads();  // the tiles before are no longer read
#pragma unroll 2
        for (int l = warp; l < 32; l += warps) tiles.other[l][lane] = other.at(first + l, begin + lane);
#pragma unroll 2
        for (int r = 0; r < R; r++) tiles.own[warp * R + r][lane] = own.at(row + r, begin + lane);
        __syncthreads();  // both are complete
#pragma unroll 4
        for (int c = 0; c < 32; c++) {
            const A x = tiles.other[lane][c];
#pragma unroll
            for (int r = 0; r < R; r++) s[r] += tiles.own[warp * R + r][c] * x;
        }
    }
}

// sums[r] = keep[r] sums[r] + Σ_l weight_rl other[first + l], where this lane gives weight[r] = weight_r,lane.
//
// A pair of weight 0 adds nothing, whatever the other row holds: 0 · inf were NaN. To ask at each pair would cost as
// much as the product, so it is asked only of a tile in which something is not finite.
template <class T, class A, int R>
__device__ void add_up(Tiles<A>& tiles, const A (&weight)[R], const Rows<T>& other, int first, const A (&keep)[R],
                       A* sums) {
    const int lane = threadIdx.x, warp = threadIdx.y;
    __syncwarp();  // the other lanes have read what lies there
    for (int r = 0; r < R; r++) tiles.own[warp * R + r][lane] = weight[r];
    for (int begin = 0; begin < other.width; begin += 32) {
        __syncthreads();
        bool finite = true;
#pragma unroll 2
        for (int l = warp; l < 32; l += warps) {
            const A x = other.at(first + l, begin + lane);
            tiles.other[l][lane] = x;
            finite &= x - x == 0;
        }
        const bool careful = __syncthreads_or(!finite);
        A sum[R];
        const int column = begin + lane;
        for (int r = 0; r < R; r++)
            sum[r] = column < other.width ? keep[r] * sums[(warp * R + r) * other.width + column] : 0;
#pragma unroll 4
        for (int l = 0; l < 32; l++) {
            const A x = tiles.other[l][lane];
#pragma unroll
            for (int r = 0; r < R; r++) {
                const A w = tiles.own[warp * R + r][l];
                if (!careful || w != 0) sum[r] += w * x;
            }
        }
        if (column < other.width)
            for (int r = 0; r < R; r++) sums[(warp * R + r) * other.width + column] = sum[r];
    }
}

// Each element of a block's sums belongs to one thread, from here to `write`: no barrier is needed between.
template <class A> __device__ A* zeros(A* sums, int width) {
    for (int r = threadIdx.y * rows_a_warp<A>; r < (threadIdx.y + 1) * rows_a_warp<A>; r++)
        for (int c = threadIdx.x; c < width; c += 32) sums[r * width + c] = 0;
    return sums + tile_rows<A> * width;
}
template <class T, class A, int R>
__device__ void write(const A* sums, const A (&divisor)[R], T* y, int row, const Rows<T>& like) {
    for (int r = 0; r < R; r++)
        for (int c = threadIdx.x; c < like.width && row + r < like.count; c += 32)
            store(y[(long long)(row + r) * like.width + c],
                  sums[(threadIdx.y * R + r) * like.width + c] / divisor[r]);
}

// The keys that each query of a tile sees: none, beyond the last query.
template <class T> __device__ void note_seen(Interval* seen, const Options<T>& x, int b, int tile) {
    const int i = threadIdx.y * 32 + threadIdx.x, rows = tile_rows<wide<T>>;
    if (i < rows) seen[i] = tile * rows + i < x.Tq ? x.sees(b, tile * rows + i) : Interval{0, 0};
    __syncthreads();
}

template <class A> __device__ A* sums_of_block() { return reinterpret_cast<A*>(sums_memory); }

// o_i = Σ_j exp(s_ij - lse_i) v_j and lse_i = log Σ_j exp(s_ij), while the keys come by: `top` is the largest score so
// far, `mass` this lane's share of Σ exp(s - top). A larger top rescales what was added up before.
template <class T>
__device__ void attention_forward(const T* q, const T* k, const T* v, T* o, T* lse, Options<T> x,
                                  const long long* table, const long long* lengths, int page, int pages, int slots) {
    using A = wide<T>;
    constexpr int R = rows_a_warp<A>;
    __shared__ Tiles<A> tiles;
    __shared__ Interval seen[tile_rows<A>];
    const int count = (x.Tq + tile_rows<A> - 1) / tile_rows<A>;
    const int tile = blockIdx.x % count, head = blockIdx.x / count, h = head % x.H, b = head / x.H;
    const int g = h / (x.H / x.G);
    const int row = tile * tile_rows<A> + threadIdx.y * R;
    x = paged(x, lengths, b, page, slots);
    const Rows<T> queries = {q + (long long)head * x.Tq * x.d, x.Tq, x.d};
    const Rows<T> keys = keys_of(k, x, x.d, b, g, table, page, pages, slots);
    const Rows<T> values = keys_of(v, x, x.dv, b, g, table, page, pages, slots);

    note_seen(seen, x, b, tile);
    A top[R], mass[R];
    for (int r = 0; r < R; r++) top[r] = -infinity<A>(), mass[r] = 0;
    A* const sums = sums_of_block<A>();
    zeros(sums, x.dv);
    const int last = x.sees(b, min((tile + 1) * tile_rows<A>, x.Tq) - 1).high;
    for (int first = x.sees(b, tile * tile_rows<A>).low; first < last; first += 32) {
        A s[R], keep[R];
        products(tiles, queries, row, keys, first, s);
        for (int r = 0; r < R; r++) {
            s[r] = x.score(s[r], b, h, row + r, first + threadIdx.x, seen[threadIdx.y * R + r]);
            A higher = larger(top[r], s[r]);
            for (int distance = 16; distance > 0; distance /= 2)
                higher = larger(higher, __shfl_xor_sync(everyone, higher, distance));
            keep[r] = weight_of(top[r], higher);
            s[r] = weight_of(s[r], higher);
            mass[r] = mass[r] * keep[r] + s[r], top[r] = higher;
        }
        add_up(tiles, s, values, first, keep, sums);
    }
    for (int r = 0; r < R; r++) {
        for (int distance = 16; distance > 0; distance /= 2)
            mass[r] += __shfl_xor_sync(everyone, mass[r], distance);
        if (threadIdx.x == 0 && row + r < x.Tq) store(lse[(long long)head * x.Tq + row + r], top[r] + log(mass[r]));
        if (mass[r] == 0) mass[r] = 1;  // a row without keys, whose sum is 0 already
    }
    write(sums, mass, o + (long long)head * x.Tq * x.dv, row, Rows<T>{nullptr, x.Tq, x.dv});
}

// delta_i = do_i·o_i = Σ_j p_ij (do_i·v_j): what the gradient of the softmax takes off every score.
template <class T> __device__ void attention_delta(const T* dy, const T* o, wide<T>* delta, long long rows, int n) {
    const long long row = row_of_team();
    if (row >= rows) return;
    wide<T> sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += load(dy[row * n + i]) * load(o[row * n + i]);
    sum = team_sum(sum);
    if (threadIdx.x == 0) delta[row] = sum;
}

// ds_ij = p_ij (do_i·v_j - delta_i) scale, and 0 where p is 0
template <class A> __device__ A score_gradient(A p, A dp, A delta, A scale) {
    return p == 0 ? 0 : p * (dp - delta) * scale;
}

// dq_i = Σ_j ds_ij k_j
template <class T>
__device__ void attention_backward_queries(const T* dy, const T* q, const T* k, const T* v, const T* lse,
                                           const wide<T>* delta, T* dq, const Options<T>& x) {
    using A = wide<T>;
    constexpr int R = rows_a_warp<A>;
    __shared__ Tiles<A> tiles;
    __shared__ Interval seen[tile_rows<A>];
    const int count = (x.Tq + tile_rows<A> - 1) / tile_rows<A>;
    const int tile = blockIdx.x % count, head = blockIdx.x / count, h = head % x.H, b = head / x.H;
    const int g = h / (x.H / x.G);
    const int row = tile * tile_rows<A> + threadIdx.y * R;
    const long long start = (long long)head * x.Tq, keys_start = (long long)(b * x.G + g) * x.Tk;
    const Rows<T> queries = {q + start * x.d, x.Tq, x.d}, dys = {dy + start * x.dv, x.Tq, x.dv};
    const Rows<T> keys = {k + keys_start * x.d, x.Tk, x.d}, values = {v + keys_start * x.dv, x.Tk, x.dv};

    note_seen(seen, x, b, tile);
    A level[R], less[R], one[R];
    for (int r = 0; r < R; r++) {
        const bool there = row + r < x.Tq;
        level[r] = there ? load(lse[start + row + r]) : 0, less[r] = there ? delta[start + row + r] : 0, one[r] = 1;
    }
    A* const sums = sums_of_block<A>();
    zeros(sums, x.d);
    const int last = x.sees(b, min((tile + 1) * tile_rows<A>, x.Tq) - 1).high;
    for (int first = x.sees(b, tile * tile_rows<A>).low; first < last; first += 32) {
        A s[R], dp[R];
        products(tiles, queries, row, keys, first, s);
        products(tiles, dys, row, values, first, dp);
        for (int r = 0; r < R; r++) {
            s[r] = x.score(s[r], b, h, row + r, first + threadIdx.x, seen[threadIdx.y * R + r]);
            const A p = weight_of(s[r], level[r]);
            s[r] = score_gradient(p, dp[r], less[r], x.scale);
        }
        add_up(tiles, s, keys, first, one, sums);
    }
    write(sums, one, dq + start * x.d, row, queries);
}

// dk_j = Σ_i ds_ij q_i and dv_j = Σ_i p_ij do_i over the queries of all heads that read this key.
template <class T>
__device__ void attention_backward_keys(const T* dy, const T* q, const T* k, const T* v, const T* lse,
                                        const wide<T>* delta, T* dk, T* dv, const Options<T>& x) {
    using A = wide<T>;
    constexpr int R = rows_a_warp<A>;
    __shared__ Tiles<A> tiles;
    const int count = (x.Tk + tile_rows<A> - 1) / tile_rows<A>;
    const int tile = blockIdx.x % count, group = blockIdx.x / count, g = group % x.G, b = group / x.G;
    const int row = tile * tile_rows<A> + threadIdx.y * R, heads = x.H / x.G;
    const long long keys_start = (long long)group * x.Tk;
    const Rows<T> keys = {k + keys_start * x.d, x.Tk, x.d}, values = {v + keys_start * x.dv, x.Tk, x.dv};

    A one[R];
    for (int r = 0; r < R; r++) one[r] = 1;
    A *const dk_sums = sums_of_block<A>(), *const dv_sums = zeros(dk_sums, x.d);
    zeros(dv_sums, x.dv);
    const Interval queries_there = x.seen_by(b, tile * tile_rows<A>, min((tile + 1) * tile_rows<A>, x.Tk));
    for (int h = g * heads; h < (g + 1) * heads; h++) {
        const long long start = (long long)(b * x.H + h) * x.Tq;
        const Rows<T> queries = {q + start * x.d, x.Tq, x.d}, dys = {dy + start * x.dv, x.Tq, x.dv};
        for (int first = queries_there.low; first < queries_there.high; first += 32) {
            const int i = first + threadIdx.x;
            const bool there = i < x.Tq;
            const Interval seen = there ? x.sees(b, i) : Interval{0, 0};
            const A level = there ? load(lse[start + i]) : 0, less = there ? delta[start + i] : 0;
            A p[R], ds[R];
            products(tiles, keys, row, queries, first, p);
            products(tiles, values, row, dys, first, ds);
            for (int r = 0; r < R; r++) {
                p[r] = weight_of(x.score(p[r], b, h, i, row + r, seen), level);
                ds[r] = score_gradient(p[r], ds[r], less, x.scale);
            }
            add_up(tiles, p, dys, first, one, dv_sums);
            add_up(tiles, ds, queries, first, one, dk_sums);
        }
    }
    write(dk_sums, one, dk + keys_start * x.d, row, keys);
    write(dv_sums, one, dv + keys_start * x.dv, row, values);
}

// p_ij = exp(s_ij - lse_i) of chosen heads and rows, a thread for each: to look at, not fast. NaN where there is no
// such head or row.
template <class T>
__device__ void attention_probabilities(const T* q, const T* k, const T* lse, const long long* heads,
                                        const long long* rows, T* p, long long count, int heads_count, int rows_count,
                                        const Options<T>& x) {
    for (long long n = first(); n < count; n += all()) {
        const int j = n % x.Tk, b = n / x.Tk / rows_count / heads_count;
        const long long i = rows ? rows[n / x.Tk % rows_count] : n / x.Tk % rows_count;
        const long long h = heads ? heads[n / x.Tk / rows_count % heads_count] : n / x.Tk / rows_count % heads_count;
        wide<T> found = not_a_number<wide<T>>();
        if (i >= 0 && i < x.Tq && h >= 0 && h < x.H) {
            const long long row = (b * (long long)x.H + h) * x.Tq + i;
            const T* key = k + ((b * (long long)x.G + h / (x.H / x.G)) * x.Tk + j) * x.d;
            wide<T> product = 0;
            for (int c = 0; c < x.d; c++) product += load(q[row * x.d + c]) * load(key[c]);
            found = weight_of(x.score(product, b, h, i, j, x.sees(b, i)), load(lse[row]));
        }
        store(p[n], found);
    }
}

}  // namespace mt

// 3 blocks at once on a multiprocessor: 170 registers a thread. Left to itself the compiler aims at more, and spills.
#define KERNELS(T, NAME)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128, 3) attention_forward_##NAME(                                    \
        const T* q, const T* k, const T* v, T* o, T* lse, PAGED_PARAMETERS, ATTENTION_PARAMETERS(T)) {                \
        mt::attention_forward(q, k, v, o, lse, ATTENTION_OPTIONS(T), table, lengths, page, pages, slots);             \
    }                                                                                                                 \
    extern "C" __global__ void attention_delta_##NAME(const T* dy, const T* o, mt::wide<T>* delta, long long rows,    \
                                                      int n) {                                                        \
        mt::attention_delta<T>(dy, o, delta, rows, n);                                                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128, 3) attention_backward_queries_##NAME(                           \
        const T* dy, const T* q, const T* k, const T* v, const T* lse, const mt::wide<T>* delta, T* dq,               \
        ATTENTION_PARAMETERS(T)) {                                                                                    \
        mt::attention_backward_queries<T>(dy, q, k, v, lse, delta, dq, ATTENTION_OPTIONS(T));                         \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128, 3) attention_backward_keys_##NAME(                              \
        const T* dy, const T* q, const T* k, const T* v, const T* lse, const mt::wide<T>* delta, T* dk, T* dv_,       \
        ATTENTION_PARAMETERS(T)) {                                                                                    \
        mt::attention_backward_keys<T>(dy, q, k, v, lse, delta, dk, dv_, ATTENTION_OPTIONS(T));                       \
    }                                                                                                                 \
    extern "C" __global__ void attention_probabilities_##NAME(                                                        \
        const T* q, const T* k, const T* lse, const long long* heads, const long long* rows, T* p, long long count,   \
        int heads_count, int rows_count, ATTENTION_PARAMETERS(T)) {                                                   \
        mt::attention_probabilities(q, k, lse, heads, rows, p, count, heads_count, rows_count, ATTENTION_OPTIONS(T)); \
    }
FLOATS(KERNELS)
