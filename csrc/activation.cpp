#include "activated.hpp"
#include "rows.hpp"
#include "threads.hpp"

// Each is one pass: the numbers between x and y stay in registers. Backward recomputes them from x, which costs less
// than to keep them.

namespace mt::MT_ISA {
namespace {

template <class T, class Function> void map(long n, const T* x, T* y, Function f) {
    parallel_for(n, 16384, [=](long begin, long end) {
        const T* in = x + begin;
        T* out = y + begin;
        for_vectors<T>(end - begin, [=](long i, auto part) { part.put(out + i, f(part.get(in + i))); });
    });
}

template <class T, class Derivative> void map_backward(long n, const T* dy, const T* x, T* dx, Derivative f) {
    parallel_for(n, 16384, [=](long begin, long end) {
        const T *d = dy + begin, *in = x + begin;
        T* out = dx + begin;
        for_vectors<T>(end - begin,
                       [=](long i, auto part) { part.put(out + i, part.get(d + i) * f(part.get(in + i))); });
    });
}

template <class T> void gelu(long n, const T* x, T* y) {
    map(n, x, y, [](vec<T> a) { return vgelu<T>(a); });
}
template <class T> void gelu_backward(long n, const T* dy, const T* x, T* dx) {
    map_backward(n, dy, x, dx, [](vec<T> a) {
        vec<T> cdf, pdf;
        vnormal(a, cdf, pdf);
        return cdf + a * pdf;
    });
}

// σ(a) and 1 - σ(a) from exp(-|a|), which cannot overflow, both to the last digits
template <class T> MT_INLINE void sigmoid(vec<T> a, vec<T>& value, vec<T>& rest) {
    const vec<T> e = vexp(-vabs(a)), large = T(1) / (T(1) + e), small = e * large;
    value = a < T(0) ? small : large;
    rest = a < T(0) ? large : small;
}

template <class T> void gelu_tanh(long n, const T* x, T* y) {
    map(n, x, y, [](vec<T> a) { return vgelu_tanh<T>(a); });
}
template <class T> void gelu_tanh_backward(long n, const T* dy, const T* x, T* dx) {
    map_backward(n, dy, x, dx, [](vec<T> a) {
        const vec<T> square = cubic<T> * a * a;
        vec<T> s, rest;
        sigmoid<T>(slope<T> * a * (T(1) + square), s, rest);
        return s * (T(1) + a * rest * slope<T> * (T(1) + T(3) * square));
    });
}

template <class T> void silu(long n, const T* x, T* y) {
    map(n, x, y, [](vec<T> a) { return vsilu<T>(a); });
}
template <class T> void silu_backward(long n, const T* dy, const T* x, T* dx) {
    map_backward(n, dy, x, dx, [](vec<T> a) {
        vec<T> s, rest;
        sigmoid<T>(a, s, rest);
        return s * (T(1) + a * rest);
    });
}

}  // namespace

template <class T> ActivationKernels<T> activation_kernels() {
    return {gelu<T>, gelu_tanh<T>, silu<T>, gelu_backward<T>, gelu_tanh_backward<T>, silu_backward<T>};
}
template ActivationKernels<float> activation_kernels<float>();
template ActivationKernels<double> activation_kernels<double>();

}  // namespace mt::MT_ISA
