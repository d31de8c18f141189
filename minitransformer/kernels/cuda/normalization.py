"""Layer norm and RMS norm over the last axis: csrc/cuda/normalization.cu."""

import numpy as np

from ..devices import xp
from .launch import empty, kernel, packed, teams, wide

SHARE = 256  # rows that a block of the column sums adds up, at least


def layer_norm_forward(x, weight, bias, eps):
    x, weight, bias = packed(x), packed(weight), None if bias is None else packed(bias)
    y, mean, rstd = empty(x), empty(x, x.shape[:-1]), empty(x, x.shape[:-1])
    if not x.size:
        return y, xp(x).zeros_like(mean), xp(x).full_like(rstd, float(eps) ** -0.5)
    rows, n = mean.size, x.shape[-1]
    run = kernel("normalization", "layer_norm_forward", x)
    run(*teams(rows, n), (x, weight, bias, y, mean, rstd, np.int64(rows), np.int32(n), wide(x).type(eps)))
    return y, mean, rstd


def layer_norm_backward(dy, x, weight, mean, rstd):
    return _backward(packed(dy), packed(x), packed(weight), packed(mean), packed(rstd))


def rms_norm_forward(x, weight, eps):
    x, weight = packed(x), packed(weight)
    y, rstd = empty(x), empty(x, x.shape[:-1])
    if not x.size:
        return y, xp(x).full_like(rstd, float(eps) ** -0.5)
    rows, n = rstd.size, x.shape[-1]
    run = kernel("normalization", "rms_norm_forward", x)
    run(*teams(rows, n), (x, weight, y, rstd, np.int64(rows), np.int32(n), wide(x).type(eps)))
    return y, rstd


def rms_norm_backward(dy, x, weight, rstd):
    return _backward(packed(dy), packed(x), packed(weight), None, packed(rstd))[:2]


def _backward(dy, x, weight, mean, rstd):
    dx, n = empty(x), x.shape[-1]
    if not x.size:
        return dx, xp(x).zeros(n, dtype=x.dtype), xp(x).zeros(n, dtype=x.dtype)
    rows = x.size // n
    sizes = np.int64(rows), np.int32(n)
    kernel("normalization", "norm_backward", x)(*teams(rows, n), (dy, x, weight, mean, rstd, dx, *sizes))
    shares = min(-(-rows // SHARE), 64)
    dweight, dbias = (empty(x, (shares, n), wide(x)) for _ in range(2))
    columns = kernel("normalization", "norm_backward_columns", x)
    columns((-(-n // 32), shares), (32, 8), (dy, x, mean, rstd, dweight, dbias, *sizes))
    return dx, dweight.sum(axis=0).astype(x.dtype), dbias.sum(axis=0).astype(x.dtype)
