"""GELU and SiLU: csrc/cuda/activation.cu."""

import numpy as np

from .launch import elements, empty, kernel, packed


def _each(name, *arrays):
    arrays = [packed(a) for a in arrays]
    y = empty(arrays[0])
    if y.size:
        kernel("activation", name, y)(*elements(y.size), (*arrays, y, np.int64(y.size)))
    return y


def gelu(x, approximate):
    return _each("gelu" if approximate == "none" else "gelu_tanh", x)


def gelu_backward(dy, x, approximate):
    return _each("gelu_backward" if approximate == "none" else "gelu_tanh_backward", dy, x)


def silu(x):
    return _each("silu", x)


def silu_backward(dy, x):
    return _each("silu_backward", dy, x)
