import numpy as np

from . import Case, cases, layouts, normal, wide


def _inputs(rng, dtype):
    """(x, axis): every axis, layouts, short and empty rows, work for several threads, ±1e4, ties, masked entries."""
    for x in layouts(rng, (3, 5, 7), dtype):
        for axis in (-1, 0, 1):
            yield x, axis
    shapes = [((4, 1), -1), ((5, 33), -1), ((33, 5), 0), ((2, 1031), 1), ((2, 3, 1, 130), 2), ((17,), 0)]
    for shape, axis in [*shapes, ((61, 1031), 1), ((1031, 61), 0)]:
        yield normal(rng, shape, dtype, 3), axis
    for shape in ((0, 4), (4, 0), (0,)):
        yield normal(rng, shape, dtype), -1
    yield np.full((3, 19), 2.5, dtype), -1  # ties
    yield normal(rng, (4, 37), dtype, 1e4).clip(-1e4, 1e4).astype(dtype), -1
    masked = normal(rng, (6, 21), dtype)
    masked[rng.random(masked.shape) < 0.4] = -np.inf
    masked[0, 1:] = -np.inf
    masked[1] = -np.inf  # a row of -inf alone
    masked[2, 3] = np.nan
    yield masked, -1


def _softmax(x, axis):
    """Float64 shift, probabilities and logarithm of the sum."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
        total = np.exp(shifted).sum(axis=axis, keepdims=True)
        return shifted, np.exp(shifted) / total, np.log(total)


@cases("softmax")
def forward(rng, dtype):
    for x, axis in _inputs(rng, dtype):
        shifted, y, _ = _softmax(wide(x), axis)
        size = np.where(np.isfinite(shifted), np.abs(shifted), 0)  # rounding x - max moves exp by as much
        spread = 1 + size + (y * size).sum(axis=axis, keepdims=True)
        yield Case((x, axis), terms=x.shape[axis], condition=y * spread)


@cases("log_softmax")
def log_forward(rng, dtype):
    for x, axis in _inputs(rng, dtype):
        shifted, y, log_total = _softmax(wide(x), axis)
        size = np.where(np.isfinite(shifted), np.abs(shifted), 0)
        spread = 1 + log_total + size + (y * size).sum(axis=axis, keepdims=True)
        yield Case((x, axis), terms=x.shape[axis], condition=spread)


@cases("softmax_backward")
def backward(rng, dtype):
    for x, axis in _inputs(rng, dtype):
        y = _softmax(wide(x), axis)[1].astype(dtype)
        dy = normal(rng, x.shape[::-1], dtype).transpose()
        a, b = np.abs(wide(dy, y))
        yield Case((dy, y, axis), terms=x.shape[axis], condition=b * (a + (a * b).sum(axis=axis, keepdims=True)))


@cases("log_softmax_backward")
def log_backward(rng, dtype):
    for x, axis in _inputs(rng, dtype):
        shifted, _, log_total = _softmax(wide(x), axis)
        y = (shifted - log_total).astype(dtype)
        dy = normal(rng, x.shape, dtype)
        a, b = wide(dy, y)
        p = np.exp(b) * (1 + np.where(np.isfinite(b), np.abs(b), 0))
        condition = np.abs(a) + p * np.abs(a).sum(axis=axis, keepdims=True)
        yield Case((dy, y, axis), terms=x.shape[axis], condition=condition)
