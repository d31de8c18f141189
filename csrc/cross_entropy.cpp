#include "cross_entropy.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Two passes over each row of logits forward (maximum, sum) and one backward. Probabilities are never stored: from lse
// they are one exp away. A row of 50,000 floats stays in the L2 cache between the passes.

namespace mt::MT_ISA {
namespace {

template <class T> void forward(long rows, long width, const T* logits, Targets targets, T* losses, T* lse) {
    parallel_for(rows, rows_per_chunk(width), [=](long begin, long end) {
        const T smoothing = T(targets.smoothing), certain = T(1 - targets.smoothing);
        for (long r = begin; r < end; r++) {
            const T* x = logits + r * width;
            const T top = max_of_row(x, width);
            const T log_sum = log_of(sum_vectors<T>(width, [=](long i, auto part) {
                return vexp(part.get(x + i, -T(__builtin_inf())) - top);
            }));
            lse[r] = top + log_sum;
            if (targets.index[r] == targets.ignored) {
                losses[r] = 0;
                continue;
            }
            T loss = log_sum - certain * (x[targets.index[r]] - top);
            if (smoothing != 0)  // else an x of -inf would make 0 · mean(x) NaN
                loss -= smoothing *
                        (sum_vectors<T>(width, [=](long i, auto part) { return part.get(x + i, top) - top; }) / width);
            losses[r] = loss;
        }
    });
}

template <class T>
void backward(long rows, long width, const T* dlosses, const T* logits, Targets targets, const T* lse, T* dlogits) {
    parallel_for(rows, rows_per_chunk(width), [=](long begin, long end) {
        const T uniform = T(targets.smoothing / width), certain = T(1 - targets.smoothing);
        for (long r = begin; r < end; r++) {
            T* dx = dlogits + r * width;
            if (targets.index[r] == targets.ignored) {
                __builtin_memset(dx, 0, sizeof(T) * width);
                continue;
            }
            const T *x = logits + r * width, d = dlosses[r], l = lse[r];
            for_vectors<T>(width,
                           [=](long i, auto part) { part.put(dx + i, d * (vexp(part.get(x + i) - l) - uniform)); });
            dx[targets.index[r]] -= d * certain;
        }
    });
}

}  // namespace

template <class T> CrossEntropyKernels<T> cross_entropy_kernels() {
    return {forward<T>, backward<T>};
}
template CrossEntropyKernels<float> cross_entropy_kernels<float>();
template CrossEntropyKernels<double> cross_entropy_kernels<double>();

}  // namespace mt::MT_ISA
