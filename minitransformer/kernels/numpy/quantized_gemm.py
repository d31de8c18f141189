"""The product with a quantised weight. Integer sums are exact, so every implementation finds the same ones."""

import ml_dtypes
import numpy as np

from ..devices import device, device_of, xp
from .activation import activated


def _wide(dtype):
    """float64 for float64, else float32: what sums are kept in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def quantize_rows(x, scale=None):
    """codes = round(x · (1/scale)), ties to even, within ±127; scale = max |x| / 127 of each row unless it is given.

    Worked out in float32 whatever the dtype of x, by operations that IEEE 754 rounds exactly: the same codes
    everywhere.
    """
    with np.errstate(all="ignore"):
        x = x.astype(np.float32)
        largest = np.abs(x).max(-1) if x.shape[-1] else xp(x).zeros(x.shape[:-1], np.float32)
        scales = largest / np.float32(127) if scale is None else xp(x).full(x.shape[:-1], scale, np.float32)
        scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(0), scales)  # its inverse might be infinite
        scales = np.where(np.isfinite(largest), scales, np.float32(np.nan))
        usable = (scales > 0)[..., None]
        codes = np.rint(x * (1 / np.where(scales > 0, scales, np.float32(1)))[..., None]).clip(-127, 127)
        return np.where(usable, codes, 0).astype(np.int8), scales


def quantized_gemm(x, weight, bias=None, activation=None, inputs="float", input_scale=None):
    """y = f(x Wᵀ + bias), W = weight.dequantize(); with inputs="int8" x is rounded to int8 first:

    y_mn = f(s_m Σ_g (d_ng Σ_{k in g} q_mk c_nk + b_ng Σ_{k in g} q_mk) + bias_n),
    q and s from `quantize_rows`, c, d and b the integers, scales and minima of `weight.decode()`.
    """
    wide = _wide(x.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if inputs == "float":
            y = x.astype(wide) @ _beside(x, weight.dequantize(wide)).T
        else:
            codes, row_scales = quantize_rows(x, input_scale)
            y = _integer_product(codes, weight, wide) * row_scales.astype(wide)[..., None]
        if bias is not None:
            y = y + bias.astype(wide)
    return activated(y, activation).astype(x.dtype)


def _integer_product(codes, weight, wide):
    integers, scales, minima = (_beside(codes, part) for part in weight.decode())
    N, groups, group = integers.shape
    y = xp(codes).zeros((*codes.shape[:-1], N), wide)
    for g in range(groups):
        # Integers in float64, where they are exact up to 2⁵³, so that BLAS can multiply them.
        q = codes[..., g * group : (g + 1) * group].astype(np.float64)
        y += (q @ integers[:, g].T.astype(np.float64)).astype(wide) * scales[:, g].astype(wide)
        if minima is not None:
            y += q.sum(-1, keepdims=True).astype(wide) * minima[:, g].astype(wide)
    return y


def _beside(x, part):
    """A part of the weight, whose bytes the computer's own memory holds, where x lives."""
    return None if part is None else device(device_of(x)).put(part)


def matmul_bfloat16(a, b):
    """c = a b of a and b rounded to bfloat16: their products are exact in float32, where they are added up."""
    wide = _wide(a.dtype)
    rounded = (x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(wide) for x in (a, b))
    return np.matmul(*rounded).astype(a.dtype)
