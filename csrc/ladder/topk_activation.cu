// The k largest of each row of x (rows, n) stay: y (rows, n), indices (rows, k) ascending, by bisection over bits
// (csrc/ladder/topk_activation.cpp, rung 4). Of equal values the first are kept; finite numbers only.
#include "ladder.cuh"

// A float's bits as an integer that sorts as the floats do.
__device__ inline int key_of(float x) {
    const int bits = __float_as_int(x + 0.f);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

// The largest key that at least k keys reach; count(trial) is how many reach it. Then `ties`: how many of those equal
// to it are wanted.
template <class Count> __device__ inline int bisect(int k, int& ties, Count count) {
    unsigned found = 1u << 31;
    for (int bit = 31; bit >= 0; bit--) {
        const unsigned trial = found + (1u << bit);
        const int many = count(int(trial));
        if (many >= k) found = trial;
        if (many == k) break;
    }
    ties = k - (found == 0x7fffffffu ? 0 : count(int(found + 1)));
    return int(found);
}

// One thread writes a row: what it keeps, in order.
template <class Key>
__device__ inline void write_row(const Global<const float>& x, const Global<float>& y, const Global<int>& indices,
                                 long long row, int n, int k, int least, int ties, Key key) {
    for (int i = 0, kept = 0; i < n; i++) {
        const int here = key(i);
        const bool keep = here > least || (here == least && ties-- > 0);
        y.put(row * n + i, keep ? x[row * n + i] : 0.f);
        if (keep) indices.put(row * k + kept++, i);
    }
}

// [1] global memory: a thread a row
// Some 20 trials read the whole row from global memory, 4 n bytes each, and neighbouring threads read numbers that lie
// n apart: 32 lines for 32 numbers. A GPU with 100,000 threads is given as many as there are rows.
extern "C" __global__ void __launch_bounds__(128) global_memory(
    const float* x_, float* y_, int* indices_, int rows, int n, int k) {
    const Global<const float> x(x_);
    const Global<float> y(y_);
    const Global<int> indices(indices_);
    const long long row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    auto key = [&](int i) { return key_of(x[row * n + i]); };
    int ties;
    const int least = bisect(k, ties, [&](int trial) {
        int many = 0;
        for (int i = 0; i < n; i++) many += key(i) >= trial;
        return many;
    });
    write_row(x, y, indices, row, n, k, least, ties, key);
}

// The sum over a block of each thread's number, in every thread: a tree in shared memory, a barrier a level.
__device__ inline int block_sum(int mine, int* sums) {
    sums[threadIdx.x] = mine;
    barrier();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        barrier();
    }
    const int total = sums[0];
    barrier();  // before somebody writes the next
    return total;
}

// [2] shared keys: a block a row, which is read once
// 128 threads count together, and the keys stay in shared memory: 4 n bytes read instead of 20 times that, neighbours
// reading neighbours. The counts are added up in a tree, 9 barriers a trial; and one thread writes while 127 wait.
extern "C" __global__ void __launch_bounds__(128) shared_keys(
    const float* x_, float* y_, int* indices_, int rows, int n, int k) {
    const Global<const float> x(x_);
    const Global<float> y(y_);
    const Global<int> indices(indices_);
    const long long row = blockIdx.x;
    int *keys = reinterpret_cast<int*>(memory), *sums = keys + n, ties;
    for (int i = threadIdx.x; i < n; i += blockDim.x) keys[i] = key_of(x[row * n + i]);
    barrier();
    const int least = bisect(k, ties, [&](int trial) {
        int many = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) many += keys[i] >= trial;
        return block_sum(many, sums);
    });
    if (threadIdx.x == 0) write_row(x, y, indices, row, n, k, least, ties, [&](int i) { return keys[i]; });
}

// [3] ballots: a warp a row, counting by votes
// A vote tells every lane which of the 32 say yes: its bits are counted (popc), and no barrier is needed, since a warp
// goes in step. The bits below a lane's own are its place among those that are kept, so that 32 lanes write at once, in
// order. Limited by 4 n bytes in and 4 n + 4 k out, as it should be.
extern "C" __global__ void __launch_bounds__(128) ballots(
    const float* x_, float* y_, int* indices_, int rows, int n, int k) {
    const Global<const float> x(x_);
    const Global<float> y(y_);
    const Global<int> indices(indices_);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long row = (long long)blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= rows) return;
    int *keys = reinterpret_cast<int*>(memory) + warp * n, ties;
    for (int i = lane; i < n; i += 32) keys[i] = key_of(x[row * n + i]);
    __syncwarp();
    const int least = bisect(k, ties, [&](int trial) {
        int many = 0;
        for (int i0 = 0; i0 < n; i0 += 32)
            many += __popc(__ballot_sync(all_lanes, i0 + lane < n && keys[i0 + lane] >= trial));
        return many;
    });
    const unsigned below = (1u << lane) - 1;
    for (int i0 = 0, kept = 0; i0 < n; i0 += 32) {
        const int i = i0 + lane, key = i < n ? keys[i] : 0;
        const unsigned equal = __ballot_sync(all_lanes, i < n && key == least);
        const bool keep = i < n && (key > least || (key == least && __popc(equal & below) < ties));
        ties -= __popc(equal);
        const unsigned all = __ballot_sync(all_lanes, keep);
        if (i < n) y.put(row * n + i, keep ? x[row * n + i] : 0.f);
        if (keep) indices.put(row * k + kept + __popc(all & below), i);
        kept += __popc(all);
    }
}
