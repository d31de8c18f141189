"""Activation functions: tanh, sigmoid, ReLU, GELU, SiLU, softplus."""

from __future__ import annotations

import functools

from .. import kernels
from ..function import ElementWise, xp
from ..graph import is_grad_enabled
from ..tensor import Tensor

__all__ = ["gelu", "relu", "sigmoid", "silu", "softplus", "tanh"]


class Tanh(ElementWise):
    """y = tanh x,   dx = dy (1 - y²)"""

    def forward(self, x):
        y = xp(x).tanh(x)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * (1 - y * y)


class Sigmoid(ElementWise):
    """y = 1/(1 + exp(-x)),   dx = dy y (1 - y)

    Computed from exp(-|x|), which overflows nowhere and keeps the digits of a small y.
    """

    def forward(self, x):
        y = _sigmoid(x)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * y * (1 - y)


def _sigmoid(x):
    np = xp(x)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e)) / (1 + e)


class ReLU(ElementWise):
    """y = max(x, 0),   dx = dy [x > 0]"""

    def forward(self, x):
        y = xp(x).maximum(x, x.dtype.type(0))
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * (y > 0).astype(dy.dtype)


class GELU(ElementWise):
    """y = x Φ(x), Φ(x) = (1 + erf(x/√2))/2,   dx = dy (Φ(x) + x φ(x)), φ(x) = exp(-x²/2)/√(2π)

    approximate="tanh": y = x (1 + tanh u)/2 with u = √(2/π)(x + 0.044715 x³),
        dx = dy ((1 + tanh u)/2 + x (1 - tanh² u) u'/2).
    Source: Hendrycks & Gimpel 2016; document D5 §4.3.
    """

    def forward(self, x, *, approximate="none"):
        self.approximate = approximate
        self.save(x)
        return kernels.gelu(x, approximate)

    def backward(self, dy):
        (x,) = self.saved
        return kernels.gelu_backward(dy, x, self.approximate)


class SiLU(ElementWise):
    """y = x σ(x),   dx = dy σ(x) (1 + x (1 - σ(x))),   σ the sigmoid.   Source: Elfwing et al. 2017."""

    def forward(self, x):
        self.save(x)
        return kernels.silu(x)

    def backward(self, dy):
        (x,) = self.saved
        return kernels.silu_backward(dy, x)


class Softplus(ElementWise):
    """y = ln(1 + exp x),   dx = dy σ(x)

    Computed as max(x, 0) + ln(1 + exp(-|x|)), which overflows nowhere.
    """

    def forward(self, x):
        self.save(x)
        np = xp(x)
        return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))

    def backward(self, dy):
        (x,) = self.saved
        return dy * _sigmoid(x)


def tanh(x) -> Tensor:
    """Hyperbolic tangent."""
    return Tanh.apply(x)


def sigmoid(x) -> Tensor:
    """1/(1 + exp(-x))"""
    return Sigmoid.apply(x)


def relu(x) -> Tensor:
    """max(x, 0)"""
    return ReLU.apply(x)


def gelu(x, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ the normal distribution function; approximate="tanh" for GPT-2's form."""
    return GELU.apply(x, approximate=approximate)


def silu(x) -> Tensor:
    """x σ(x), also called swish."""
    return SiLU.apply(x)


def softplus(x) -> Tensor:
    """ln(1 + exp x), a smooth ReLU."""
    return Softplus.apply(x)


BY_NAME = {"relu": relu, "gelu": gelu, "gelu_tanh": functools.partial(gelu, approximate="tanh"), "silu": silu}


def ended_by(activation, product, *inputs) -> Tensor:
    """f(product): the kernel ends with f where nobody differentiates; else f is a node of its own, whose gradient needs
    the input that a fused one would not have kept. product(name of f, or None) runs the op on `inputs`.
    """
    if activation is not None and activation not in tuple(BY_NAME):
        names = ", ".join(f'"{name}"' for name in BY_NAME)
        raise ValueError(f"activation must be None or one of {names}, got {activation!r}")
    differentiated = is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs)
    if activation is None or not differentiated:
        return product(activation)
    return BY_NAME[activation](product(None))
