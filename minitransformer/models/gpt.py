"""GPT: predict the next token from the tokens before it.

    model = GPT(GPTConfig(vocab_size=65, context=64, layers=4, heads=4, width=128))
    loss = model.loss(ids, targets)          # (B, T) integers each; targets are ids one position later
    loss.backward()

The architecture of GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, GELU, and one table that both reads
tokens in and scores them on the way out. One thing is left out: dropout on the attention probabilities, which the fused
attention never has in memory.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..graph import is_grad_enabled, xp
from ..nn import Block, Dropout, Embedding, KVCache, LayerNorm, Module, Recording
from ..nn.initialization import normal
from ..nn.module import check_fraction, check_size
from ..ops.cross_entropy import cross_entropy
from ..ops.matmul import linear
from ..random import Generator
from ..recomputation import checkpoint
from ..tensor import Tensor, as_tensor

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


class GPT(Module):
    """ids (B, T) -> logits (B, T, V): at every position the scores of the token that comes next.

    generator: draws the initial weights, then the dropout masks; `Generator(0)` unless given. Its state is part of a
    training's state, beside the parameters.
    recompute: keep only each block's input during training and run the block again in backward: less memory, a third
    more time, the same gradients bit for bit.
    """

    def __init__(self, config: GPTConfig, generator: Generator | None = None, recompute: bool = False):
        self.config, self.recompute = config, recompute
        self.generator = g = Generator(0) if generator is None else generator
        # Each layer adds to the stream twice; 1/√(2L) keeps the variance of the sum independent of the depth.
        initial, residual = partial(normal, std=0.02), partial(normal, std=0.02 / math.sqrt(2 * config.layers))
        self.token_embedding = Embedding(config.vocab_size, config.width, generator=g, init=initial)
        self.position_embedding = Embedding(config.context, config.width, generator=g, init=initial)
        self.dropout = Dropout(config.dropout, g)
        self.blocks = [
            Block(config.width, config.heads, config.dropout, generator=g, init=initial, output_init=residual)
            for _ in range(config.layers)
        ]
        self.norm = LayerNorm(config.width)

    def forward(self, ids, cache: KVCache | None = None, capture_attention: bool = False, last_only: bool = False):
        """ids (B, T) integers -> logits (B, T, V), or (B, 1, V) of the last position with `last_only`.

        cache: the ids follow the tokens that it holds, and are added to it (under `no_grad`).
        capture_attention: return (logits, [one array (B, H, T, Tk) of probabilities for each layer]); a `Recording` in
        place of True is filled with these, the heads' values and outputs, and the stream between the blocks.
        Raises ValueError where ids are not (B, T) or too many for the context, IndexError for an id outside 0..V-1.
        """
        ids, past = as_tensor(ids), 0 if cache is None else cache.length
        self._check(ids, past)
        positions = xp(ids.data).arange(past, past + ids.shape[1])
        x = self.dropout(self.token_embedding(ids) + self.position_embedding(positions))  # (B, T, D)
        recompute = self.recompute and is_grad_enabled() and cache is None and not capture_attention
        recording = capture_attention if isinstance(capture_attention, Recording) else None
        if recording:
            recording.streams.append(x)
        attentions = []
        for i, block in enumerate(self.blocks):
            layer_cache = None if cache is None else cache.layers[i]
            if recompute:
                x = checkpoint(block, x)
            elif capture_attention:
                x, probabilities = block(x, layer_cache, capture=capture_attention)
                attentions.append(probabilities)
                if recording:
                    recording.streams.append(x)
            else:
                x = block(x, layer_cache)
        if last_only:
            x = x[:, -1:]
        logits = self.unembed(x)
        return (logits, attentions) if capture_attention else logits

    def unembed(self, x) -> Tensor:
        """Stream x (B, T, D) -> logits (B, T, V). Of the stream after an earlier block, that is the logit lens."""
        return linear(self.norm(x), self.token_embedding.weight)

    def loss(self, ids, targets) -> Tensor:
        """Mean cross-entropy, in nats a token, of targets (B, T) given ids (B, T); ln V is what guessing costs."""
        return cross_entropy(self(ids), targets)

    def _check(self, ids, past):
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] == 0:
            raise ValueError(f"GPT: ids must be integers (B, T) with T > 0, got {ids.dtype} of shape {ids.shape}")
        if past + ids.shape[1] > self.config.context:
            after = f" after {past} in the cache" if past else ""
            raise ValueError(f"GPT: {ids.shape[1]} tokens{after} are more than the context of {self.config.context}")

    # ------------------------------------------------------------ around it

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty KV cache that fits; capacity is the context unless given."""
        c = self.config
        weight, capacity = self.token_embedding.weight, c.context if capacity is None else capacity
        return KVCache(c.layers, batch, c.heads, capacity, c.width // c.heads, weight.dtype, weight.device)

    @contextlib.contextmanager
    def without_heads(self, heads):
        """Switch attention heads off inside a `with`: heads are pairs (layer, head), counted from 0. It nests."""
        L, H = self.config.layers, self.config.heads
        weight = self.token_embedding.weight
        gates = np.ones((L, H), weight.dtype)
        for layer, head in heads:
            if not (0 <= layer < L and 0 <= head < H):
                raise IndexError(f"GPT: there is no head ({layer}, {head}) in {L} layers of {H} heads, counted from 0")
            gates[layer, head] = 0
        attentions = [block.attention for block in self.blocks]
        before = [attention.head_mask for attention in attentions]
        try:
            for attention, mask, row in zip(attentions, before, gates, strict=True):
                if not row.all():
                    gate = Tensor(row).to(weight.device)
                    attention.head_mask = gate if mask is None else mask * gate
            yield self
        finally:
            for attention, mask in zip(attentions, before, strict=True):
                attention.head_mask = mask

    def extra_repr(self):
        return f"{self.parameter_count():,} parameters, context={self.config.context}"
