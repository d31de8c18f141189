"""Dropout layer."""

from __future__ import annotations

from ..ops.dropout import dropout
from ..random import Generator
from .module import Module, check_fraction

__all__ = ["Dropout"]


class Dropout(Module):
    """While training, zero each element with probability p and scale the rest by 1/(1-p); otherwise nothing.

    The generator is the model's, shared by its dropouts: its state is part of the state of the training.
    """

    def __init__(self, p: float, generator: Generator):
        check_fraction("Dropout", p=p)
        self.p, self.generator = p, generator

    def forward(self, x):
        return dropout(x, self.p, self.generator) if self.training and self.p else x

    def extra_repr(self):
        return f"p={self.p:g}"
