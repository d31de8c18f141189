// Products of small matrices that are in the cache already, in place: neither operand is packed. For files compiled
// once per instruction set. (A product of large matrices packs first: matmul.cpp.)
//
// As in every product, it is a tile of sums in registers that keeps the FMA units busy: ROWS × COLUMNS of them, to
// which each k adds a column of a, number by number, times a row of b, register by register. So a may have any two
// strides, and b, whose rows are read by whole registers, is what one transposes where it lies the wrong way.
#pragma once
#include <utility>

#include "simd.hpp"

namespace mt::MT_ISA {

constexpr long ROWS = MT_WIDTH == 64 ? 12 : 6;  // 24 of 32 or 12 of 16 registers hold sums
template <class T> constexpr long COLUMNS = 2 * lanes<T>;

// ---------------------------------------------------------------- products

// c (R × columns) += a b:  a_ik = a[i row + k step],  b_kj = b[k b_row + j], of which COLUMNS can be read in every row.
template <class T, int R>
static void tile(long depth, const T* a, long row, long step, const T* b, long b_row, T* c, long c_row, long columns,
                 bool add) {
    constexpr int L = lanes<T>, bases = (R + 2) / 3;
    vec<T> sum[R][2] = {};
    const T* base[bases];  // base, base + row and base + 2 row are one addressing mode each: a third of the pointers
    for (int g = 0; g < bases; g++) base[g] = a + 3 * g * row;
    for (long k = 0; k < depth; k++, b += b_row) {
        const vec<T> b0 = load(b), b1 = load(b + L);
#pragma GCC unroll 12
        for (int i = 0; i < R; i++) {
            const vec<T> x = splat(base[i / 3][i % 3 * row]);
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
#pragma GCC unroll 4
        for (int g = 0; g < bases; g++) base[g] += step;
    }
    const int n0 = int(smaller(columns, long(L))), n1 = int(columns) - n0;
#pragma GCC unroll 12
    for (int i = 0; i < R; i++, c += c_row) {
        if (n1 == L) {
            store(c, add ? load(c) + sum[i][0] : sum[i][0]);
            store(c + L, add ? load(c + L) + sum[i][1] : sum[i][1]);
        } else {
            store_n<T>(c, add ? load_n<T>(c, n0) + sum[i][0] : sum[i][0], n0);
            store_n<T>(c + L, add ? load_n<T>(c + L, n1) + sum[i][1] : sum[i][1], n1);
        }
    }
}

template <class T, int R = ROWS>
MT_INLINE void tile_of_height(long rows, long depth, const T* a, long row, long step, const T* b, long b_row, T* c,
                              long c_row, long columns, bool add) {
    if (rows == R) return tile<T, R>(depth, a, row, step, b, b_row, c, c_row, columns, add);
    if constexpr (R > 1) tile_of_height<T, R - 1>(rows, depth, a, row, step, b, b_row, c, c_row, columns, add);
}

// The same for any number of rows and columns; without `add`, c = a b. Each row of b has round_up(columns, COLUMNS)
// readable numbers.
template <class T>
static void product(long rows, long columns, long depth, const T* a, long row, long step, const T* b, long b_row, T* c,
                    long c_row, bool add) {
    const long parts = divide_up(rows, ROWS);  // of nearly equal height: a low one would waste the FMA units
    for (long p = 0; p < parts; p++) {
        const long i = rows * p / parts, height = rows * (p + 1) / parts - i;
        for (long j = 0; j < columns; j += COLUMNS<T>)
            tile_of_height<T>(height, depth, a + i * row, row, step, b + j, b_row, c + i * c_row + j, c_row,
                              smaller(columns - j, COLUMNS<T>), add);
    }
}

// ---------------------------------------------------------------- moving rows

// In each square of 2S × 2S lanes the upper right quarter changes places with the lower left; then in the quarters, and
// so on.
template <class T, int S, int... lane>
MT_INLINE void exchange_quarters(vec<T>* r, std::integer_sequence<int, lane...> all) {
    constexpr int L = lanes<T>;
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
        if (i & S) continue;
        const vec<T> upper = r[i], lower = r[i + S];
        r[i] = __builtin_shufflevector(upper, lower, (lane & S ? L + lane - S : lane)...);
        r[i + S] = __builtin_shufflevector(upper, lower, (lane & S ? L + lane : lane + S)...);
    }
    if constexpr (S > 1) exchange_quarters<T, S / 2>(r, all);
}

// to_ji = factor from_ij, i < rows, j < columns. Without `exact` the rows of `to` are filled up with zeros to whole
// registers.
template <class T>
static void transpose(const T* from, long from_row, long rows, long columns, T* to, long to_row, T factor, bool exact) {
    constexpr int L = lanes<T>;
    constexpr auto all = std::make_integer_sequence<int, L>();
    for (long i = 0; i < rows; i += L)
        for (long j = 0; j < columns; j += L) {
            const int height = int(smaller(rows - i, long(L))), width = int(smaller(columns - j, long(L)));
            const T* p = from + i * from_row + j;
            T* t = to + j * to_row + i;
            vec<T> r[L];
            if (height == L && width == L) {
#pragma GCC unroll 16
                for (int n = 0; n < L; n++) r[n] = load(p + n * from_row) * factor;
                exchange_quarters<T, L / 2>(r, all);
#pragma GCC unroll 16
                for (int n = 0; n < L; n++) store(t + n * to_row, r[n]);
            } else {
#pragma GCC unroll 16
                for (int n = 0; n < L; n++) r[n] = n < height ? load_n<T>(p + n * from_row, width) * factor : vec<T>{};
                exchange_quarters<T, L / 2>(r, all);
#pragma GCC unroll 16
                for (int n = 0; n < L; n++)
                    if (n < width) store_n<T>(t + n * to_row, r[n], exact ? height : L);
            }
        }
}

// Rows that lie apart are not fetched ahead by the hardware: asks for the one that will be wanted some rows later. It
// may lie beyond the array, where a pointer must not point: so its address is a number.
template <class T> MT_INLINE void prefetch_ahead(const T* row, long step, long width) {
    constexpr long rows = 12, line = 64;
    const uintptr_t from = uintptr_t(row) + uintptr_t(rows * step * long(sizeof(T)));
    for (long at = 0; at < width * long(sizeof(T)); at += line)
        __builtin_prefetch(reinterpret_cast<const void*>(from + uintptr_t(at)));
}

// Rows side by side: as they are if they lie so, else copied to `space`. Rows that are a large power of two apart fall
// on the same few lines of the cache; a product reads such rows at 0.6 of its speed.
template <class T> static const T* compact(const T* from, long from_row, long rows, long width, T* space) {
    if (from_row == width) return from;
    for (long i = 0; i < rows; i++) {
        const T* row = from + i * from_row;
        T* to = space + i * width;
        prefetch_ahead(row, from_row, width);
        long j = 0;
        for (; j + lanes<T> <= width; j += lanes<T>) store(to + j, load(row + j));
        if (j < width) store_n<T>(to + j, load_n<T>(row + j, int(width - j)), int(width - j));
    }
    return space;
}

}  // namespace mt::MT_ISA
