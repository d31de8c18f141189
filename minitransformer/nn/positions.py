"""Positions: what tells a model, which sees its tokens all at once, in which order they stand."""

from __future__ import annotations

import numpy as np

from ..kernels.devices import device as open_device
from ..kernels.devices import device_of
from ..ops.rotary import rotary, turned
from ..tensor import plain
from .module import Module, check_size

__all__ = ["RotaryEmbedding"]


class RotaryEmbedding(Module):
    """RoPE: queries and keys are turned by angles that grow with their position, so that

        (R_m q)·(R_n k) = q·(R_{n-m} k),        R_t turns pair i by θ_{t,i} = t · base^(-2i/d)

    a score depends on where two tokens stand only by their distance. Nothing is learned.

    Shapes: x (B, H, T, d) -> (B, H, T, d), of tokens at the positions start, start + 1, …; start is an integer, or one
    for each row (B,). interleaved: a pair is two neighbours, as in the paper and in GGUF files of the "llama"
    architecture, rather than channels i and i + d/2, as in Hugging Face's; the weights must be laid out to match.
    Angles are worked out in float64: in float32 that of position 8191 would be off by up to 2⁻¹².
    Source: Su et al. 2021, eq. 15 and 34.
    """

    def __init__(self, width: int, base: float = 10_000.0, interleaved: bool = False):
        check_size("RotaryEmbedding", width=width)
        if width % 2 or not 0 < base < float("inf"):
            raise ValueError(f"RotaryEmbedding: width must be even and base positive, got {width} and {base}")
        self.width, self.base, self.interleaved = width, base, interleaved
        self._tables = {}  # (dtype, device) -> cos, sin of the positions so far asked for

    def forward(self, x, start=0):
        return rotary(x, *self._angles(x, start), self.interleaved)

    def turn(self, x, start=0):
        """The same of an array."""
        return turned(x, *self._angles(x, start), self.interleaved)

    def _angles(self, x, start):
        T = x.shape[-2]
        if isinstance(start, np.ndarray):  # one a row
            cos, sin = self._table(x, int(start.max(initial=0)) + T)
            at = start[:, None] + np.arange(T)
            return cos[at][:, None], sin[at][:, None]  # (B, 1, T, d/2)
        cos, sin = self._table(x, start + T)
        return cos[start : start + T], sin[start : start + T]

    def _table(self, x, length):
        """cos and sin (at least `length`, d/2); doubled when too short, so decoding makes few of them."""
        key = x.dtype, device_of(plain(x))
        if key not in self._tables or len(self._tables[key][0]) < length:
            positions = np.arange(1 << (length - 1).bit_length())
            angles = np.outer(positions, self.base ** (-np.arange(0, self.width, 2) / self.width))
            put = open_device(key[1]).put
            self._tables[key] = put(np.cos(angles).astype(x.dtype)), put(np.sin(angles).astype(x.dtype))
        return self._tables[key]

    def extra_repr(self):
        return f"{self.width}, base={self.base:g}" + (", interleaved" if self.interleaved else "")
