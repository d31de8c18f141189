"""The gradient of a table look-up: csrc/cuda/embedding.cu."""

import numpy as np

from ..devices import xp
from .launch import empty, kernel, packed


def embedding_backward(dy, indices, rows):
    np_, n = xp(dy), dy.shape[-1]
    dweight = empty(dy, (rows, n))
    if not dweight.size:
        return dweight
    tokens = indices.reshape(-1).astype(np.int64)
    order = np_.argsort(tokens, kind="stable")
    start = np_.searchsorted(tokens[order], np_.arange(rows + 1))
    threads = 32 * min(-(-n // 32), 8)
    grid = -(-n // threads), min(rows, 65535)
    run = kernel("embedding", "embedding_backward", dy)
    run(grid, (threads,), (packed(dy), order, start.astype(np.int64), dweight, np.int64(rows), np.int32(n)))
    return dweight
