import numpy as np

from . import Case, cases, layouts, normal, wide


def _inputs(rng, dtype):
    """logits, targets, ignore_index, label_smoothing."""
    for i, logits in enumerate(layouts(rng, (9, 21), dtype, 2)):
        yield logits, rng.integers(0, 21, 18)[::2], -100, 0.1 * (i % 2)
    shapes = [(1, 1, 0.0), (3, 16, 0.0), (7, 33, 0.3), (5, 1031, 0.0), (65, 65, 0.1), (4, 50, 1.0)]
    shapes += [(1100, 65, 0.0), (3, 20_011, 0.1)]  # work for several threads
    for N, V, smoothing in shapes:
        targets = rng.integers(0, V, N).astype(np.int32 if N % 2 else np.int64)
        yield normal(rng, (N, V), dtype, 3), targets, -100, smoothing
    for dtype_of_targets, ignore in ((np.int64, -100), (np.int32, -1), (np.uint8, 7), (np.int64, 2**40)):
        targets = rng.integers(0, 11, 12)
        targets[[1, 5, 6]] = ignore
        yield normal(rng, (12, 11), dtype), targets.astype(dtype_of_targets), ignore, 0.2
    yield normal(rng, (3, 5), dtype), np.full(3, -100), -100, 0.1  # nothing but ignored rows
    yield normal(rng, (0, 5), dtype), np.zeros(0, np.int64), -100, 0.0
    yield normal(rng, (0, 0), dtype), np.zeros(0, np.int64), -100, 0.0
    yield normal(rng, (4, 37), dtype, 1e4).clip(-1e4, 1e4).astype(dtype), rng.integers(0, 37, 4), -100, 0.0
    yield np.full((3, 19), 2.5, dtype), np.array([0, 18, 7]), -100, 0.1  # ties
    masked = normal(rng, (3, 9), dtype)
    masked[:, 4:] = -np.inf
    masked[2, 0] = np.nan
    yield masked, np.array([0, 3, 1]), -100, 0.0
    nan_in_ignored_row = normal(rng, (4, 6), dtype)
    nan_in_ignored_row[1] = np.nan
    yield nan_in_ignored_row, np.array([1, -100, 2, 3]), -100, 0.1


def _finite(a):
    return np.where(np.isfinite(a), np.abs(a), 0)


def _lse(x):
    top = x.max(axis=1, keepdims=True, initial=-np.inf)
    return (top + np.log(np.exp(x - top).sum(axis=1, keepdims=True)))[:, 0]


@cases("cross_entropy_forward")
def forward(rng, dtype):
    for logits, targets, ignore, smoothing in _inputs(rng, dtype):
        x = wide(logits)
        lse, top = _lse(x), _finite(x).max(axis=1, initial=0)
        size = 1 + np.abs(lse) + np.log(max(x.shape[1], 1)) + 2 * top  # losses are differences of numbers of this size
        kept = np.where(targets == ignore, 0, size)
        kwargs = {"ignore_index": ignore, "label_smoothing": smoothing}
        yield Case((logits, targets), kwargs, terms=max(x.shape[1], 1), condition=(kept, size))


@cases("cross_entropy_backward")
def backward(rng, dtype):
    for logits, targets, ignore, smoothing in _inputs(rng, dtype):
        lse = _lse(wide(logits)).astype(dtype)
        dlosses = normal(rng, lse.shape, dtype)
        shifted = wide(logits) - wide(lse)[:, None]
        with np.errstate(over="ignore"):
            p = np.exp(shifted) * (1 + _finite(shifted))
        is_target = targets[:, None] == np.arange(logits.shape[1])
        size = np.abs(wide(dlosses))[:, None] * (p + (1 - smoothing) * is_target + smoothing / max(logits.shape[1], 1))
        condition = np.where((targets == ignore)[:, None], 0, size)
        kwargs = {"ignore_index": ignore, "label_smoothing": smoothing}
        yield Case((dlosses, logits, targets, lse), kwargs, condition=condition)
