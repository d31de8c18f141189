"""Random words: csrc/cuda/random.cu."""

import numpy as np

from ..devices import device as _device
from .launch import elements, kernel


def random_bits(key, offset, count, device="cpu"):
    words = _device(device).arrays.empty(count, dtype=np.uint32)
    if count:
        run = kernel("random", "random_bits", words, suffix="")
        run(*elements(-(-count // 4)), (np.uint64(key), np.uint64(offset), words, np.int64(count)))
    return words
