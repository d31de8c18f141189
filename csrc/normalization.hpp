// Layer norm and RMS norm over rows of `width` numbers.
#pragma once
#include "dispatch.hpp"
#include "integers.hpp"

namespace mt {

// dweight and dbias are sums over all rows: each block of rows makes a partial sum, and these are added in order. The
// blocks depend on the number of rows alone, so that the result does not depend on the number of threads.
inline constexpr long most_norm_blocks = 64;
constexpr long rows_per_norm_block(long rows) {
    return rows / most_norm_blocks < 16 ? 16 : divide_up(rows, most_norm_blocks);
}
constexpr long norm_blocks(long rows) { return divide_up(rows, rows_per_norm_block(rows)); }

template <class T> struct NormalizationKernels {
    // bias may be nullptr
    void (*layer_norm)(long rows, long width, const T* x, const T* weight, const T* bias, double eps, T* y, T* mean,
                       T* rstd);
    void (*rms_norm)(long rows, long width, const T* x, const T* weight, double eps, T* y, T* rstd);
    // partial: room for 2 norm_blocks(rows) width numbers (half of that for rms_norm)
    void (*layer_norm_backward)(long rows, long width, const T* dy, const T* x, const T* weight, const T* mean,
                                const T* rstd, T* dx, T* dweight, T* dbias, T* partial);
    void (*rms_norm_backward)(long rows, long width, const T* dy, const T* x, const T* weight, const T* rstd, T* dx,
                              T* dweight, T* partial);
};

MT_KERNELS(NormalizationKernels, normalization_kernels)

}  // namespace mt
