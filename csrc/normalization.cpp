#include "normalization.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Both norms are one loop: RMS norm is layer norm that leaves the mean where it is (`centred` = false: mean 0, no
// dbias).

namespace mt::MT_ISA {
namespace {

MT_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
MT_INLINE double square_root(double x) { return __builtin_sqrt(x); }

template <class T, bool centred>
void forward(long rows, long width, const T* x, const T* weight, const T* bias, double eps, T* y, T* mean, T* rstd) {
    parallel_for(rows, rows_per_chunk(width), [=](long begin, long end) {
        const T n = T(larger(width, 1L));
        for (long r = begin; r < end; r++) {
            const T* in = x + r * width;
            T* out = y + r * width;
            T m = 0;
            if constexpr (centred)
                mean[r] = m = sum_vectors<T>(width, [=](long i, auto part) { return part.get(in + i); }) / n;
            // The row is in the L1 cache by now: a second pass for the variance costs next to nothing and does not
            // cancel.
            const T squares = sum_vectors<T>(width, [=](long i, auto part) {
                vec<T> c = part.get(in + i, m) - m;
                return c * c;
            });
            const T s = rstd[r] = 1 / square_root(squares / n + T(eps));
            if (bias)
                for_vectors<T>(width, [=](long i, auto part) {
                    part.put(out + i, (part.get(in + i) - m) * s * part.get(weight + i) + part.get(bias + i));
                });
            else
                for_vectors<T>(width, [=](long i, auto part) {
                    part.put(out + i, (part.get(in + i) - m) * s * part.get(weight + i));
                });
        }
    });
}

// `count` rows together, so that dweight and dbias are read and written once for all of them.
template <class T, bool centred, int count>
void backward_rows(long r, long width, const T* dy, const T* x, const T* weight, const T* mean, const T* rstd, T* dx,
                   T* dweight, T* dbias) {
    T m[count], s[count];
    vec<T> sum_g[count] = {}, sum_gh[count] = {};
    for (int k = 0; k < count; k++) m[k] = centred ? mean[r + k] : T(0), s[k] = rstd[r + k];
    const T *dy_r = dy + r * width, *x_r = x + r * width;
    for_vectors<T>(width, [&](long i, auto part) __attribute__((always_inline)) {
        const vec<T> w = part.get(weight + i);
        vec<T> dw = part.get(dweight + i), db = {};
        if constexpr (centred) db = part.get(dbias + i);
        for (int k = 0; k < count; k++) {
            const vec<T> d = part.get(dy_r + k * width + i), h = (part.get(x_r + k * width + i) - m[k]) * s[k],
                         g = d * w;
            dw += d * h;
            db += d;
            sum_g[k] += g;
            sum_gh[k] += g * h;
        }
        part.put(dweight + i, dw);
        if constexpr (centred) part.put(dbias + i, db);
    });
    for (int k = 0; k < count; k++) {
        const T mean_g = centred ? hsum(sum_g[k]) / width : T(0), mean_gh = hsum(sum_gh[k]) / width, mk = m[k],
                sk = s[k];
        const T *d = dy_r + k * width, *in = x_r + k * width;
        T* out = dx + (r + k) * width;
        for_vectors<T>(width, [=](long i, auto part) {
            const vec<T> h = (part.get(in + i) - mk) * sk;
            part.put(out + i, (part.get(d + i) * part.get(weight + i) - mean_g - h * mean_gh) * sk);
        });
    }
}

template <class T, bool centred>
void backward(long rows, long width, const T* dy, const T* x, const T* weight, const T* mean, const T* rstd, T* dx,
              T* dweight, T* dbias, T* partial) {
    constexpr long sums = centred ? 2 : 1;
    const long per_block = rows_per_norm_block(rows), blocks = norm_blocks(rows);
    // Blocks may be small: several of them make a piece of work.
    parallel_for(blocks, larger(rows_per_chunk(width) / per_block, 1L), [=](long begin, long end) {
        for (long b = begin; b < end; b++) {
            T* dw = partial + b * sums * width;
            T* db = dw + (sums - 1) * width;
            __builtin_memset(dw, 0, sizeof(T) * sums * width);
            const long last = smaller((b + 1) * per_block, rows);
            long r = b * per_block;
            for (; r + 4 <= last; r += 4) backward_rows<T, centred, 4>(r, width, dy, x, weight, mean, rstd, dx, dw, db);
            for (; r < last; r++) backward_rows<T, centred, 1>(r, width, dy, x, weight, mean, rstd, dx, dw, db);
        }
    });
    for_vectors<T>(width, [=](long i, auto part) {
        vec<T> dw = {}, db = {};
        for (long b = 0; b < blocks; b++) {
            dw += part.get(partial + b * sums * width + i);
            if constexpr (centred) db += part.get(partial + (b * sums + 1) * width + i);
        }
        part.put(dweight + i, dw);
        if constexpr (centred) part.put(dbias + i, db);
    });
}

template <class T> void rms_norm(long rows, long width, const T* x, const T* weight, double eps, T* y, T* rstd) {
    forward<T, false>(rows, width, x, weight, nullptr, eps, y, nullptr, rstd);
}

template <class T>
void rms_norm_backward(long rows, long width, const T* dy, const T* x, const T* weight, const T* rstd, T* dx,
                       T* dweight, T* partial) {
    backward<T, false>(rows, width, dy, x, weight, nullptr, rstd, dx, dweight, nullptr, partial);
}

}  // namespace

template <class T> NormalizationKernels<T> normalization_kernels() {
    return {forward<T, true>, rms_norm<T>, backward<T, true>, rms_norm_backward<T>};
}
template NormalizationKernels<float> normalization_kernels<float>();
template NormalizationKernels<double> normalization_kernels<double>();

}  // namespace mt::MT_ISA
