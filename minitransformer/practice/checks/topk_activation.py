"""Lesson 12: where the k largest lie, their backward, the bound of a speed-up, a layer that reads only what counts."""

import math

import numpy as np

from . import Wrong, arrays, check, equal, forbid, frozen

for _number in ("12.1", "12.2", "12.4"):
    forbid(_number, "topk_activation", "gathered_linear", "gathered_sum")


def _indices(topk_indices, x, k, expected=None):
    x = frozen(np.asarray(x))
    if expected is None:
        expected = [sorted(sorted(range(x.shape[1]), key=lambda i: (-row[i], i))[:k]) for row in x.tolist()]
    equal("topk_indices", topk_indices(x, k), np.array(expected, np.int64), {"x": x, "k": k}, exact=True)


@check("12.1", "2 of [3 -1 2 2 0], on paper")
def _(topk_indices):
    _indices(topk_indices, np.array([[3.0, -1.0, 2.0, 2.0, 0.0]]), 2, [[0, 2]])


@check("12.1", "ties, signed zeros, negative rows, k = n")
def _(topk_indices):
    _indices(topk_indices, np.array([[1.0, 1.0, 1.0, 1.0], [-0.0, 0.0, -0.0, 0.0], [-4.0, -1.0, -3.0, -1.0]]), 3)
    _indices(topk_indices, np.array([[2.0, 9.0, 4.0]], np.float32), 3)


@check("12.1", "random rows of few values, and of many")
def _(topk_indices):
    rng = np.random.default_rng(0)
    for N, n, k in ((7, 9, 1), (5, 30, 12), (3, 200, 30)):
        _indices(topk_indices, rng.integers(-3, 4, (N, n)).astype(np.float32), k)
        _indices(topk_indices, rng.standard_normal((N, n)), k)


@check("12.2", "what was kept goes back where it was kept")
def _(topk_backward):
    dy, indices = frozen(np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])), frozen(np.array([[0, 2], [1, 3]]))
    expected = np.array([[1.0, 0.0, 3.0, 0.0], [0.0, 6.0, 0.0, 8.0]])
    equal("dx", topk_backward(dy, indices), expected, {"dy": dy, "indices": indices}, exact=True)


@check("12.2", "float32 stays float32")
def _(topk_backward):
    dy, indices = frozen(np.array([[1.5, -2.5]], np.float32)), frozen(np.array([[1]]))
    equal("dx", topk_backward(dy, indices), np.array([[0.0, -2.5]], np.float32), {"dy": dy}, exact=True)


@check("12.2", "random rows")
def _(topk_backward):
    (dy,) = arrays(1, (20, 33))
    rng = np.random.default_rng(2)
    indices = np.sort(rng.permuted(np.tile(np.arange(33), (20, 1)), axis=1)[:, :6], axis=1)
    mask = np.zeros_like(dy)
    for row, places in zip(mask, indices, strict=True):
        row[places] = 1
    equal("dx", topk_backward(dy, indices), dy * mask, exact=True)


@check("12.3", "15 % of 3 matrices, one of them whole: 3 / 1.3, on paper")
def _(speedup_bound):
    equal("speedup_bound(3, 1, 0.15)", speedup_bound(3, 1, 0.15), 3 / 1.3)
    equal("speedup_bound(2, 1, 0.15)", speedup_bound(2, 1, 0.15), 2 / 1.15)
    equal("speedup_bound(3, 0, 0.15)", speedup_bound(3, 0, 0.15), 1 / 0.15)


@check("12.3", "a share of 1 wins nothing")
def _(speedup_bound):
    equal("speedup_bound(3, 1, 1.0, 5)", speedup_bound(3, 1, 1.0, 5), 1.0)


@check("12.3", "several tokens; a predictor that costs")
def _(speedup_bound):
    for arguments in ((3, 0, 0.15, 8), (2, 1, 0.5, 2), (3, 0, 0.2, 1, 0.25), (4, 2, 0.1, 3, 0.5)):
        matrices, whole, share, tokens, *extra = arguments
        union = 1 - math.prod([1 - share] * tokens)
        expected = matrices / (whole + union * (matrices - whole) + sum(extra))
        equal(f"speedup_bound{arguments}", speedup_bound(*arguments), expected)


def _relu2(sparse_relu2, x, up, down, k):
    g = np.maximum(up @ x, 0)
    chosen = sorted(range(len(g)), key=lambda m: (-g[m], m))[:k]
    hidden = down.copy()
    hidden[[m for m in range(len(g)) if m not in chosen]] = np.nan  # a row that is read shows
    expected = sum(g[m] ** 2 * down[m] for m in chosen)
    got = sparse_relu2(x, up, frozen(hidden), k)
    if isinstance(got, np.ndarray) and np.isnan(got).any():
        raise Wrong("y is NaN: rows of down that were not chosen hold NaN here, and 0 · NaN is NaN; do not read them")
    equal("y", got, expected, {"x": x, "k": k}, terms=len(x) + k, condition=len(x))


@check("12.4", "two neurons on paper")
def _(sparse_relu2):
    x, up = frozen(np.array([1.0, 2.0])), frozen(np.array([[1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]))
    _relu2(sparse_relu2, x, up, np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]), 1)


@check("12.4", "all neurons are the dense layer")
def _(sparse_relu2):
    x, up, down = arrays(9, (4,), (11, 4), (11, 4))
    _relu2(sparse_relu2, x, up, down, 11)


@check("12.4", "random layers, also with more chosen than are above zero")
def _(sparse_relu2):
    for seed, (D, M, k) in enumerate(((3, 8, 2), (8, 40, 6), (16, 64, 50))):
        x, up, down = arrays(seed, (D,), (M, D), (M, D))
        _relu2(sparse_relu2, x, up, down, k)
