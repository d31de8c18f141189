#include "softmax.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Along the last axis the vectors lie in the row; along any other axis they lie across it, `lanes` neighbouring lines
// at a time, so that no axis needs a transposed copy. A line stays in the cache between its passes.

namespace mt::MT_ISA {
namespace {

// row(offset) for each line of the last axis, or columns(offset, part) for each group of `lanes` lines of another axis
template <class T, class Row, class Columns> void each_line(AxisView s, Row row, Columns columns) {
    if (s.inner == 1) {
        parallel_for(s.outer, rows_per_chunk(s.n), [&](long begin, long end) {
            for (long r = begin; r < end; r++) row(r * s.n);
        });
        return;
    }
    const long groups = divide_up(s.inner, lanes<T>);
    parallel_for(s.outer * groups, rows_per_chunk(s.n * lanes<T>), [&](long begin, long end) {
        for (long g = begin; g < end; g++) {
            const long column = g % groups * lanes<T>, offset = g / groups * s.n * s.inner + column;
            if (column + lanes<T> <= s.inner)
                columns(offset, WholeVector<T>{});
            else
                columns(offset, PartOfVector<T>{int(s.inner - column)});
        }
    });
}

template <class T> void softmax(AxisView s, const T* x, T* y) {
    const long step = s.inner, end = s.n * s.inner;
    each_line<T>(
        s,
        [=](long at) {
            const T top = max_of_row(x + at, s.n);
            const T sum = sum_vectors<T>(s.n, [=](long i, auto part) {
                vec<T> e = vexp(part.get(x + at + i, -T(__builtin_inf())) - top);
                part.put(y + at + i, e);
                return e;
            });
            const T scale = 1 / sum;
            for_vectors<T>(s.n, [=](long i, auto part) { part.put(y + at + i, part.get(y + at + i) * scale); });
        },
        [=](long at, auto part) {
            vec<T> top = splat<T>(-T(__builtin_inf())), sum = {};
            for (long i = at; i < at + end; i += step) top = vmax(part.get(x + i), top);
            for (long i = at; i < at + end; i += step) {
                vec<T> e = vexp(part.get(x + i) - top);
                part.put(y + i, e);
                sum += e;
            }
            const vec<T> scale = T(1) / sum;
            for (long i = at; i < at + end; i += step) part.put(y + i, part.get(y + i) * scale);
        });
}

template <class T> void softmax_backward(AxisView s, const T* dy, const T* y, T* dx) {
    const long step = s.inner, end = s.n * s.inner;
    each_line<T>(
        s,
        [=](long at) {
            const T dot =
                sum_vectors<T>(s.n, [=](long i, auto part) { return part.get(dy + at + i) * part.get(y + at + i); });
            for_vectors<T>(s.n, [=](long i, auto part) {
                part.put(dx + at + i, part.get(y + at + i) * (part.get(dy + at + i) - dot));
            });
        },
        [=](long at, auto part) {
            vec<T> dot = {};
            for (long i = at; i < at + end; i += step) dot += part.get(dy + i) * part.get(y + i);
            for (long i = at; i < at + end; i += step) part.put(dx + i, part.get(y + i) * (part.get(dy + i) - dot));
        });
}

template <class T> void log_softmax(AxisView s, const T* x, T* y) {
    const long step = s.inner, end = s.n * s.inner;
    each_line<T>(
        s,
        [=](long at) {
            const T top = max_of_row(x + at, s.n);
            const T log_sum = log_of(sum_vectors<T>(s.n, [=](long i, auto part) {
                return vexp(part.get(x + at + i, -T(__builtin_inf())) - top);
            }));
            for_vectors<T>(s.n, [=](long i, auto part) { part.put(y + at + i, part.get(x + at + i) - top - log_sum); });
        },
        [=](long at, auto part) {
            vec<T> top = splat<T>(-T(__builtin_inf())), sum = {};
            for (long i = at; i < at + end; i += step) top = vmax(part.get(x + i), top);
            for (long i = at; i < at + end; i += step) sum += vexp(part.get(x + i) - top);
            for (int k = 0; k < lanes<T>; k++) sum[k] = log_of(sum[k]);
            for (long i = at; i < at + end; i += step) part.put(y + i, part.get(x + i) - top - sum);
        });
}

template <class T> void log_softmax_backward(AxisView s, const T* dy, const T* y, T* dx) {
    const long step = s.inner, end = s.n * s.inner;
    each_line<T>(
        s,
        [=](long at) {
            const T sum = sum_vectors<T>(s.n, [=](long i, auto part) { return part.get(dy + at + i); });
            for_vectors<T>(s.n, [=](long i, auto part) {
                part.put(dx + at + i, part.get(dy + at + i) - vexp(part.get(y + at + i)) * sum);
            });
        },
        [=](long at, auto part) {
            vec<T> sum = {};
            for (long i = at; i < at + end; i += step) sum += part.get(dy + i);
            for (long i = at; i < at + end; i += step) part.put(dx + i, part.get(dy + i) - vexp(part.get(y + i)) * sum);
        });
}

}  // namespace

template <class T> SoftmaxKernels<T> softmax_kernels() {
    return {softmax<T>, softmax_backward<T>, log_softmax<T>, log_softmax_backward<T>};
}
template SoftmaxKernels<float> softmax_kernels<float>();
template SoftmaxKernels<double> softmax_kernels<double>();

}  // namespace mt::MT_ISA
