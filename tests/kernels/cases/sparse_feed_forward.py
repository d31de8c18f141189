import numpy as np

from . import Case, cases, layouts, normal, wide

# tokens, columns of the weight, its rows, how many of them are chosen
SIZES = [(1, 7, 9, 3), (3, 64, 50, 8), (2, 1, 1, 1), (4, 129, 40, 40), (16, 33, 700, 65), (1, 600, 900, 130)]
EMPTY = [(0, 5, 4, 2), (2, 5, 4, 0), (2, 0, 4, 3)]


def _chosen(rng, tokens, rows, k):
    """(tokens, k), ascending."""
    return np.sort(rng.permuted(np.broadcast_to(np.arange(rows), (tokens, rows)), axis=1)[:, :k], axis=-1)


def _calls(rng, dtype):
    """weight, indices, tokens: layouts, sizes, a choice for all tokens, one in any order with repeats."""
    for weight in layouts(rng, (11, 6), dtype):
        yield weight, _chosen(rng, 3, 11, 4).astype(np.int32), 3
    for tokens, columns, rows, k in SIZES + EMPTY:
        weight = normal(rng, (rows, columns), dtype)
        yield weight, _chosen(rng, tokens, rows, k), tokens
        yield weight, _chosen(rng, 1, rows, k), tokens
    yield normal(rng, (20, 17), dtype), rng.integers(0, 20, (3, 12)).astype(np.uint8), 3


@cases("gathered_linear")
def gathered_linear(rng, dtype):
    for weight, indices, tokens in _calls(rng, dtype):
        K = weight.shape[1]
        x = normal(rng, (K, tokens), dtype).T
        size = np.einsum(
            "nk,njk->nj", np.abs(wide(x)), np.abs(wide(weight))[np.broadcast_to(indices, (tokens, indices.shape[1]))]
        )
        yield Case((x, weight, indices), terms=max(K, 1), condition=size)


@cases("gathered_sum")
def gathered_sum(rng, dtype):
    for weight, indices, tokens in _calls(rng, dtype):
        k = indices.shape[1]
        a = normal(rng, (k, tokens), dtype).T
        size = np.einsum("nj,njd->nd", np.abs(wide(a)), np.abs(wide(weight))[np.broadcast_to(indices, (tokens, k))])
        yield Case((a, weight, indices), terms=max(k, 1), condition=size)
