"""Embedding: rows of a table by index."""

from __future__ import annotations

from math import nan

from .. import kernels
from ..function import Function, xp
from ..kernels.devices import device_of
from ..tensor import Tensor

__all__ = ["embedding"]


class Embedding(Function):
    """y_i = weight[indices_i],   dweight_r = Σ dy_i over i with indices_i = r

    Shapes: weight (V, D), indices (...) integer -> y (..., D). On a GPU, where nobody looks at the indices, one outside
    the table gives NaN.
    """

    def forward(self, weight, indices):
        self.rows = weight.shape[0]
        self.save(indices)
        np = xp(weight)
        if device_of(indices) == "cpu":
            return np.take(weight, indices, axis=0)
        inside = (indices >= 0) & (indices < self.rows)
        found = np.take(weight, np.where(inside, indices, 0), axis=0)
        return np.where(inside[..., None], found, weight.dtype.type(nan))

    def backward(self, dy):
        (indices,) = self.saved
        return kernels.embedding_backward(dy, indices, self.rows), None


def embedding(indices, weight) -> Tensor:
    """Rows of `weight` (V, D) by integer indices (...) -> (..., D). Raises IndexError for one outside 0..V-1."""
    indices = indices if isinstance(indices, Tensor) else Tensor(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers, got {indices.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight must be (V, D), got shape {weight.shape}")
    if indices.device == "cpu" and indices.size and (indices.data.min() < 0 or indices.data.max() >= weight.shape[0]):
        bad = indices.data[(indices.data < 0) | (indices.data >= weight.shape[0])].flat[0]
        raise IndexError(f"embedding: index {int(bad)} is outside the table of {weight.shape[0]} rows")
    return Embedding.apply(weight, indices)
