"""Softmax and log-softmax."""

from __future__ import annotations

from .. import kernels
from ..function import Function
from ..tensor import Tensor

__all__ = ["log_softmax", "softmax"]


class Softmax(Function):
    """Normalised exponentials along one axis.

        y_i  = exp(x_i - max x) / Σ_j exp(x_j - max x)
        dx_i = y_i (dy_i - Σ_j dy_j y_j)

    Shapes: x (..., n) -> y (..., n).   Source: Bridle 1990; document D3 §1.1.
    """

    def forward(self, x, *, axis=-1):
        self.axis = axis
        y = kernels.softmax(x, axis)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return kernels.softmax_backward(dy, y, self.axis)


class LogSoftmax(Function):
    """Logarithm of the softmax, without forming it.

        y_i  = x_i - max x - ln Σ_j exp(x_j - max x)
        dx_i = dy_i - exp(y_i) Σ_j dy_j

    Shapes: x (..., n) -> y (..., n).
    """

    def forward(self, x, *, axis=-1):
        self.axis = axis
        y = kernels.log_softmax(x, axis)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return kernels.log_softmax_backward(dy, y, self.axis)


def softmax(x, axis=-1) -> Tensor:
    """exp(x) normalised to sum 1 along an axis."""
    return Softmax.apply(x, axis=axis)


def log_softmax(x, axis=-1) -> Tensor:
    """ln softmax(x) along an axis; finite where softmax underflows."""
    return LogSoftmax.apply(x, axis=axis)
