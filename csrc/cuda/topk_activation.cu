// The k largest of each row stay, the others become 0; and products with chosen rows of a matrix.
//
// A block a row. Nothing is sorted. Each number becomes an unsigned key in the order that is wanted, and the k-th
// largest key is found a byte at a time, from the highest: count how many keys have each value of the byte, walk down
// from 255 until k are reached, keep only the keys with that byte, go on with the next (radix selection). Four passes
// over the row for 32 bits, whatever is in it. Then those above the k-th key stay, and of its equals the first few.
// Counts do not depend on the order of counting, so atomics do no harm here.
#include "rows.cuh"

namespace mt {

template <class A> struct KeyOf {
    using type = unsigned;
};
template <> struct KeyOf<double> {
    using type = unsigned long long;
};

__device__ inline unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ inline unsigned long long bits_of(double x) { return (unsigned long long)__double_as_longlong(x); }

// Keys in the order of the numbers: a positive float's bits already are; a negative's are turned over. -0 becomes 0,
// and every NaN the largest key.
template <class T> __device__ typename KeyOf<wide<T>>::type key_of(T stored, bool magnitude) {
    using Key = typename KeyOf<wide<T>>::type;
    wide<T> x = load(stored);
    if (x != x) return ~Key(0);
    if (magnitude) x = abs(x);
    constexpr Key sign = Key(1) << (8 * sizeof(Key) - 1);
    const Key bits = x == 0 ? 0 : bits_of(x);
    return bits & sign ? ~bits : bits | sign;
}

// The key of rank k and `ties`, how many of those equal to it are among the k; the same in every thread.
template <class T>
__device__ typename KeyOf<wide<T>>::type kth_largest(const T* x, int n, int k, bool magnitude, int& ties) {
    using Key = typename KeyOf<wide<T>>::type;
    __shared__ int found[256], above[256], of_warp[8], digit, before;
    const int thread = threadIdx.x, lane = thread % 32;
    Key prefix = 0, known = 0;  // the bytes found so far, and ones where they are
    for (int shift = 8 * sizeof(Key) - 8; shift >= 0; shift -= 8) {
        for (int i = thread; i < 256; i += blockDim.x) found[i] = 0;
        __syncthreads();  // all are 0
        for (int i = thread; i < n; i += blockDim.x) {
            const Key key = key_of(x[i], magnitude);
            if ((key & known) == prefix) atomicAdd(&found[key >> shift & 255], 1);
        }
        __syncthreads();
        // How many keys have a larger byte: thread i has byte 255 - i; a running sum within each 32 of them, and then
        // what the warps before have in all.
        for (int i = thread; i < 256; i += blockDim.x) {
            int sum = found[255 - i];
            for (int distance = 1; distance < 32; distance *= 2) {
                const int other = __shfl_up_sync(everyone, sum, distance);
                if (lane >= distance) sum += other;
            }
            if (lane == 31) of_warp[i / 32] = sum;
            above[255 - i] = sum - found[255 - i];
        }
        __syncthreads();
        for (int i = thread; i < 256; i += blockDim.x) {
            int larger_ones = above[255 - i];
            for (int w = 0; w < i / 32; w++) larger_ones += of_warp[w];
            if (larger_ones < k && k <= larger_ones + found[255 - i])  // of one byte only
                digit = 255 - i, before = larger_ones;
        }
        __syncthreads();
        prefix |= Key(digit) << shift, known |= Key(255) << shift, k -= before;
    }
    ties = k;
    return prefix;
}

// y and the indices that stay, ascending. In pieces of one element a thread, each told by those in front of it how many
// are above the threshold and how many equal to it: a ballot counts within a warp, shared memory among warps.
template <class T>
__device__ void topk_activation(const T* x, T* y, int* indices, int n, int k, bool magnitude) {
    __shared__ int above_of_warp[32], equal_of_warp[32];
    x += (long long)blockIdx.x * n, y += (long long)blockIdx.x * n, indices += (long long)blockIdx.x * k;
    int ties;
    const auto threshold = kth_largest(x, n, k, magnitude, ties);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned in_front = (1u << lane) - 1;
    int above_before = 0, equal_before = 0;
    for (int start = 0; start < n; start += blockDim.x) {
        const int i = start + threadIdx.x;
        const auto key = i < n ? key_of(x[i], magnitude) : 0;
        const bool above = i < n && key > threshold, equal = i < n && key == threshold;
        const unsigned all_above = __ballot_sync(everyone, above), all_equal = __ballot_sync(everyone, equal);
        if (lane == 0) above_of_warp[warp] = __popc(all_above), equal_of_warp[warp] = __popc(all_equal);
        __syncthreads();
        int my_above = above_before + __popc(all_above & in_front);
        int my_equal = equal_before + __popc(all_equal & in_front);
        for (int w = 0; w < blockDim.x / 32; w++) {
            if (w < warp) my_above += above_of_warp[w], my_equal += equal_of_warp[w];
            above_before += above_of_warp[w], equal_before += equal_of_warp[w];
        }
        const bool stays = above || (equal && my_equal < ties);
        if (i < n) {
            if (stays) {
                y[i] = x[i];
                indices[my_above + min(my_equal, ties)] = i;
            } else {
                store(y[i], 0);
            }
        }
        __syncthreads();  // the counts have been read
    }
}

// y_nj = x_n · weight[indices_nj], a warp each: only the chosen rows are read. An index that is no row gives NaN.
template <class T>
__device__ void gathered_linear(const T* x, const T* weight, const long long* indices, T* y, long long count, int k,
                                int rows, int width, int own_choice) {
    const long long which = row_of_team();
    if (which >= count) return;
    const long long token = which / k, row = indices[own_choice ? which : which % k];
    const bool there = row >= 0 && row < rows;
    wide<T> sum = there ? 0 : not_a_number<wide<T>>();
    if (there)
        for (int i = threadIdx.x; i < width; i += 32) sum += load(x[token * width + i]) * load(weight[row * width + i]);
    sum = team_sum(sum);
    if (threadIdx.x == 0) store(y[which], sum);
}

// y_n = Σ_j a_nj weight[indices_nj], 32 columns a block: thread (i, w) adds up rows w, w + 8 … of column i, so that a
// warp reads 32 neighbours of one row; then the eight are added up.
template <class T>
__device__ void gathered_sum(const T* a, const T* weight, const long long* indices, T* y, int k, int rows, int width,
                             int own_choice) {
    __shared__ wide<T> of_thread[8][32];
    const int column = blockIdx.x * 32 + threadIdx.x;
    const long long token = blockIdx.y;
    a += token * k, indices += own_choice ? token * k : 0;
    wide<T> sum = 0;
    if (column < width)
        for (int j = threadIdx.y; j < k; j += 8) {
            const long long row = indices[j];
            const bool there = row >= 0 && row < rows;
            sum += there ? load(a[j]) * load(weight[row * width + column]) : not_a_number<wide<T>>();
        }
    of_thread[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int w = 1; w < 8; w++) sum += of_thread[w][threadIdx.x];
        store(y[token * width + column], sum);
    }
}

}  // namespace mt

#define KERNELS(T, NAME)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) topk_activation_##NAME(const T* x, T* y, int* indices, int n,   \
                                                                             int k, int magnitude) {                  \
        mt::topk_activation(x, y, indices, n, k, magnitude != 0);                                                     \
    }                                                                                                                 \
    extern "C" __global__ void gathered_linear_##NAME(const T* x, const T* weight, const long long* indices, T* y,    \
                                                      long long count, int k, int rows, int width, int own_choice) {  \
        mt::gathered_linear(x, weight, indices, y, count, k, rows, width, own_choice);                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) gathered_sum_##NAME(                                            \
        const T* a, const T* weight, const long long* indices, T* y, int k, int rows, int width, int own_choice) {    \
        mt::gathered_sum(a, weight, indices, y, k, rows, width, own_choice);                                          \
    }
FLOATS(KERNELS)
