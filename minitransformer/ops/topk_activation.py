"""Top-k sparse activation: of each row the k largest stay, the others are silent."""

from __future__ import annotations

from numbers import Real

from .. import kernels
from ..function import Function, xp
from ..tensor import Tensor

__all__ = ["topk_activation"]


class TopkActivation(Function):
    """y_i = x_i where x_i is one of the k largest of its row, else 0.

    backward="mask": dx_i = dy_i where x_i was kept, else 0: the derivative, wherever it exists.
    backward="straight_through": dx = dy, as if nothing had been cut; silent neurons go on learning.
    Shapes: x (..., n) -> y (..., n).   Source: Makhzani & Frey 2013; Bengio et al. 2013 (straight-through); document
    D1 §4.1.
    """

    def forward(self, x, *, k, by, backward):
        y, indices = kernels.topk_activation(x, k, by)
        self.straight_through = backward == "straight_through"
        if not self.straight_through:
            self.save(indices)
        return y

    def backward(self, dy):
        if self.straight_through:
            return dy
        (indices,) = self.saved
        np = xp(dy)
        dx = np.zeros_like(dy)
        np.put_along_axis(dx, indices, np.take_along_axis(dy, indices, axis=-1), axis=-1)
        return dx


def topk_activation(
    x, k: int | None = None, *, fraction: float | None = None, by: str = "value", backward: str = "mask"
) -> Tensor:
    """The k largest of the last axis, or that fraction of it (rounded, at least 1), and 0 elsewhere.

    by: "value", or "magnitude" to compare |x|. Of equal ones the first stay. backward: "mask" or "straight_through".
    Raises ValueError for k outside 1..n, for a fraction outside (0, 1], or for both or neither of them.
    """
    if (k is None) == (fraction is None):
        raise ValueError("topk_activation: give k or fraction, one of them")
    check_backward(backward)
    if k is None:
        k = count_of(fraction, x.shape[-1] if x.ndim else 1)
    return TopkActivation.apply(x, k=k, by=by, backward=backward)


def check_backward(backward: str) -> None:
    if backward not in ("mask", "straight_through"):
        raise ValueError(f'topk_activation: backward must be "mask" or "straight_through", got {backward!r}')


def count_of(fraction: float, n: int) -> int:
    """How many of n a fraction is: rounded, at least 1. Raises TypeError for what is no number, ValueError for a
    fraction outside (0, 1]."""
    if not isinstance(fraction, Real):
        raise TypeError(f"topk_activation: fraction must be a number in (0, 1], got {fraction!r}")
    if not 0 < fraction <= 1:
        raise ValueError(f"topk_activation: fraction must lie in (0, 1], got {fraction}")
    return max(round(fraction * n), 1)
