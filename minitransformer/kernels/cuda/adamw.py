"""The AdamW update and the squared norm: csrc/cuda/adamw.cu."""

import numpy as np

from ..devices import device_of
from .launch import elements, empty, kernel, packed, wide


def adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
    if not parameter.size:
        return
    numbers = (beta1, beta2, 1 - beta1, 1 - beta2, 1 - beta1**step, 1 - beta2**step, lr, eps, 1 - lr * weight_decay)
    arrays = parameter, packed(gradient), m, v, np.int64(parameter.size)
    run = kernel("adamw", "adamw_step", parameter)
    run(*elements(parameter.size), (*arrays, *map(wide(parameter).type, numbers)))


def squared_norm(x):
    x = packed(x)
    (blocks,), (threads,) = elements(x.size)
    sums = empty(x, (min(blocks, 1024),), np.float64)
    if x.size:
        kernel("adamw", "squared_norm", x)(sums.shape, (threads,), (x, sums, np.int64(x.size)))
    total = sums.sum()
    return float(total) if device_of(x) == "cpu" else total
