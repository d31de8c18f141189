"""What the decoder-only language models share: token stream in, blocks, logits out."""

from __future__ import annotations

import contextlib

import numpy as np

from ..graph import is_grad_enabled
from ..nn import KVCache, Module, Recording
from ..ops.cross_entropy import cross_entropy
from ..recomputation import checkpoint
from ..tensor import Tensor, as_tensor

__all__ = ["LanguageModel"]


class LanguageModel(Module):
    """ids (B, T) -> logits (B, T, V): at every position the scores of the token that comes next.

    A model has `config` (vocab_size, context, layers, heads, key_value_heads, head_width), `blocks`, each
    `block(x, cache, capture)` with its attention at `block.attention`, a last `norm`, and defines

        embed(ids, past)    ids (B, T) that follow `past` others -> the stream x (B, T, D) that enters the blocks
        unembed(x)          the stream that leaves them -> logits (B, T, V)
    """

    recompute = False

    def forward(self, ids, cache: KVCache | None = None, capture_attention: bool = False, last_only: bool = False):
        """ids (B, T) integers -> logits (B, T, V), or (B, 1, V) of the last position with `last_only`.

        cache: the ids follow the tokens that it holds, and are added to it (under `no_grad`).
        capture_attention: return (logits, [one array (B, H, T, Tk) of probabilities for each layer]); a `Recording` in
        place of True is filled with these, the heads' values and outputs, and the stream between the blocks.
        Raises ValueError where ids are not (B, T) or too many for the context, IndexError for an id outside 0..V-1.
        """
        ids, past = as_tensor(ids), 0 if cache is None else cache.length
        self._check(ids, past)
        x = self.embed(ids, past)  # (B, T, D)
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

    def loss(self, ids, targets) -> Tensor:
        """Mean cross-entropy, in nats a token, of targets (B, T) given ids (B, T); ln V is what guessing costs."""
        return cross_entropy(self(ids), targets)

    def _check(self, ids, past):
        name = type(self).__name__
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] == 0:
            raise ValueError(f"{name}: ids must be integers (B, T) with T > 0, got {ids.dtype} of shape {ids.shape}")
        if past + ids.shape[1] > self.config.context:
            after = f" after {past} in the cache" if past else ""
            raise ValueError(f"{name}: {ids.shape[1]} tokens{after} are more than the context of {self.config.context}")

    # ------------------------------------------------------------ around it

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty KV cache that fits; capacity is the context unless given."""
        c, weight = self.config, self.norm.weight
        capacity = c.context if capacity is None else capacity
        return KVCache(c.layers, batch, c.key_value_heads, capacity, c.head_width, weight.dtype, weight.device)

    @contextlib.contextmanager
    def without_heads(self, heads):
        """Switch attention heads off inside a `with`: heads are pairs (layer, head), counted from 0. It nests."""
        L, H = self.config.layers, self.config.heads
        weight = self.norm.weight
        gates = np.ones((L, H), weight.dtype)
        for layer, head in heads:
            if not (0 <= layer < L and 0 <= head < H):
                raise IndexError(
                    f"{type(self).__name__}: there is no head ({layer}, {head}) in {L} layers of {H} heads, "
                    "counted from 0"
                )
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
