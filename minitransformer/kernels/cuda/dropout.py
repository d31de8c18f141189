"""Dropout: csrc/cuda/dropout.cu."""

import math

import numpy as np

from .launch import elements, empty, kernel, packed, wide


def dropout(x, p, key, offset):
    x, y, p = packed(x), empty(x), float(p)
    if x.size:
        threshold = math.ceil(p * 2**32)  # a word is at least p 2³² exactly where it is at least this integer
        numbers = np.uint64(key), np.uint64(offset), np.uint64(threshold), wide(x).type(1 - p)
        kernel("dropout", "dropout", x)(*elements(-(-x.size // 4)), (x, y, np.int64(x.size), *numbers))
    return y
