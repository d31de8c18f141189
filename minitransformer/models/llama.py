"""Llama: the GPT of today. Four parts of GPT-2 are exchanged, the rest is the same.

    model = Llama(LlamaConfig(vocab_size=65, context=64, layers=4, heads=4, key_value_heads=2, width=128, hidden=344))
    loss = model.loss(ids, targets)          # (B, T) integers each; targets are ids one position later

    learned positions  ->  RoPE: queries and keys are turned, so that scores depend on distances
    LayerNorm          ->  RMSNorm: no mean is taken off, no bias
    GELU               ->  SwiGLU: one half of the neurons gates the other
    H key/value heads  ->  G <= H, each read by H/G heads of queries: a KV cache that much smaller

Source: Touvron et al. 2023; Grattafiori et al. 2024 (Llama 3); Ben Allal et al. 2025 (SmolLM2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from .. import kernels
from ..graph import is_grad_enabled
from ..nn import (
    Embedding,
    GatedFeedForward,
    LayerCache,
    Linear,
    Module,
    MultiHeadAttention,
    QuantizedLinear,
    RMSNorm,
    RotaryEmbedding,
)
from ..nn.initialization import normal
from ..nn.module import check_size
from ..random import Generator
from ..tensor import Tensor
from .language_model import LanguageModel

__all__ = ["Llama", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama; those of SmolLM2-135M are (49152, 8192, 30, 9, 3, 576, 1536), rope_base 100000.

    vocab_size V; context, the longest sequence; layers L; heads H, and key_value_heads G, which divides H; width D;
    hidden, the neurons of a feed-forward layer; eps of the norms; rope_base and rope_interleaved: see
    `RotaryEmbedding`; tied: one table reads tokens in and scores them on the way out.
    Raises ValueError, in one line, for sizes that make no model.
    """

    vocab_size: int
    context: int = 64
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    width: int = 128
    hidden: int = 344
    eps: float = 1e-5
    rope_base: float = 10_000.0
    rope_interleaved: bool = False
    tied: bool = True

    def __post_init__(self):
        names = ("vocab_size", "context", "layers", "heads", "key_value_heads", "width", "hidden")
        check_size("Llama", **{name: getattr(self, name) for name in names})
        if self.width % (2 * self.heads):
            raise ValueError(f"Llama: the width {self.width} must be {self.heads} heads of an even width each")
        if self.heads % self.key_value_heads:
            raise ValueError(f"Llama: {self.key_value_heads} key/value heads do not divide {self.heads} heads")

    @property
    def head_width(self) -> int:
        """d = D/H."""
        return self.width // self.heads


class LlamaBlock(Module):
    """x <- x + attention(norm₁ x),   x <- x + feed_forward(norm₂ x):   x (B, T, D) -> (B, T, D)."""

    def __init__(self, config: LlamaConfig, rotary: RotaryEmbedding, *, generator: Generator, init, output_init):
        c, options = config, {"generator": generator, "init": init, "output_init": output_init}
        self.attention_norm = RMSNorm(c.width, c.eps)
        self.attention = MultiHeadAttention(
            c.width, c.heads, bias=False, key_value_heads=c.key_value_heads, rotary=rotary, **options
        )
        self.feed_forward_norm = RMSNorm(c.width, c.eps)
        self.feed_forward = GatedFeedForward(c.width, c.hidden, **options)

    def forward(self, x, cache=None, capture=False):
        """x (B, T, D) -> (B, T, D), or with `capture` (that, attention probabilities (B, H, T, Tk))."""
        if type(cache) is LayerCache and not capture and not is_grad_enabled() and self.attention.head_mask is None:
            return Tensor.wrap(self._decode(x.data, cache))
        y = self.attention(self.attention_norm(x), cache, capture)
        y, probabilities = y if capture else (y, None)
        x = x + y
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return (x, probabilities) if capture else x

    def _decode(self, x, cache):
        """The same on arrays, kernel by kernel, bit for bit: where nobody differentiates, and for one token the engine
        around an op takes longer than what it does."""
        attention, feed_forward = self.attention, self.feed_forward
        (B, T, D), H, G, d = x.shape, attention.heads, attention.key_value_heads, attention.head_width
        h = kernels.rms_norm_forward(x, self.attention_norm.weight.data, self.attention_norm.eps)[0]
        heads = _product(attention.qkv, h).reshape(B, T, H + 2 * G, d).swapaxes(1, 2)
        turned = attention.rotary.turn(heads[:, : H + G], cache.length)
        keys, values = cache.store(turned[:, H:], heads[:, H + G :])
        o = kernels.attention_forward(turned[:, :H], keys, values, scale=1.0 / math.sqrt(d), causal=True)[0]
        x = x + _product(attention.output, o.swapaxes(1, 2).reshape(B, T, D))
        h = kernels.rms_norm_forward(x, self.feed_forward_norm.weight.data, self.feed_forward_norm.eps)[0]
        gated = kernels.silu(_product(feed_forward.gate, h)) * _product(feed_forward.up, h)
        return x + _product(feed_forward.down, gated)


def _product(layer, x):
    """x Wᵀ of a layer without a bias, as an array."""
    if isinstance(layer, QuantizedLinear):
        return kernels.quantized_gemm(x, layer.weight, inputs=layer.inputs)
    return kernels.linear(x, layer.weight.data)


class Llama(LanguageModel):
    """ids (B, T) -> logits (B, T, V): at every position the scores of the token that comes next.

    generator: draws the initial weights; `Generator(0)` unless given. init: in place of the normal start, e.g.
    `initialization.later` where the weights come from a file.
    """

    def __init__(self, config: LlamaConfig, generator: Generator | None = None, init=None):
        c, g = config, Generator(0) if generator is None else generator
        # Each layer adds to the stream twice; 1/√(2L) keeps the variance of the sum independent of the depth.
        residual = init or partial(normal, std=0.02 / math.sqrt(2 * c.layers))
        initial = init or partial(normal, std=0.02)
        self.config, self.generator = config, g
        self.token_embedding = Embedding(c.vocab_size, c.width, generator=g, init=initial)
        self.rotary = RotaryEmbedding(c.head_width, c.rope_base, c.rope_interleaved)
        self.blocks = [
            LlamaBlock(c, self.rotary, generator=g, init=initial, output_init=residual) for _ in range(c.layers)
        ]
        self.norm = RMSNorm(c.width, c.eps)
        self.output = None if c.tied else Linear(c.width, c.vocab_size, False, generator=g, init=initial)

    def embed(self, ids, past: int) -> Tensor:
        """ids (B, T) -> the stream (B, T, D); positions come in at the attention."""
        return self.token_embedding(ids)

    def unembed(self, x) -> Tensor:
        """Stream x (B, T, D) -> logits (B, T, V). Of the stream after an earlier block, that is the logit lens."""
        x = self.norm(x)
        return self.token_embedding.scores(x) if self.output is None else self.output(x)
