#include "adamw.hpp"

#include "rows.hpp"
#include "threads.hpp"

namespace mt::MT_ISA {
namespace {

// Seven numbers go to or from memory for a dozen operations: the memory's speed is the limit, so everything happens in
// one pass.
template <class T> void step(long n, T* parameter, const T* gradient, T* m, T* v, AdamW hyper) {
    const T beta1 = T(hyper.beta1), rest1 = T(1 - hyper.beta1), beta2 = T(hyper.beta2), rest2 = T(1 - hyper.beta2);
    const T decay = T(1 - hyper.lr * hyper.weight_decay), rate = T(hyper.lr / hyper.correction1);
    const T unbias = T(1 / hyper.correction2), eps = T(hyper.eps);
    parallel_for(n, 8192, [=](long begin, long end) {
        T *p = parameter + begin, *first = m + begin, *second = v + begin;
        const T* gradients = gradient + begin;
        for_vectors<T>(end - begin, [=](long i, auto part) {
            const vec<T> g = part.get(gradients + i);
            const vec<T> mi = part.get(first + i) * beta1 + g * rest1;
            const vec<T> vi = part.get(second + i) * beta2 + g * g * rest2;
            part.put(first + i, mi);
            part.put(second + i, vi);
            part.put(p + i, part.get(p + i) * decay - rate * mi / (vsqrt(vi * unbias) + eps));
        });
    });
}

typedef float half_vector __attribute__((vector_size(MT_WIDTH / 2)));

MT_INLINE vec<double> load_wide(const double* p) { return load(p); }
MT_INLINE vec<double> load_wide(const float* p) {  // as many floats as there are doubles in a register
    half_vector x;
    __builtin_memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vec<double>);
}

template <class T> double squared_norm_of(long n, const T* x) {
    constexpr int wide = lanes<double>;
    vec<double> sum[4] = {};
    long i = 0;
    for (; i + 4 * wide <= n; i += 4 * wide)
        for (int k = 0; k < 4; k++) {
            const vec<double> a = load_wide(x + i + k * wide);
            sum[k] += a * a;
        }
    double last = 0;
    for (; i < n; i++) last += double(x[i]) * double(x[i]);
    return hsum((sum[0] + sum[1]) + (sum[2] + sum[3])) + last;
}

// Blocks whose borders depend on n alone, added up in order: the same bits for any number of threads.
template <class T> double squared_norm(long n, const T* x) {
    constexpr long most = 256;
    const long block = larger(divide_up(n, most), 32768L);
    double sums[most];
    parallel_for(n, block,
                 [&](long begin, long end) { sums[begin / block] = squared_norm_of(end - begin, x + begin); });
    double sum = 0;
    for (long b = 0; b * block < n; b++) sum += sums[b];
    return sum;
}

}  // namespace

template <class T> AdamWKernels<T> adamw_kernels() {
    return {step<T>, squared_norm<T>};
}
template AdamWKernels<float> adamw_kernels<float>();
template AdamWKernels<double> adamw_kernels<double>();

}  // namespace mt::MT_ISA
