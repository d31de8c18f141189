"""Matrix products. Sums of half-precision products are kept in float32 and rounded once, as tensor cores do."""

import numpy as np

from ..devices import xp
from .activation import activated


def _product(a, b):
    """a @ b in the dtype of a, accumulated in at least float32."""
    if a.dtype.itemsize >= 4:
        return xp(a).matmul(a, b)
    return xp(a).matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)


def matmul(a, b):
    """c_mn = Σ_k a_mk b_kn.   a (..., M, K), b (..., K, N) -> c (..., M, N), leading axes broadcast."""
    return _product(a, b)


def linear(x, weight, bias=None, activation=None):
    """y = f(x weightᵀ + bias).   x (..., K), weight (N, K), bias (N,) -> y (..., N)."""
    y = _product(x, weight.T)
    if bias is not None:
        y += bias
    return activated(y, activation)


def linear_backward(dy, x, weight, needs=(True, True, True)):
    """From y_rn = Σ_k x_rk w_nk + b_n, with the leading axes of x flattened to rows r:

    dx_rk = Σ_n dy_rn w_nk,   dw_nk = Σ_r dy_rn x_rk,   db_n = Σ_r dy_rn
    """
    needs_dx, needs_dweight, needs_dbias = needs
    N, K = weight.shape
    rows = dy.size // N if N else int(np.prod(x.shape[:-1]))
    dy_rows, x_rows = dy.reshape(rows, N), x.reshape(rows, K)
    dx = _product(dy, weight) if needs_dx else None
    dweight = _product(dy_rows.T, x_rows) if needs_dweight else None
    wide = np.promote_types(dy.dtype, np.float32)
    dbias = dy_rows.sum(axis=0, dtype=wide).astype(dy.dtype) if needs_dbias else None
    return dx, dweight, dbias
