"""Reductions: sum, mean, max, min, variance, logsumexp, and the cumulative sum.

Half precision is added up in float32 and rounded once. Integers and masks add up, and average, as in NumPy.
"""

from __future__ import annotations

from math import inf, prod
from numbers import Integral

from ..function import Function, total, xp
from ..kernels.precision import computed_in_float32
from ..tensor import Tensor

__all__ = ["cumsum", "logsumexp", "max", "mean", "min", "sum", "var"]


def _axes(x, axis) -> tuple[int, ...]:
    """The axes to reduce over, as a sorted tuple of non-negative numbers; None means all."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, Integral) else axis
    for a in axes:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"axis {a} is out of range for shape {x.shape}")
    axes = tuple(sorted(a % x.ndim for a in axes))
    if len(set(axes)) < len(axes):
        raise ValueError(f"an axis stands twice in {axis}")
    return axes


class _Reduction(Function, abstract=True):
    def _start(self, x, axis):
        self.shape, self.axes = x.shape, axis
        self.count = prod(x.shape[a] for a in axis)

    def _spread(self, y):
        """Give the reduced axes back with length 1, so that y broadcasts against x."""
        return y.reshape(tuple(1 if i in self.axes else n for i, n in enumerate(self.shape)))


class Sum(_Reduction):
    """y = Σ x,   dx = dy on every summed element"""

    def forward(self, x, *, axis, keepdims):
        self._start(x, axis)
        return total(x, axis, keepdims)

    def backward(self, dy):
        return xp(dy).broadcast_to(self._spread(dy), self.shape)


class Mean(_Reduction):
    """y = Σ x / n,   dx = dy / n"""

    @computed_in_float32
    def forward(self, x, *, axis, keepdims):
        self._start(x, axis)
        if self.count == 0:
            raise ValueError(f"mean: nothing to average over axes {axis} of shape {x.shape}")
        return xp(x).mean(x, axis=axis, keepdims=keepdims)

    @computed_in_float32
    def backward(self, dy):
        return xp(dy).broadcast_to(self._spread(dy / dy.dtype.type(self.count)), self.shape)


class _Extremum(_Reduction, abstract=True):
    @computed_in_float32
    def backward(self, dy):
        x, y = self.saved
        chosen = (x == self._spread(y)).astype(dy.dtype)
        return chosen * (self._spread(dy) / xp(dy).sum(chosen, axis=self.axes, keepdims=True, dtype=dy.dtype))


class Max(_Extremum):
    """y = max x,   dx = dy [x = y] / (number of elements equal to y): a tie shares the gradient evenly"""

    def forward(self, x, *, axis, keepdims):
        self._start(x, axis)
        y = xp(x).max(x, axis=axis, keepdims=keepdims)
        self.save(x, y)
        return y


class Min(_Extremum):
    """y = min x,   dx = dy [x = y] / (number of elements equal to y): a tie shares the gradient evenly"""

    def forward(self, x, *, axis, keepdims):
        self._start(x, axis)
        y = xp(x).min(x, axis=axis, keepdims=keepdims)
        self.save(x, y)
        return y


class Variance(_Reduction):
    """y = Σ (x - mean)² / (n - c),   dx = dy 2 (x - mean) / (n - c),   c = correction (1: unbiased, 0: population)"""

    @computed_in_float32
    def forward(self, x, *, axis, correction, keepdims):
        self._start(x, axis)
        self.divisor = self.count - correction
        if self.divisor <= 0:
            raise ValueError(f"var: {self.count} element(s) are too few for correction={correction}")
        centred = x - xp(x).mean(x, axis=axis, keepdims=True)
        self.save(centred)
        return xp(x).sum(centred * centred, axis=axis, keepdims=keepdims) / self.divisor

    @computed_in_float32
    def backward(self, dy):
        (centred,) = self.saved
        return self._spread(dy * 2 / self.divisor) * centred


class LogSumExp(_Reduction):
    """y = ln Σ exp x,   dx = dy exp(x - y)"""

    @computed_in_float32
    def forward(self, x, *, axis, keepdims):
        self._start(x, axis)
        np = xp(x)
        highest = np.max(x, axis=axis, keepdims=True)
        highest = np.where(np.isfinite(highest), highest, 0)
        mass = np.sum(np.exp(x - highest), axis=axis, keepdims=True)
        nothing = mass == 0  # a slice of -inf: the logarithm of nothing, with no gradient
        y = np.where(nothing, -inf, np.log(np.where(nothing, 1, mass)) + highest)
        self.save(x, np.where(nothing, 0, y))
        return y if keepdims else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axis))

    @computed_in_float32
    def backward(self, dy):
        x, y = self.saved  # y with its reduced axes kept
        return self._spread(dy) * xp(x).exp(x - y)


class CumulativeSum(Function):
    """y_i = Σ_{j <= i} x_j,   dx_i = Σ_{j >= i} dy_j   along one axis"""

    @computed_in_float32
    def forward(self, x, *, axis):
        self.axis = axis
        return xp(x).cumsum(x, axis=axis)

    @computed_in_float32
    def backward(self, dy):
        np = xp(dy)
        return np.flip(np.cumsum(np.flip(dy, axis=self.axis), axis=self.axis), axis=self.axis)


def sum(x, axis=None, keepdims=False) -> Tensor:
    """Sum over an axis, several axes, or (None) all of them."""
    return Sum.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def mean(x, axis=None, keepdims=False) -> Tensor:
    """Mean over an axis, several axes, or (None) all of them. Raises ValueError where there is nothing to average."""
    return Mean.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def max(x, axis=None, keepdims=False) -> Tensor:
    """Largest value over an axis, several axes, or (None) all of them."""
    return Max.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def min(x, axis=None, keepdims=False) -> Tensor:
    """Smallest value over an axis, several axes, or (None) all of them."""
    return Min.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def var(x, axis=None, correction=1, keepdims=False) -> Tensor:
    """Variance with divisor n - correction."""
    return Variance.apply(x, axis=_axes(x, axis), correction=correction, keepdims=keepdims)


def logsumexp(x, axis=None, keepdims=False) -> Tensor:
    """ln Σ exp x without overflow; -inf for a slice of -inf."""
    return LogSumExp.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def cumsum(x, axis) -> Tensor:
    """Running sum along one axis."""
    return CumulativeSum.apply(x, axis=_axes(x, axis)[0])
