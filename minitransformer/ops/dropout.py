"""Dropout, whose mask is never stored."""

from __future__ import annotations

from .. import kernels
from ..function import Function
from ..random import Generator
from ..tensor import Tensor

__all__ = ["dropout"]


class Dropout(Function):
    """Each element is zeroed with probability p, the rest grow by 1/(1-p), so that the mean stays.

        y = x m/(1-p),   dx = dy m/(1-p),   m_i = [bits_i >= p 2³²]

    The mask m is a function of (key, offset); backward computes it again.   Source: Srivastava et al. 2014.
    """

    def forward(self, x, *, p, key, offset):
        self.p, self.key, self.offset = p, key, offset
        return kernels.dropout(x, p, key, offset)

    def backward(self, dy):
        return kernels.dropout(dy, self.p, self.key, self.offset)


def dropout(x, p: float, generator: Generator) -> Tensor:
    """Zero each element with probability p and scale the rest by 1/(1-p). Raises ValueError unless 0 <= p < 1."""
    if p == 0.0:
        return x
    key, offset = generator.reserve(x.size)
    return Dropout.apply(x, p=p, key=key, offset=offset)
