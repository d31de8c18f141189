// nvcuda::wmma: products of small matrices by the 32 lanes of a warp together, which a GPU's tensor cores do.
//
// A fragment is a matrix of which each lane holds a 32nd; which elements is the hardware's secret, and here: element e
// of lane l is number 32 e + l of the matrix, row by row. A kernel may not rely on either.
// Products are exact, sums are float (int for bytes), in the order of k. A GPU adds in another order.
#pragma once
#include <cstdint>

#include "../warp.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static_assert(M * N == 256 && K == 16 && (M == 8 || M == 16 || M == 32), "wmma: 16x16x16, 32x8x16 or 8x32x16");
    static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M, columns = std::is_same_v<Use, matrix_a> ? K : N;
    static constexpr int num_elements = rows * columns / 32;
    T x[num_elements];
};

namespace detail {

using cuda_emulator::Place;
using cuda_emulator::Thread;
using cuda_emulator::Warp;

// The lanes meet, so that a missing lane is found; then each moves its own elements.
CUDA_EMULATOR_UNSEEN inline void nothing(Warp&, unsigned) {}

template <class Fragment, class Pointer, class Move>
inline void each(Fragment& fragment, Pointer memory, unsigned ld, bool by_rows, const char* name, Place at, Move move) {
    if (reinterpret_cast<uintptr_t>(memory) % 32)
        cuda_emulator::fail(at, std::string(name) + ": the address is not a multiple of 32 bytes");
    if (ld * sizeof(*memory) % 16)
        cuda_emulator::fail(at, std::string(name) + ": " + std::to_string(ld) +
                                    " elements from row to row are not a multiple of 16 bytes");
    cuda_emulator::exchange(nothing, cuda_emulator::all_lanes, 0, name, at);
    const int lane = cuda_emulator::lane_number();
    for (int e = 0; e < Fragment::num_elements; e++) {
        const size_t row = size_t(32 * e + lane) / Fragment::columns;
        const size_t column = size_t(32 * e + lane) % Fragment::columns;
        move(fragment.x[e], memory[by_rows ? row * ld + column : column * ld + row]);
    }
}

// What one lane brings to a product.
struct Operands {
    const void *a, *b, *c;
    void* d;
};

// d = a b + c of all lanes, by the last that comes: their fragments are on stacks that stand still.
template <class A, class B, class C> CUDA_EMULATOR_UNSEEN void multiply(Warp& warp, unsigned lanes) {
    using Sum = std::conditional_t<std::is_integral_v<std::remove_extent_t<decltype(C::x)>>, int, float>;
    constexpr int M = A::rows, N = B::columns, K = A::columns;
    Sum a[M * K] = {}, b[K * N] = {}, sums[M * N];
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        const auto* in = reinterpret_cast<const Operands*>(warp.lanes[l].given);
        // Copied before it is converted: a conversion is a function, which ThreadSanitizer sees reading another's stack.
        for (int e = 0; e < A::num_elements; e++) {
            const auto x = static_cast<const A*>(in->a)->x[e];
            a[32 * e + l] = Sum(x);
        }
        for (int e = 0; e < B::num_elements; e++) {
            const auto x = static_cast<const B*>(in->b)->x[e];
            b[32 * e + l] = Sum(x);
        }
        for (int e = 0; e < C::num_elements; e++) {
            const auto x = static_cast<const C*>(in->c)->x[e];
            sums[32 * e + l] = Sum(x);
        }
    }
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++)
            for (int n = 0; n < N; n++) sums[m * N + n] += a[m * K + k] * b[k * N + n];
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        auto* d = static_cast<C*>(reinterpret_cast<const Operands*>(warp.lanes[l].given)->d);
        for (int e = 0; e < C::num_elements; e++) d->x[e] = sums[32 * e + l];
    }
}

}  // namespace detail

template <class U, int M, int N, int K, class T, class L>
inline void fill_fragment(fragment<U, M, N, K, T, L>& f, std::type_identity_t<T> value) {
    for (T& x : f.x) x = value;
}

template <class U, int M, int N, int K, class T, class L>
inline void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const T* memory, unsigned ld,
                             detail::Place at = cuda_emulator::place()) {
    detail::each(f, memory, ld, std::is_same_v<L, row_major>, "load_matrix_sync", at, [](T& x, const T& y) { x = y; });
}
template <int M, int N, int K, class T>
inline void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* memory, unsigned ld, layout_t layout,
                             detail::Place at = cuda_emulator::place()) {
    detail::each(f, memory, ld, layout == mem_row_major, "load_matrix_sync", at, [](T& x, const T& y) { x = y; });
}
template <int M, int N, int K, class T>
inline void store_matrix_sync(T* memory, const fragment<accumulator, M, N, K, T>& f, unsigned ld, layout_t layout,
                              detail::Place at = cuda_emulator::place()) {
    detail::each(f, memory, ld, layout == mem_row_major, "store_matrix_sync", at, [](const T& x, T& y) { y = x; });
}

template <int M, int N, int K, class T, class LA, class LB, class C>
inline void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, T, LA>& a,
                     const fragment<matrix_b, M, N, K, T, LB>& b, const fragment<accumulator, M, N, K, C>& c,
                     detail::Place at = cuda_emulator::place()) {
    const detail::Operands operands{&a, &b, &c, &d};
    using A = fragment<matrix_a, M, N, K, T, LA>;
    using B = fragment<matrix_b, M, N, K, T, LB>;
    cuda_emulator::exchange(detail::multiply<A, B, fragment<accumulator, M, N, K, C>>, cuda_emulator::all_lanes,
                            reinterpret_cast<uintptr_t>(&operands), "mma_sync", at);
}

}  // namespace nvcuda::wmma
