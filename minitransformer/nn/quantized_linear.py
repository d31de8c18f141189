"""Linear layer with a weight in few bits."""

from __future__ import annotations

from ..kernels.quantized_weight import QuantizedWeight
from ..ops.quantized_gemm import quantized_gemm
from .linear import Linear
from .module import Buffer, Module, Parameter

__all__ = ["QuantizedLinear"]


class QuantizedLinear(Module):
    """y = x Ŵᵀ + b with a weight that stays as it is: x (..., in_features) -> y (..., out_features).

    The weight's bytes are part of the module's state ("data"), its format is not. Its gradient flows to x and b.
    inputs="int8" rounds x too.
    """

    def __init__(self, weight: QuantizedWeight, bias=None, inputs: str = "float"):
        self.out_features, self.in_features = weight.shape
        self.format, self.group, self.layout, self.inputs = weight.format, weight.group, weight.layout, inputs
        self.data = Buffer(weight.data)
        self._weight = weight
        self.bias = bias if bias is None or isinstance(bias, Parameter) else Parameter(bias)

    @classmethod
    def from_linear(cls, linear: Linear, format: str = "int8", group=None, inputs: str = "float") -> QuantizedLinear:
        """The same layer, its weight rounded and laid out for the kernels; the bias is shared."""
        return cls(QuantizedWeight.quantize(linear.weight.data, format, group).panels(), linear.bias, inputs)

    @property
    def weight(self) -> QuantizedWeight:
        """The weight, a view of the module's bytes; checked anew only where these were exchanged."""
        if self._weight.data is not self.data.data:
            shape = self.out_features, self.in_features
            self._weight = QuantizedWeight(self.format, shape, self.data.data, self.group, self.layout)
        return self._weight

    def forward(self, x):
        return quantized_gemm(x, self.weight, self.bias, inputs=self.inputs)

    def extra_repr(self):
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, {self.out_features}, {self.format}{bias}"
