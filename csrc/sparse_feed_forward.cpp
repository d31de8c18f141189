#include "sparse_feed_forward.hpp"

#include "rows.hpp"
#include "threads.hpp"

// For a few tokens the time is that of reading weights, so a row that several tokens chose should come from memory
// once. A piece of work is a stretch of the choices, and all tokens use it before the next: with a shared choice four
// rows at a time stay in the L1 cache; with choices of their own, ascending, the stretches of all tokens are nearly the
// same rows and stay in the L2 cache. Each output is added up by one thread, in an order that nothing changes.

namespace mt::MT_ISA {
namespace {

constexpr long ROWS = 4;             // together, so that a vector of the token is loaded once for four rows
constexpr long STRETCH = 64 * 1024;  // numbers of weight in one piece of work of `linear`
constexpr long COLUMNS = 512;        // in one of `sum`

// Rows of weight, and the beginning of those that come next: the processor fetches ahead within a row by itself, but
// cannot guess where the next one lies.
template <class T> struct Rows {
    const T* at[ROWS];
    Rows(const GatheredInput<T>& in, const int64_t* indices, long j, long end, long column) {
        for (long r = 0; r < ROWS; r++) at[r] = in.weight + indices[smaller(j + r, end - 1)] * in.width + column;
        for (long r = 0; r < ROWS && j + ROWS + r < end; r++) {
            const T* next = in.weight + indices[j + ROWS + r] * in.width + column;
            for (int line = 0; line < 4; line++) __builtin_prefetch(next + line * (64 / int(sizeof(T))));
        }
    }
};

// dots[r] = x · row r
template <class T> void dot(long width, const T* x, const Rows<T>& rows, T* dots) {
    vec<T> sum[2][ROWS] = {};
    long i = 0;
    for (; i + 2 * lanes<T> <= width; i += 2 * lanes<T>)
        for (int half = 0; half < 2; half++) {
            const vec<T> token = load(x + i + half * lanes<T>);
            for (long r = 0; r < ROWS; r++) sum[half][r] += token * load(rows.at[r] + i + half * lanes<T>);
        }
    for_vectors<T>(width - i, [&](long rest, auto part) {
        const vec<T> token = part.get(x + i + rest);
        for (long r = 0; r < ROWS; r++) sum[0][r] += token * part.get(rows.at[r] + i + rest);
    });
    for (long r = 0; r < ROWS; r++) dots[r] = hsum(sum[0][r] + sum[1][r]);
}

// f(token, first choice, rows) for the choices [begin, end) of all tokens
template <class T, class F>
MT_INLINE void each(const GatheredInput<T>& in, long begin, long end, long column, F f) {
    if (in.shared)
        for (long j = begin; j < end; j += ROWS) {
            const Rows<T> rows(in, in.indices, j, end, column);
            for (long n = 0; n < in.tokens; n++) f(n, j, rows);
        }
    else
        for (long n = 0; n < in.tokens; n++)
            for (long j = begin; j < end; j += ROWS) f(n, j, Rows<T>(in, in.indices + n * in.k, j, end, column));
}

template <class T> void linear(const GatheredInput<T>& in, const T* x, T* y) {
    const long stretch = larger(STRETCH / larger(in.width, 1l), ROWS);
    parallel_for(in.k, stretch, [&](long begin, long end) {
        each(in, begin, end, 0, [&](long n, long j, const Rows<T>& rows) {
            T dots[ROWS];
            dot(in.width, x + n * in.width, rows, dots);
            for (long r = 0; r < ROWS && j + r < end; r++) y[n * in.k + j + r] = dots[r];
        });
    });
}

template <class T> void sum(const GatheredInput<T>& in, const T* a, T* y) {
    parallel_for(in.width, COLUMNS, [&](long begin, long end) {
        for (long n = 0; n < in.tokens; n++)
            __builtin_memset(y + n * in.width + begin, 0, sizeof(T) * size_t(end - begin));
        each(in, 0, in.k, begin, [&](long n, long j, const Rows<T>& rows) {
            T* out = y + n * in.width + begin;
            const T* factor = a + n * in.k + j;
            if (j + ROWS <= in.k)
                for_vectors<T>(end - begin, [&](long i, auto part) {
                    vec<T> total = part.get(out + i);
                    for (long r = 0; r < ROWS; r++) total += factor[r] * part.get(rows.at[r] + i);
                    part.put(out + i, total);
                });
            else
                for (long r = 0; j + r < in.k; r++)
                    for_vectors<T>(end - begin, [&](long i, auto part) {
                        part.put(out + i, part.get(out + i) + factor[r] * part.get(rows.at[r] + i));
                    });
        });
    });
}

}  // namespace

template <class T> SparseFeedForwardKernels<T> sparse_feed_forward_kernels() {
    return {linear<T>, sum<T>};
}
template SparseFeedForwardKernels<float> sparse_feed_forward_kernels<float>();
template SparseFeedForwardKernels<double> sparse_feed_forward_kernels<double>();

}  // namespace mt::MT_ISA
