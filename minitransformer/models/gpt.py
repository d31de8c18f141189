"""GPT: predict the next token from the tokens before it.

    model = GPT(GPTConfig(vocab_size=65, context=64, layers=4, heads=4, width=128))
    loss = model.loss(ids, targets)          # (B, T) integers each; targets are ids one position later
    loss.backward()

The architecture of GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, GELU, and one table that both reads
tokens in and scores them on the way out. One thing is left out: dropout on the attention probabilities, which the fused
attention never has in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from ..graph import xp
from ..nn import Block, Dropout, Embedding, LayerNorm
from ..nn.initialization import normal
from ..nn.module import check_fraction, check_size
from ..random import Generator
from ..tensor import Tensor
from .language_model import LanguageModel

__all__ = ["GPT", "GPTConfig"]


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; those of GPT-2 "small" are (50257, 1024, 12, 12, 768).

    vocab_size V; context, the longest sequence; layers L; heads H; width D; dropout in [0, 1), while training.
    Raises ValueError, in one line, for sizes that make no model.
    """

    vocab_size: int
    context: int = 64
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0

    def __post_init__(self):
        sizes = {name: getattr(self, name) for name in ("vocab_size", "context", "layers", "heads", "width")}
        check_size("GPT", **sizes)
        check_fraction("GPT", dropout=self.dropout)
        if self.width % self.heads:
            fitting = ", ".join(str(h) for h in range(1, min(self.width, 64) + 1) if self.width % h == 0)
            raise ValueError(f"GPT: {self.heads} heads do not divide the width {self.width}; these do: {fitting}")

    @property
    def key_value_heads(self) -> int:
        """As many as there are heads of queries."""
        return self.heads

    @property
    def head_width(self) -> int:
        """d = D/H."""
        return self.width // self.heads


class GPT(LanguageModel):
    """ids (B, T) -> logits (B, T, V): at every position the scores of the token that comes next.

    generator: draws the initial weights, then the dropout masks; `Generator(0)` unless given. Its state is part of a
    training's state, beside the parameters.
    recompute: keep only each block's input during training and run the block again in backward: less memory, a third
    more time, the same gradients bit for bit.
    init: in place of the normal start, e.g. `initialization.later` where the weights come from a file.
    """

    def __init__(self, config: GPTConfig, generator: Generator | None = None, recompute: bool = False, init=None):
        self.config, self.recompute = config, recompute
        self.generator = g = Generator(0) if generator is None else generator
        # Each layer adds to the stream twice; 1/√(2L) keeps the variance of the sum independent of the depth.
        initial = init or partial(normal, std=0.02)
        residual = init or partial(normal, std=0.02 / math.sqrt(2 * config.layers))
        self.token_embedding = Embedding(config.vocab_size, config.width, generator=g, init=initial)
        self.position_embedding = Embedding(config.context, config.width, generator=g, init=initial)
        self.dropout = Dropout(config.dropout, g)
        self.blocks = [
            Block(config.width, config.heads, config.dropout, generator=g, init=initial, output_init=residual)
            for _ in range(config.layers)
        ]
        self.norm = LayerNorm(config.width)

    def embed(self, ids, past: int) -> Tensor:
        """ids (B, T) that follow `past` others -> the stream (B, T, D): token plus position."""
        positions = xp(ids.data).arange(past, past + ids.shape[1])
        return self.dropout(self.token_embedding(ids) + self.position_embedding(positions))

    def unembed(self, x) -> Tensor:
        """Stream x (B, T, D) -> logits (B, T, V). Of the stream after an earlier block, that is the logit lens."""
        return self.token_embedding.scores(self.norm(x))
