"""Rotary position embedding."""

from __future__ import annotations

from ..function import Function, xp
from ..kernels.precision import computed_in_float32
from ..tensor import Tensor, plain

__all__ = ["rotary"]


class Rotary(Function):
    """Channels in pairs, each turned by an angle of its own:

        y₁ = x₁ cos θ - x₂ sin θ        dx₁ =  dy₁ cos θ + dy₂ sin θ
        y₂ = x₂ cos θ + x₁ sin θ        dx₂ =  dy₂ cos θ - dy₁ sin θ

    A turn keeps lengths, and its transpose is the turn back: backward is forward with -θ.
    Pairs (x₁, x₂): channels i and i + d/2 (half-split), or 2i and 2i + 1 (interleaved).
    Shapes: x (..., T, d), cos and sin (..., T, d/2), which broadcast -> y (..., T, d).
    Source: Su et al. 2021, §3.4.2.
    """

    def forward(self, x, *, cos, sin, interleaved=False):
        self.turn = cos, sin, interleaved
        return turned(x, cos, sin, interleaved)

    def backward(self, dy):
        cos, sin, interleaved = self.turn
        return turned(dy, cos, -sin, interleaved)


@computed_in_float32
def turned(x, cos, sin, interleaved):
    """`rotary` of an array."""
    half = x.shape[-1] // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    x1, x2 = x[..., first], x[..., second]
    y = xp(x).empty_like(x)
    y[..., first] = x1 * cos - x2 * sin
    y[..., second] = x2 * cos + x1 * sin
    return y


def rotary(x, cos, sin, interleaved: bool = False) -> Tensor:
    """Turn the pairs of channels of x (..., T, d) by angles given as cos and sin (..., T, d/2), which take no gradient.

    Raises ValueError for an odd d, and for cos and sin of another shape.
    """
    cos, sin, width = plain(cos), plain(sin), x.shape[-1]
    if width % 2 or cos.shape != sin.shape or cos.shape[-2:] != (x.shape[-2], width // 2):
        raise ValueError(
            f"rotary: x {tuple(x.shape)} takes cos and sin (..., {x.shape[-2]}, {width / 2:g}), got {tuple(cos.shape)} "
            f"and {tuple(sin.shape)}" + (f"; the {width} channels are no pairs" if width % 2 else "")
        )
    return Rotary.apply(x, cos=cos, sin=sin, interleaved=interleaved)
