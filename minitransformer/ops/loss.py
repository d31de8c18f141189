"""Losses between distributions and values: mean squared error and Kullback-Leibler divergence."""

from __future__ import annotations

from ..function import Function, xp
from ..kernels.precision import computed_in_float32
from ..tensor import Tensor

__all__ = ["kl_div", "mse_loss"]


class SquaredError(Function):
    """y = mean (a - b)²,   da = dy 2 (a - b)/n,   db = -da.   Shapes: a, b alike -> a number."""

    @computed_in_float32
    def forward(self, a, b):
        difference = a - b
        self.save(difference)
        return xp(a).mean(difference * difference)

    @computed_in_float32
    def backward(self, dy):
        (difference,) = self.saved
        da = difference * (dy * dy.dtype.type(2 / difference.size))
        return da, -da if self.needs[1] else None


class KLDivergence(Function):
    """y = Σ t (ln t - x) / rows, x log-probabilities and t probabilities over the last axis.

        dx = -dy t / rows,   dt = dy (ln t + 1 - x) / rows;   0 ln 0 is 0, and there dt is left at 0.

    Shapes: x (..., n), t (..., n) -> a number.
    """

    @computed_in_float32
    def forward(self, log_probabilities, target):
        np = xp(target)
        self.rows = target.dtype.type(max(1, target.size // target.shape[-1]))
        positive = target > 0
        ratio = np.where(
            positive, np.log(np.where(positive, target, target.dtype.type(1))) - log_probabilities, target.dtype.type(0)
        )
        self.save(target, ratio)
        return np.sum(target * ratio, dtype=target.dtype) / self.rows

    @computed_in_float32
    def backward(self, dy):
        target, ratio = self.saved
        each = dy / self.rows
        dt = each * (ratio + (target > 0).astype(target.dtype)) if self.needs[1] else None
        return -each * target, dt


def _alike(name, a, b):
    if tuple(a.shape) != tuple(b.shape):
        raise ValueError(f"{name}: shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    if not a.shape or 0 in a.shape:
        raise ValueError(f"{name}: nothing to average in shape {tuple(a.shape)}")


def mse_loss(a, b) -> Tensor:
    """Mean of (a - b)² over all elements."""
    _alike("mse_loss", a, b)
    return SquaredError.apply(a, b)


def kl_div(log_probabilities, target) -> Tensor:
    """KL(target ‖ exp(log_probabilities)), summed over the last axis and averaged over the rows. In nats."""
    _alike("kl_div", log_probabilities, target)
    return KLDivergence.apply(log_probabilities, target)
