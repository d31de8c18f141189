"""Normalisation over the last axis: layer norm and RMS norm."""

from __future__ import annotations

from .. import kernels
from ..function import Function
from ..tensor import Tensor

__all__ = ["layer_norm", "rms_norm"]


class LayerNorm(Function):
    """Zero mean and unit variance over the last axis, then a learned scale and shift.

        h = (x - mean x) r,  r = 1/√(var x + ε),   y = h w + b
        dx = r (g - mean g - h mean(g h)),  g = dy w,   dw = Σ_rows dy h,   db = Σ_rows dy

    Shapes: x (..., D), w (D,), b (D,) or None -> y (..., D).   Source: Ba et al. 2016.
    """

    def forward(self, x, weight, bias, *, eps=1e-5):
        y, mean, rstd = kernels.layer_norm_forward(x, weight, bias, eps)
        self.save(x, weight, mean, rstd)
        return y

    def backward(self, dy):
        return kernels.layer_norm_backward(dy, *self.saved)


class RMSNorm(Function):
    """Unit root mean square over the last axis, then a learned scale.

        h = x r,  r = 1/√(mean x² + ε),   y = h w
        dx = r (g - h mean(g h)),  g = dy w,   dw = Σ_rows dy h

    Shapes: x (..., D), w (D,) -> y (..., D).   Source: Zhang & Sennrich 2019.
    """

    def forward(self, x, weight, *, eps=1e-5):
        y, rstd = kernels.rms_norm_forward(x, weight, eps)
        self.save(x, weight, rstd)
        return y

    def backward(self, dy):
        return kernels.rms_norm_backward(dy, *self.saved)


def layer_norm(x, weight, bias=None, eps=1e-5) -> Tensor:
    """Layer norm over the last axis: x (..., D), weight (D,), bias (D,) or None."""
    return LayerNorm.apply(x, weight, bias, eps=eps)


def rms_norm(x, weight, eps=1e-5) -> Tensor:
    """RMS norm over the last axis: x (..., D), weight (D,)."""
    return RMSNorm.apply(x, weight, eps=eps)
