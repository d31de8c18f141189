"""Multi-head self-attention."""

from __future__ import annotations

import math

import numpy as np

from .. import kernels
from ..ops.attention import key_spans, scaled_dot_product_attention
from ..random import Generator
from ..tensor import Tensor, plain
from .initialization import later, xavier_uniform
from .linear import Linear
from .module import Buffer, Module, check_size
from .paged_cache import PagedLayer
from .recording import Recording

__all__ = ["MultiHeadAttention", "alibi_slopes"]


def alibi_slopes(heads: int) -> np.ndarray:
    """ALiBi's slope of each head, (H,): 2^(-8h/H), h = 1 … H, for a power of two.

    Other H take the slopes of the power of two below, and the rest from every second slope of the one above.
    Source: Press et al. 2022, §3 and the authors' code for other numbers of heads.
    """
    check_size("alibi_slopes", heads=heads)
    below = 1 << (heads.bit_length() - 1)

    def slopes(n):
        return 2.0 ** (-8.0 * np.arange(1, n + 1) / n)

    return np.concatenate([slopes(below), slopes(2 * below)[::2][: heads - below]])


class MultiHeadAttention(Module):
    """H attentions side by side, each on its own d = D/H of the D channels.

        [q k v] = x W_qkvᵀ + b_qkv,   o_h = softmax(q_h k_hᵀ / √d) v_h,   y = [o_1 … o_H] W_outᵀ + b_out

    Shapes: x (B, T, D) -> y (B, T, D). One product makes q, k and v; heads are strided views (B, H, T, d) of it, and
    nothing is copied before the attention itself. H changes neither the number of parameters nor of multiplications.

    causal: token i sees tokens up to i. window: only those less than so far away. alibi: scores fall with the distance,
    by `alibi_slopes`. rotary: a `RotaryEmbedding` (or None) that turns queries and keys by their positions.
    key_value_heads: G < H heads of keys and values, each read by H/G heads of queries; a KV cache is that much smaller.
    `head_mask`: None, or a tensor (H,) that multiplies the outputs of the heads; 0 switches a head off, and the
    gradient of the mask says how much the loss leans on each.
    Source: Vaswani et al. 2017, §3.2.2; Ainslie et al. 2023; Press et al. 2022; documents D2 §1.2, D3 §1.1.
    """

    def __init__(
        self, width: int, heads: int, causal: bool = True, bias: bool = True,
        *, key_value_heads: int | None = None, window: int | None = None, alibi: bool = False, rotary=None,
        generator: Generator, init=xavier_uniform, output_init=None,
    ):  # fmt: skip
        groups = heads if key_value_heads is None else key_value_heads
        check_size("MultiHeadAttention", width=width, heads=heads, key_value_heads=groups)
        if window is not None:
            check_size("MultiHeadAttention", window=window)
        if width % heads:
            raise ValueError(f"MultiHeadAttention: {heads} heads do not divide the width {width}")
        if heads % groups:
            raise ValueError(f"MultiHeadAttention: {groups} key/value heads do not divide {heads} heads")
        self.heads, self.key_value_heads, self.head_width = heads, groups, width // heads
        self.causal, self.window = causal, window
        sizes = [width, groups * self.head_width, groups * self.head_width]
        self.rotary = rotary
        self.qkv = Linear(width, sum(sizes), bias, generator=generator, init=_each(init, sizes))
        self.output = Linear(width, width, bias, generator=generator, init=output_init or init)
        self.slopes = Buffer(alibi_slopes(heads), dtype=self.qkv.weight.dtype) if alibi else None
        self.head_mask: Tensor | None = None

    def forward(self, x, cache=None, capture=False, lengths=None):
        """x (B, T, D) -> y (B, T, D), or with `capture` (y, probabilities (B, H, T, Tk) as an array).

        cache: a `LayerCache` or a `PagedLayer`; the tokens of x come after those that it holds, and join them. capture:
        True, or a `Recording`, which also gets the values and the outputs of the heads; not with a `PagedLayer`.
        lengths (B,): only so many first keys of each row are seen; what is behind them is padding.
        """
        B, T, D = x.shape
        H, G = self.heads, self.key_value_heads
        heads = self.qkv(x).reshape(B, T, H + 2 * G, self.head_width).transpose(1, 2)
        if self.rotary is None:
            q, k, v = heads.split([H, G, G], axis=1)  # (B, H, T, d), (B, G, T, d) twice
        else:
            turned, v = heads.split([H + G, G], axis=1)
            q, k = self.rotary(turned, _past(cache)).split([H, G], axis=1)
        if isinstance(cache, PagedLayer):
            if capture or not self.causal or lengths is not None:
                raise ValueError(
                    "MultiHeadAttention: a paged cache serves causal attention, without capture or lengths"
                )
            o = cache.attend(q, k, v, window=self.window, alibi_slopes=self.slopes)
        else:
            if cache is not None:
                k, v = cache.append(k, v)
            o = scaled_dot_product_attention(
                q, k, v, is_causal=self.causal, window=self.window, alibi_slopes=self.slopes, key_lengths=lengths
            )  # (B, H, T, d)
        heard = o if self.head_mask is None else o * self.head_mask.reshape(H, 1, 1)
        y = self.output(heard.transpose(1, 2).reshape(B, T, D))
        if not capture:
            return y
        probabilities = self.probabilities(q, k, v, lengths=lengths)
        if isinstance(capture, Recording):
            capture.add(probabilities, np.repeat(v.data, H // G, axis=1), o)
        return y, probabilities

    def probabilities(self, query, key, value, heads=None, rows=None, lengths=None) -> np.ndarray:
        """What every query gives to every key, (B, H, Tq, Tk), from the lse of the fused kernel; or only of some heads
        and queries (integer arrays).

        The kernel runs once more for it, so that `forward` need not keep what only an onlooker wants.
        """
        q, k, v = query.data, key.data, value.data
        options = {"scale": 1.0 / math.sqrt(self.head_width), "causal": self.causal}
        if self.window is not None:
            options["window"] = self.window
        if self.slopes is not None:
            options["slopes"] = self.slopes.data.astype(q.dtype, copy=False)
        if lengths is not None:
            options["spans"] = plain(key_spans(query, key, lengths))
        _, lse = kernels.attention_forward(q, k, v, **options)
        return kernels.attention_probabilities(q, k, lse, heads=heads, rows=rows, **options)

    def extra_repr(self):
        parts = [f"heads={self.heads}", f"head_width={self.head_width}"]
        parts += [f"key_value_heads={self.key_value_heads}"] * (self.key_value_heads != self.heads)
        parts += ["causal=False"] * (not self.causal) + [f"window={self.window}"] * (self.window is not None)
        return ", ".join(parts + ["alibi"] * (self.slopes is not None))


def _past(cache):
    """How many tokens stand before those at hand: an integer, or one for each row (B,)."""
    if isinstance(cache, PagedLayer):
        return cache.batch.lengths - cache.batch.tokens
    return 0 if cache is None else cache.length


def _each(init, sizes):
    """q, k and v are three maps: each gets a start of its own fan-in and fan-out, not that of the whole matrix."""

    def initialize(shape, generator):
        if init is later:
            return later(shape)
        return np.concatenate([init((size, shape[1]), generator) for size in sizes])

    return initialize
