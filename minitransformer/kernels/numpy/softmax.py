"""Softmax and its logarithm along one axis. Subtracting the maximum changes nothing but keeps exp from overflowing."""

from numpy import errstate

from ..devices import xp
from ..precision import computed_in_float32


def _shifted(x, axis):
    if not x.size:
        return x.copy()
    with errstate(invalid="ignore"):  # a row of -inf alone: -inf - -inf is NaN, as promised
        return x - x.max(axis=axis, keepdims=True)


@computed_in_float32
def softmax(x, axis):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x).   Source: Bridle 1990."""
    e = xp(x).exp(_shifted(x, axis))
    return e / e.sum(axis=axis, keepdims=True)


@computed_in_float32
def softmax_backward(dy, y, axis):
    """dx_i = y_i (dy_i - Σ_j dy_j y_j): from dy_i/dx_j = y_i ([i = j] - y_j)."""
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


@computed_in_float32
def log_softmax(x, axis):
    """y_i = x_i - max x - log Σ_j exp(x_j - max x)."""
    shifted = _shifted(x, axis)
    np = xp(x)
    with errstate(divide="ignore"):  # the sum of an empty row is 0
        return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@computed_in_float32
def log_softmax_backward(dy, y, axis):
    """dx_i = dy_i - exp(y_i) Σ_j dy_j."""
    return dy - xp(y).exp(y) * dy.sum(axis=axis, keepdims=True)
