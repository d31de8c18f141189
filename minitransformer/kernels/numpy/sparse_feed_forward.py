"""Products with chosen rows of a weight matrix."""

import numpy as np

from ..precision import computed_in_float32


@computed_in_float32
def gathered_linear(x, weight, indices):
    if len(indices) == 1:  # one choice for all tokens
        return x @ weight[indices[0]].T
    y = np.empty(indices.shape, x.dtype)
    for n, rows in enumerate(indices):
        y[n] = weight[rows] @ x[n]
    return y


@computed_in_float32
def gathered_sum(a, weight, indices):
    if len(indices) == 1:
        return a @ weight[indices[0]]
    y = np.empty((len(a), weight.shape[1]), a.dtype)
    for n, rows in enumerate(indices):
        y[n] = a[n] @ weight[rows]
    return y
