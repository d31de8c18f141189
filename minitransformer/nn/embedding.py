"""Embedding layer."""

from __future__ import annotations

from ..ops.embedding import embedding
from ..ops.matmul import linear
from ..random import Generator
from .initialization import normal
from .module import Module, Parameter, check_size

__all__ = ["Embedding"]


class Embedding(Module):
    """A table with a learned row for every index:   indices (...) -> weight[indices] (..., D),   weight (V, D).

    Raises IndexError for an index outside 0..V-1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, generator: Generator, init=normal):
        check_size("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(init((num_embeddings, embedding_dim), generator))

    def forward(self, indices):
        return embedding(indices, self.weight)

    def scores(self, x):
        """x (..., D) -> x weightᵀ (..., V): the table read the other way round, where a model ties the two."""
        return linear(x, self.weight)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"
