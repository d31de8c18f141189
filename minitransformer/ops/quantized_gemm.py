"""The linear layer with a weight in few bits, for inference and for training with rounding in the loop."""

from __future__ import annotations

from .. import kernels
from ..function import Function, xp
from ..kernels.devices import device, device_of
from ..kernels.quantized_weight import QuantizedWeight
from ..tensor import Tensor
from .activation import ended_by

__all__ = ["quantized_gemm"]


class QuantizedGEMM(Function):
    """y = x̂ Ŵᵀ + b,   dx = dy Ŵ,   dW = dyᵀ x̂,   db = Σ_rows dy

    Ŵ is the weight rounded to its format, x̂ the input, rounded to int8 where inputs="int8". Rounding is a staircase,
    whose derivative is 0 almost everywhere and says nothing; the straight-through gradient counts it as 1, so that what
    belongs to Ŵ and x̂ is handed to W and x. The gradient is exact in everything else. What is clipped by a static
    scale passes too.

    Shapes: x (..., K), W (N, K) or None where `quantized` is given, b (N,) or None -> y (..., N).
    Source: Bengio et al. 2013; Jacob et al. 2018, §3; document D1 §4.1a.
    """

    def forward(self, x, weight, bias, *, quantized, format, group, activation, inputs, input_scale):
        if quantized is None:
            quantized = QuantizedWeight.quantize(weight, format, group)
        if any(self.needs):
            self.quantized, multiplied = quantized, x if self.needs[1] else None
            if inputs == "int8" and self.needs[1]:
                codes, scales = kernels.quantize_rows(x, input_scale)
                multiplied = codes.astype(x.dtype) * scales.astype(x.dtype)[..., None]
            self.save(multiplied)
        return kernels.quantized_gemm(x, quantized, bias, activation, inputs, input_scale)

    def backward(self, dy):
        (x,), (N, K), np = self.saved, self.quantized.shape, xp(dy)
        nothing = np.zeros((), dtype=dy.dtype)  # stands for an array that no wanted gradient reads
        if self.needs[0]:
            weight = device(device_of(dy)).put(self.quantized.dequantize(dy.dtype))
        else:
            weight = np.broadcast_to(nothing, (N, K))
        x = x if self.needs[1] else np.broadcast_to(nothing, (*dy.shape[:-1], K))
        return kernels.linear_backward(dy, x, weight, self.needs)


def quantized_gemm(
    x, weight, bias=None, activation=None, *, format=None, group=None, inputs="float", input_scale=None
) -> Tensor:
    """f(x Ŵᵀ + b): x (..., K), weight (N, K), bias (N,) or None -> (..., N); f as in `linear`.

    weight: a `QuantizedWeight`, which stays as it is; or a float tensor, which is rounded to `format` (and `group`) in
    each call, on the CPU wherever it lives, and trained by the straight-through gradient. inputs="int8" rounds x too,
    by input_scale or row by row.
    Raises TypeError where a float weight comes without a format, or a `QuantizedWeight` with one.
    """
    fixed = isinstance(weight, QuantizedWeight)
    if fixed and (format or group):
        raise TypeError(f"quantized_gemm: the weight is {weight.format} already, so format and group must be None")
    if not fixed and format is None:
        raise TypeError("quantized_gemm: weight must be a QuantizedWeight, or come with the format to round it to")
    return ended_by(
        activation,
        lambda f: QuantizedGEMM.apply(
            x, None if fixed else weight, bias,
            quantized=weight if fixed else None, format=format, group=group,
            activation=f, inputs=inputs, input_scale=input_scale,
        ),
        x, weight, bias,
    )  # fmt: skip
