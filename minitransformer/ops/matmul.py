"""Matrix products: matmul (batched, broadcast) and linear."""

from __future__ import annotations

from .. import kernels
from ..function import Function, unbroadcast
from ..tensor import Tensor
from .activation import ended_by

__all__ = ["linear", "matmul"]


class MatMul(Function):
    """c = a b over the last two axes,   da = dc bᵀ,   db = aᵀ dc   (summed over broadcast leading axes)

    Shapes: a (..., M, K), b (..., K, N) -> c (..., M, N).
    """

    def forward(self, a, b):
        self.save(a, b)
        return kernels.matmul(a, b)

    def backward(self, dc):
        a, b = self.saved
        da = unbroadcast(kernels.matmul(dc, b.mT), a.shape) if self.needs[0] else None
        db = unbroadcast(kernels.matmul(a.mT, dc), b.shape) if self.needs[1] else None
        return da, db


class Linear(Function):
    """y = x Wᵀ + b,   dx = dy W,   dW = dyᵀ x,   db = Σ_rows dy

    Shapes: x (..., K), W (N, K), b (N,) or None -> y (..., N). An activation is for where there is no backward.
    """

    def forward(self, x, weight, bias, *, activation=None):
        self.save(x, weight)
        # A kernel of one's own need not know what it is not asked for.
        ended = () if activation is None else (activation,)
        return kernels.linear(x, weight, bias, *ended)

    def backward(self, dy):
        x, weight = self.saved
        return kernels.linear_backward(dy, x, weight, self.needs)


def matmul(a, b) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast. A vector stands for a row (left) or column (right).

    (..., M, K) @ (..., K, N) -> (..., M, N). Raises ValueError where the shapes do not fit.
    """
    a, b = (x if isinstance(x, Tensor) else Tensor(x) for x in (a, b))
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul: a number has no axes to multiply over; use *")
    row, column = a.ndim == 1, b.ndim == 1
    c = MatMul.apply(a.reshape(1, -1) if row else a, b.reshape(-1, 1) if column else b)
    if row or column:
        kept = c.shape[:-2] + (() if row else c.shape[-2:-1]) + (() if column else c.shape[-1:])
        c = c.reshape(*kept)
    return c


def linear(x, weight, bias=None, activation=None) -> Tensor:
    """f(x Wᵀ + b): x (..., K), weight (N, K), bias (N,) or None -> (..., N); f None, "relu", "gelu", "gelu_tanh" or
    "silu", part of the product where no gradient is recorded."""
    return ended_by(activation, lambda f: Linear.apply(x, weight, bias, activation=f), x, weight, bias)
