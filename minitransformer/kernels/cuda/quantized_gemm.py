"""Products with a weight in few bits: csrc/cuda/quantized_gemm.cu; int8 by int8, quantized_gemm_tensor_cores.cu."""

import weakref

import numpy as np

from ..contract import Unsupported
from ..devices import device, device_of
from .launch import empty, kernel, packed, teams

FORMATS = {"int8": 0, "int4": 1, "q4_0": 1, "int4_zero": 2, "q8_0": 3, "q4_1": 4, "float16": 5, "bfloat16": 6}
ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "silu": 3, "gelu_tanh": 4}
FEW = 8  # rows of x, up to which a warp makes each output
SPARE = 64  # bytes behind a weight, for reads of whole words


def quantize_rows(x, scale=None):
    return _quantized(x, scale, x.shape[-1])


def _quantized(x, scale, stride):
    """Codes (…, stride), zeros behind the last column, and scales."""
    x = packed(x)
    codes, scales = empty(x, (*x.shape[:-1], stride), np.int8), empty(x, x.shape[:-1], np.float32)
    if scales.size:
        run, n = kernel("quantized_gemm", "quantize_rows", x), x.shape[-1]
        given = np.float32(0 if scale is None else scale)
        run(*teams(scales.size, n), (x, codes, scales, np.int64(scales.size), np.int32(n), np.int32(stride), given))
    return codes, scales


def quantized_gemm(x, weight, bias=None, activation=None, inputs="float", input_scale=None):
    x, bias = packed(x), None if bias is None else packed(bias)
    N, K = weight.shape
    y = empty(x, (*x.shape[:-1], N))
    if not y.size:
        return y
    M = y.size // N
    codes = inputs == "int8"
    if codes and weight.format == "int8" and K > 1 << 17:
        raise Unsupported(f"quantized_gemm: K = {K}; the sum of a row of int8 products fits an int up to {1 << 17}")
    if M > 65535 * 4:
        raise Unsupported(f"quantized_gemm: {M} rows; the CUDA kernel takes at most {65535 * 4}")
    if M <= FEW:
        name, grid, block = "product_of_few_codes" if codes else "product_of_few", (-(-N // 4), -(-M // 4)), (32, 4)
    elif codes and weight.format == "int8":
        name, grid, block = "product_of_bytes", (-(-N // 64), -(-M // 64)), (128,)
    else:
        name, grid, block = "product_of_codes" if codes else "product", (-(-N // 64), -(-M // 64)), (16, 16)
    sizes = map(np.int32, (M, N, K, FORMATS[weight.format], weight.group or 0, ACTIVATIONS[activation]))
    source = "quantized_gemm_tensor_cores" if name == "product_of_bytes" else "quantized_gemm"
    run = kernel(source, f"quantized_{name}", x)
    if codes:
        stride = -(-K // 32) * 32
        given, scales = _quantized(x, input_scale, stride)
        given = given.reshape(-1).view(np.int32)
        run(grid, block, (given, scales, _bytes(weight, device_of(x)), bias, y, *sizes, np.int32(stride // 4)))
    else:
        run(grid, block, (x, _bytes(weight, device_of(x)), bias, y, *sizes))
    return y


_there = weakref.WeakKeyDictionary()  # weight -> {device: its bytes there}


def _bytes(weight, place):
    """The weight's blocks on a device. They go there when first used, and stay as long as the weight does."""
    kept = _there.setdefault(weight, {})
    if place not in kept:
        data = weight.rows().data
        with_spare = np.zeros(-(-data.size // 4) * 4 + SPARE, np.uint8)
        with_spare[: data.size] = data
        kept[place] = device(place).put(with_spare)
    return kept[place]
