"""The k largest of each row, and products with chosen rows of a matrix: csrc/cuda/topk_activation.cu."""

import numpy as np

from ..contract import Unsupported
from ..devices import xp
from .launch import empty, kernel, packed


def topk_activation(x, k, by="value"):
    x = packed(x)
    n, k = x.shape[-1], int(k)
    y, indices = empty(x), empty(x, (*x.shape[:-1], k), np.int32)
    if x.size:
        run = kernel("topk_activation", "topk_activation", x)
        threads = 64 if n <= 256 else 256
        run((x.size // n,), (threads,), (x, y, indices, np.int32(n), np.int32(k), np.int32(by == "magnitude")))
    return y, indices


def gathered_linear(x, weight, indices):
    x, weight, indices = packed(x), packed(weight), packed(indices.astype(np.int64))
    y = empty(x, (len(x), indices.shape[1]))
    if y.size:
        run = kernel("topk_activation", "gathered_linear", x)
        sizes = np.int64(y.size), *_sizes(x, weight, indices)
        run((-(-y.size // 8),), (32, 8), (x, weight, indices, y, *sizes))
    return y


def gathered_sum(a, weight, indices):
    a, weight, indices = packed(a), packed(weight), packed(indices.astype(np.int64))
    y = empty(a, (len(a), weight.shape[1]))
    if len(y) > 65535:
        raise Unsupported(f"gathered_sum: {len(y)} tokens; the kernel takes at most 65535")
    if not y.size or not a.size:
        return xp(a).zeros_like(y)
    run = kernel("topk_activation", "gathered_sum", a)
    run((-(-y.shape[1] // 32), len(y)), (32, 8), (a, weight, indices, y, *_sizes(a, weight, indices)))
    return y


def _sizes(x, weight, indices):
    """k, rows and columns of the weight, and whether each token has its own choice."""
    return *map(np.int32, (indices.shape[1], *weight.shape)), np.int32(len(indices) == len(x))
