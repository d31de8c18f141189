"""Embedding layer with a table in few bits."""

from __future__ import annotations

import numpy as np

from ..kernels.quantized_weight import QuantizedWeight
from ..tensor import Tensor, plain
from .module import Module
from .quantized_linear import QuantizedLinear

__all__ = ["QuantizedEmbedding"]


class QuantizedEmbedding(Module):
    """A table Ŵ that stays as it is:   indices (...) -> Ŵ[indices] (..., D),   scores: x (..., D) -> x Ŵᵀ (..., V).

    weight: a `QuantizedWeight` in rows, which may lie in a mapped file: of it a look-up reads the rows that it needs.
    The scores read everything, laid out for the kernels. inputs="int8" rounds x for them. Nothing is trained.
    Raises IndexError for an index outside 0..V-1.
    """

    def __init__(self, weight: QuantizedWeight, inputs: str = "float"):
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = weight.rows()
        self.output = QuantizedLinear(weight.panels(), inputs=inputs)

    def forward(self, indices):
        indices, V = np.asarray(plain(indices)), self.num_embeddings
        if indices.size and not (0 <= indices.min() and indices.max() < V):
            raise IndexError(f"embedding: indices must lie in 0..{V - 1}, got {indices.min()}..{indices.max()}")
        return Tensor(self.weight.take(indices.ravel()).dequantize().reshape(*indices.shape, self.embedding_dim))

    def scores(self, x):
        """x (..., D) -> x Ŵᵀ (..., V): the table read the other way round, where a model ties the two."""
        return self.output(x)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.weight.format}"
