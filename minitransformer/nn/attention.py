"""Multi-head self-attention."""

from __future__ import annotations

import math

import numpy as np

from .. import kernels
from ..ops.attention import scaled_dot_product_attention
from ..random import Generator
from ..tensor import Tensor
from .initialization import xavier_uniform
from .linear import Linear
from .module import Module, check_size
from .recording import Recording

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(Module):
    """H attentions side by side, each on its own d = D/H of the D channels.

        [q k v] = x W_qkvᵀ + b_qkv,   o_h = softmax(q_h k_hᵀ / √d) v_h,   y = [o_1 … o_H] W_outᵀ + b_out

    Shapes: x (B, T, D) -> y (B, T, D). One product makes q, k and v; heads are strided views (B, H, T, d) of it, and
    nothing is copied before the attention itself. H changes neither the number of parameters nor of multiplications.

    causal: token i sees tokens up to i. `head_mask`: None, or a tensor (H,) that multiplies the outputs of the heads;
    0 switches a head off, and the gradient of the mask says how much the loss leans on each.
    Source: Vaswani et al. 2017, §3.2.2; documents D2 §1.2, D3 §1.1.
    """

    def __init__(
        self, width: int, heads: int, causal: bool = True, bias: bool = True,
        *, generator: Generator, init=xavier_uniform, output_init=None,
    ):  # fmt: skip
        check_size("MultiHeadAttention", width=width, heads=heads)
        if width % heads:
            raise ValueError(f"MultiHeadAttention: {heads} heads do not divide the width {width}")
        self.heads, self.head_width, self.causal = heads, width // heads, causal
        self.qkv = Linear(width, 3 * width, bias, generator=generator, init=_three(init))
        self.output = Linear(width, width, bias, generator=generator, init=output_init or init)
        self.head_mask: Tensor | None = None

    def forward(self, x, cache=None, capture=False):
        """x (B, T, D) -> y (B, T, D), or with `capture` (y, probabilities (B, H, T, Tk) as an array).

        cache: a `LayerCache`; the tokens of x come after those that it holds, and join them. capture: True, or a
        `Recording`, which also gets the values and the outputs of the heads.
        """
        B, T, D = x.shape
        heads = self.qkv(x).reshape(B, T, 3 * self.heads, self.head_width).transpose(1, 2)
        q, k, v = heads.split(self.heads, axis=1)  # (B, H, T, d) each
        if cache is not None:
            k, v = cache.append(k, v)
        o = scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (B, H, T, d)
        heard = o if self.head_mask is None else o * self.head_mask.reshape(self.heads, 1, 1)
        y = self.output(heard.transpose(1, 2).reshape(B, T, D))
        if not capture:
            return y
        probabilities = self.probabilities(q, k, v)
        if isinstance(capture, Recording):
            capture.add(probabilities, v.data, o)
        return y, probabilities

    def probabilities(self, query, key, value) -> np.ndarray:
        """What every query gives to every key, (B, H, Tq, Tk), from the lse of the fused kernel.

        The kernel runs once more for it, so that `forward` need not keep what only an onlooker wants.
        """
        q, k, v = query.data, key.data, value.data
        options = {"scale": 1.0 / math.sqrt(self.head_width), "causal": self.causal}
        _, lse = kernels.attention_forward(q, k, v, **options)
        return kernels.attention_probabilities(q, k, lse, **options)

    def extra_repr(self):
        return f"heads={self.heads}, head_width={self.head_width}" + ("" if self.causal else ", causal=False")


def _three(init):
    """q, k and v are three maps: each gets a start of its own fan-in and fan-out, not that of the (3D, D) matrix."""

    def initialize(shape, generator):
        return np.concatenate([init((shape[0] // 3, shape[1]), generator) for _ in range(3)])

    return initialize
