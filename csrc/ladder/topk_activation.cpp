// The k largest of each row stay, the others become 0: from a sort to the shipped kernel.
//
// x (rows, n) -> y (rows, n), indices (rows, k) ascending. Of equal values the first are kept. What must move is 8 n +
// 4 k bytes a row, so the speed is told in GB/s. Finite numbers only: what the contract says of NaN is one line more in
// keys.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "ladder.hpp"

#if defined(__clang__)
#define SCALAR
#define SCALAR_LOOP _Pragma("clang loop vectorize(disable)")
#else
#define SCALAR __attribute__((optimize("no-tree-vectorize")))
#define SCALAR_LOOP
#endif

// y and the ascending indices of the first k of `order`.
static void write_chosen(long n, long k, const float* x, int32_t* order, float* y, int32_t* indices) {
    std::sort(order, order + k);
    std::fill(y, y + n, 0.f);
    for (long j = 0; j < k; j++) y[indices[j] = order[j]] = x[order[j]];
}

// [1] full sort: all of a row is sorted, k are taken
// n log₂ n comparisons (49,000 at n = 4096) of which most decide nothing that is asked for, each followed by a branch
// that nobody can predict: half of them cost some 15 cycles. Indices are sorted, so each comparison reads two numbers.
extern "C" void full_sort(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> order(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(),
                  [=](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
        write_chosen(n, k, x, order.data(), y, indices);
    }
}

// [2, failed] heap: the k best so far, the worst of them on top
// n comparisons with the top and log₂ k steps for each that enters: the right idea for k = 10. At k = n / 7 a quarter
// of all numbers enter, each through 9 levels of unpredictable branches.
// Measured: 0.45× the speed of the next rung, though 2.6× that of the full sort (Zen 5, n = 4096, k = 614).
extern "C" void heap(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> best(k);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        auto better = [=](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
        std::iota(best.begin(), best.end(), 0);
        std::make_heap(best.begin(), best.end(), better);
        for (int32_t i = int32_t(k); i < n; i++)
            if (better(i, best[0])) {
                std::pop_heap(best.begin(), best.end(), better);
                best.back() = i;
                std::push_heap(best.begin(), best.end(), better);
            }
        write_chosen(n, k, x, best.data(), y, indices);
    }
}

// [2] partial selection: only the k-th is put in its place
// Quicksort that goes on in the one part where the k-th lies (nth_element): some 3 n comparisons instead of n log₂ n.
// Still half of the branches are guessed wrong, and the k indices found are sorted at the end.
extern "C" void partial_selection(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> order(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        std::iota(order.begin(), order.end(), 0);
        std::nth_element(order.begin(), order.begin() + k - 1, order.end(),
                         [=](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
        write_chosen(n, k, x, order.data(), y, indices);
    }
}

// Keeps what is above `least` and the first `ties` equal to it, of keys that sort as x does: one pass in the row's
// order, so that the indices come out ascending.
template <class Key>
static void write_from(long n, const float* x, const Key* keys, Key least, long ties, float* y, int32_t* indices) {
    long kept = 0;
    for (long i = 0; i < n; i++) {
        bool keep = keys[i] > least;
        if (keys[i] == least && ties > 0) keep = true, ties--;
        y[i] = keep ? x[i] : 0;
        if (keep) indices[kept++] = int32_t(i);
    }
}

// [3] threshold: select values, then compare with the k-th
// It is the k-th largest value that is wanted, not an order of indices: nth_element on a copy of the numbers (4 n
// bytes, in the L1 cache) reads one number a comparison, and one more pass writes y and the indices, ascending by
// themselves. The selection's branches limit.
extern "C" void threshold(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<float> copy(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        std::copy(x, x + n, copy.begin());
        std::nth_element(copy.begin(), copy.begin() + k - 1, copy.end(), std::greater<float>());
        const float least = copy[k - 1];
        const long ties = k - std::count_if(copy.begin(), copy.begin() + k, [=](float v) { return v > least; });
        write_from(n, x, x, least, ties, y, indices);
    }
}

// ---------------------------------------------------------------- bits

// A float's bits, read as an integer, sort as the floats do once the lower bits of negative ones are turned round.
static void keys_of(long n, const float* x, int32_t* keys) {
    for (long i = 0; i < n; i++) {
        int32_t bits;
        const float value = x[i] + 0.f;  // -0 is 0
        std::memcpy(&bits, &value, 4);
        keys[i] = bits ^ (bits >> 31 & 0x7fffffff);
    }
}

// The largest key that at least k keys reach, bit by bit from the top, as in long division: a bit belongs to it if at
// least k keys are that large. count(trial) says how many.
template <class Count> [[gnu::always_inline]] static inline int32_t bisect(long k, Count count) {
    uint32_t found = 1u << 31;  // the smallest integer, which all keys reach
    for (int bit = 31; bit >= 0; bit--) {
        const uint32_t trial = found + (1u << bit);
        const long many = count(int32_t(trial));
        if (many >= k) found = trial;
        if (many == k) break;  // exactly these
    }
    return int32_t(found);
}

SCALAR static long count_one_by_one(long n, const int32_t* keys, int32_t least) {
    long count = 0;
    SCALAR_LOOP for (long i = 0; i < n; i++) count += keys[i] >= least;
    return count;
}

// [4] bisection over bits: the k-th largest is found by counting
// Up to 32 passes over the row's keys (4 n bytes, in the L1 cache), some 20 until a trial leaves exactly k. A
// comparison is an addition here and no branch, so nothing is guessed; but one key a cycle, 20 times: no faster than
// the selection that it replaces. (The compiler is kept from making vectors of this loop, to show what the idea alone
// is worth.)
extern "C" void bisection(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> keys(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        keys_of(n, x, keys.data());
        const int32_t least = bisect(k, [&](int32_t trial) { return count_one_by_one(n, keys.data(), trial); });
        const long ties = k - (least == INT32_MAX ? 0 : count_one_by_one(n, keys.data(), least + 1));
        write_from(n, x, keys.data(), least, ties, y, indices);
    }
}

// [5, failed] histogram: 256 bins of the top 8 bits, then of the next
// A radix selection reads the row 4 times instead of 20. But each key increments a counter in memory, one key at a
// time, and neighbours that fall into the same bin (the top bits of a float are its exponent: most do) wait for each
// other.
// Measured: 0.25× the speed of the next rung, although that one reads the keys five times as often (Zen 5, n = 4096).
extern "C" void histogram(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> keys(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        keys_of(n, x, keys.data());
        uint32_t prefix = 0, known = 0;  // the bits found so far, and a mask of them
        long wanted = k;                 // of those that begin with the prefix
        for (int shift = 24; shift >= 0; shift -= 8) {
            int32_t bins[256] = {};
            for (long i = 0; i < n; i++) {
                const uint32_t key = uint32_t(keys[i]) ^ 1u << 31;
                if ((key & known) == prefix) bins[key >> shift & 255]++;
            }
            uint32_t bin = 255;
            while (bins[bin] < wanted) wanted -= bins[bin--];
            prefix |= bin << shift, known |= 255u << shift;
        }
        write_from(n, x, keys.data(), int32_t(prefix ^ 1u << 31), wanted, y, indices);
    }
}

static long count_vectors(long n, const int32_t* keys, int32_t least) {
    ints<float> count[2] = {};
    long i = 0, rest = 0;
    for (; i + 2 * L <= n; i += 2 * L)
        for (int j = 0; j < 2; j++) {
            ints<float> here;
            std::memcpy(&here, keys + i + j * L, sizeof here);
            count[j] -= here >= least;  // true is -1
        }
    for (; i < n; i++) rest += keys[i] >= least;
    const ints<float> both = count[0] + count[1];
    for (int j = 0; j < L; j++) rest += both[j];
    return rest;
}

// [5] vectors: 16 keys a comparison, two counters
// A pass over 4096 keys is 256 loads, comparisons and subtractions: 20 passes cost less than the single pass that
// writes the result. Limited by that one now, and by its branch: it takes 1 of 7 and is guessed wrong nearly as often.
extern "C" void vectors(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> keys(n);
    for (long r = 0; r < rows; r++, x += n, y += n, indices += k) {
        keys_of(n, x, keys.data());
        const int32_t least = bisect(k, [&](int32_t trial) { return count_vectors(n, keys.data(), trial); });
        const long ties = k - (least == INT32_MAX ? 0 : count_vectors(n, keys.data(), least + 1));
        write_from(n, x, keys.data(), least, ties, y, indices);
    }
}

static void select_row(long n, long k, const float* x, int32_t* keys, float* y, int32_t* indices) {
    keys_of(n, x, keys);
    const int32_t least = bisect(k, [=](int32_t trial) { return count_vectors(n, keys, trial); });
    const long reach = count_vectors(n, keys, least);
    if (reach != k) {  // more equal ones than are wanted: the k-th is one of several
        const long above = least == INT32_MAX ? 0 : count_vectors(n, keys, least + 1);
        return write_from(n, x, keys, least, k - above, y, indices);
    }
    for (long i = 0; i < n; i++) y[i] = keys[i] >= least ? x[i] : 0;
    for (long i = 0, kept = 0; kept < k; i++) {
        indices[kept] = int32_t(i);  // written always; only what is kept stays
        kept += keys[i] >= least;
    }
}

// [6] no branch: every index is written, the kept ones move on
// Without ties two loops do: one that the compiler turns into vectors, and one in which the place for the next index
// moves on by 1 or by 0, an addition instead of a guess. Limited by the latter, some 2 cycles a number.
extern "C" void no_branch(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    std::vector<int32_t> keys(n);
    for (long r = 0; r < rows; r++) select_row(n, k, x + r * n, keys.data(), y + r * n, indices + r * k);
}

// [7] threads: rows dealt out to all cores
// A row is nobody else's business, so 16 rows are a piece of work. What limits is still the loop of the indices, on
// every core: the 8 n + 4 k bytes of a row would take a tenth of the time.
extern "C" void threads(long rows, long n, long k, const float* x, float* y, int32_t* indices) {
    constexpr long each = 16;
    parallel((rows + each - 1) / each, [=](long part) {
        std::vector<int32_t> keys(n);
        for (long r = part * each; r < std::min(rows, (part + 1) * each); r++)
            select_row(n, k, x + r * n, keys.data(), y + r * n, indices + r * k);
    });
}
