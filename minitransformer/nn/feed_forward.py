"""Feed-forward layer: the same two-layer network at every position."""

from __future__ import annotations

from ..random import Generator
from .initialization import xavier_uniform
from .linear import Linear
from .module import Module

__all__ = ["FeedForward"]


class FeedForward(Module):
    """y = W_down GELU(W_up x + b_up) + b_down:   x (..., D) -> (..., hidden) -> y (..., D).

    hidden is 4 D unless given. GELU in its tanh form, as GPT-2 has it; approximate="none" is the form with erf, BERT's.
    Source: Vaswani et al. 2017, §3.3; Radford et al. 2018.
    """

    def __init__(
        self, width: int, hidden: int | None = None, bias: bool = True,
        *, approximate: str = "tanh", generator: Generator, init=xavier_uniform, output_init=None,
    ):  # fmt: skip
        hidden = 4 * width if hidden is None else hidden
        self.approximate = approximate
        self.up = Linear(width, hidden, bias, generator=generator, init=init)
        self.down = Linear(hidden, width, bias, generator=generator, init=output_init or init)

    def forward(self, x):
        return self.down(self.up(x, activation="gelu_tanh" if self.approximate == "tanh" else "gelu"))
