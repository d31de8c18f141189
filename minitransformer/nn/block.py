"""Transformer block."""

from __future__ import annotations

from ..random import Generator
from .attention import MultiHeadAttention
from .dropout import Dropout
from .feed_forward import FeedForward
from .initialization import xavier_uniform
from .module import Module
from .normalization import LayerNorm

__all__ = ["Block"]


class Block(Module):
    """Pre-norm: each half reads a normalised copy of the stream x and adds what it found.

        x <- x + dropout(attention(norm₁ x)),   x <- x + dropout(feed_forward(norm₂ x))

    Shapes: x (B, T, D) -> (B, T, D). The sum is never normalised, so the gradient has a straight way down to the input.
    Source: Xiong et al. 2020 (pre-norm); Radford et al. 2019, §2.3.
    """

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, causal: bool = True, bias: bool = True,
        *, generator: Generator, init=xavier_uniform, output_init=None,
    ):  # fmt: skip
        options = {"bias": bias, "generator": generator, "init": init, "output_init": output_init}
        self.attention_norm = LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, causal, **options)
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width, **options)
        self.dropout = Dropout(dropout, generator)

    def forward(self, x, cache=None, capture=False):
        """x (B, T, D) -> (B, T, D), or with `capture` (that, attention probabilities (B, H, T, Tk))."""
        y = self.attention(self.attention_norm(x), cache, capture)
        y, probabilities = y if capture else (y, None)
        x = x + self.dropout(y)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return (x, probabilities) if capture else x
