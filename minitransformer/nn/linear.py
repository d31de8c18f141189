"""Linear layer."""

from __future__ import annotations

from ..ops.matmul import linear
from ..random import Generator
from .initialization import xavier_uniform, zeros
from .module import Module, Parameter, check_size

__all__ = ["Linear"]


class Linear(Module):
    """y = x Wᵀ + b:   x (..., in_features) -> y (..., out_features),   W (out_features, in_features).

    init(shape, generator) makes the weight; the bias starts at 0. layer(x, activation="gelu") is f(y): see `linear`.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, generator: Generator, init=xavier_uniform
    ):
        check_size("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init((out_features, in_features), generator))
        self.bias = Parameter(zeros(out_features)) if bias else None

    def forward(self, x, activation=None):
        return linear(x, self.weight, self.bias, activation)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")
