"""Gated feed-forward layer: SwiGLU."""

from __future__ import annotations

from ..ops.activation import silu
from ..random import Generator
from .initialization import xavier_uniform
from .linear import Linear
from .module import Module

__all__ = ["GatedFeedForward"]


class GatedFeedForward(Module):
    """y = W_down (silu(W_gate x) ⊙ W_up x):   x (..., D) -> (..., hidden) -> y (..., D).

    One half of the neurons decides how much of the other half passes. No biases.
    Source: Shazeer 2020; Touvron et al. 2023 (Llama).
    """

    def __init__(self, width: int, hidden: int, *, generator: Generator, init=xavier_uniform, output_init=None):
        self.gate = Linear(width, hidden, False, generator=generator, init=init)
        self.up = Linear(width, hidden, False, generator=generator, init=init)
        self.down = Linear(hidden, width, False, generator=generator, init=output_init or init)

    def forward(self, x):
        return self.down(silu(self.gate(x)) * self.up(x))
