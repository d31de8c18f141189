"""Softmax and its logarithm: csrc/cuda/softmax.cu."""

import numpy as np

from ..devices import xp
from .launch import empty, kernel, packed, teams


def _along_rows(name, axis, *arrays):
    """Run a kernel on rows along the axis, which is brought to the end for it, and put back."""
    np_ = xp(arrays[0])
    rows = [packed(np_.moveaxis(a, axis, -1)) for a in arrays]
    result, n = empty(rows[0]), rows[0].shape[-1]
    if result.size:
        count = result.size // n
        run = kernel("softmax", name, result)
        run(*teams(count, n), (*rows, result, np.int64(count), np.int32(n)))
    return np_.moveaxis(result, -1, axis)


def softmax(x, axis):
    return _along_rows("softmax", axis, x)


def softmax_backward(dy, y, axis):
    return _along_rows("softmax_backward", axis, dy, y)


def log_softmax(x, axis):
    return _along_rows("log_softmax", axis, x)


def log_softmax_backward(dy, y, axis):
    return _along_rows("log_softmax_backward", axis, dy, y)
