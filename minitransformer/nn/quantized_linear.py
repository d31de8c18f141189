"""Linear layer with a weight in few bits."""

from __future__ import annotations

import numpy as np

from ..kernels.contract import ROUTINES
from ..kernels.quantized_weight import FORMATS, QuantizedWeight
from ..ops.quantized_gemm import quantized_gemm
from .linear import Linear
from .module import Buffer, Module, Parameter

__all__ = ["QuantizedLinear"]


class QuantizedLinear(Module):
    """y = x Ŵᵀ + b with a weight that stays as it is: x (..., in_features) -> y (..., out_features).

    The weight's bytes are part of the module's state, under a name that says how to read them ("data.q4_0.panels",
    "data.int4.64.rows"), so that no layer loads those of another format. The gradient flows to x and b.
    inputs="int8" rounds x too, row by row or, where it is given, by input_scale.

    The weight is taken as it lies: rows may be those of a mapped file. In panels it is multiplied faster, for one token
    by a factor above 2: `QuantizedLinear(weight.panels(), bias)`.
    """

    def __init__(self, weight: QuantizedWeight, bias=None, inputs: str = "float", input_scale: float | None = None):
        if not isinstance(weight, QuantizedWeight):
            raise TypeError(f"QuantizedLinear: weight must be a QuantizedWeight, got {type(weight).__name__}")
        self.out_features, self.in_features = weight.shape
        self._weight = weight
        self.bias = bias if bias is None or isinstance(bias, Parameter) else Parameter(bias)
        b = None if bias is None else self.bias.data
        nothing = np.empty((0, self.in_features), np.float32 if b is None else b.dtype)
        ROUTINES["quantized_gemm"](nothing, weight, b, None, inputs, input_scale)  # whether they fit together
        self.format, self.group, self.layout = weight.format, weight.group, weight.layout
        self.inputs, self.input_scale = inputs, input_scale
        group = [str(weight.group)] if len(FORMATS[weight.format][1] or ()) > 1 else []
        self.data = {".".join([weight.format, *group, weight.layout]): Buffer(weight.data)}

    @classmethod
    def from_linear(
        cls, linear: Linear, format: str = "int8", group=None, inputs: str = "float", input_scale=None
    ) -> QuantizedLinear:
        """The same layer, its weight rounded and laid out for the kernels; the bias is a copy."""
        bias = linear.bias
        copy = None if bias is None else Parameter(bias.data.copy(), bias.requires_grad)
        weight = QuantizedWeight.quantize(linear.weight.data, format, group)
        return cls(weight.panels(), copy, inputs, input_scale)

    @property
    def weight(self) -> QuantizedWeight:
        """The weight, a view of the module's bytes; made and checked anew only where these were exchanged."""
        (data,) = self.data.values()
        if data.device != "cpu":
            raise TypeError(f'QuantizedLinear: it computes on cpu, its bytes live on {data.device}; .to("cpu") it')
        if self._weight.data is not data.data:
            shape = self.out_features, self.in_features
            self._weight = QuantizedWeight(self.format, shape, data.data, self.group, self.layout)
        return self._weight

    def forward(self, x, activation=None):
        return quantized_gemm(x, self.weight, self.bias, activation, inputs=self.inputs, input_scale=self.input_scale)

    def extra_repr(self):
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, {self.out_features}, {self.format}{bias}"
