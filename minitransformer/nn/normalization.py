"""Normalisation layers."""

from __future__ import annotations

from ..ops.normalization import layer_norm, rms_norm
from .initialization import ones, zeros
from .module import Module, Parameter, check_size

__all__ = ["LayerNorm", "RMSNorm"]


class LayerNorm(Module):
    """y = (x - mean x) / √(var x + ε) · w + b over the last axis: x (..., D), w, b (D,).   Source: Ba et al. 2016."""

    def __init__(self, width: int, eps: float = 1e-5, bias: bool = True):
        check_size("LayerNorm", width=width)
        self.eps = eps
        self.weight = Parameter(ones(width))
        self.bias = Parameter(zeros(width)) if bias else None

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.weight.size}" + ("" if self.bias is not None else ", bias=False")


class RMSNorm(Module):
    """y = x / √(mean x² + ε) · w over the last axis: x (..., D), w (D,).   Source: Zhang & Sennrich 2019."""

    def __init__(self, width: int, eps: float = 1e-5):
        check_size("RMSNorm", width=width)
        self.eps = eps
        self.weight = Parameter(ones(width))

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self):
        return f"{self.weight.size}"
