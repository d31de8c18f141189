import numpy as np

from . import Case, cases, layouts, normal, wide


def _case(dy, indices, rows):
    size = np.zeros((rows, dy.shape[-1]))
    if dy.size:
        np.add.at(size, indices.reshape(-1), np.abs(wide(dy)).reshape(-1, dy.shape[-1]))
    terms = max(int(np.bincount(indices.reshape(-1).astype(np.int64)).max(initial=0)), 1)
    return Case((dy, indices, rows), terms=terms, condition=size)


@cases("embedding_backward")
def embedding_backward(rng, dtype):
    for dy in layouts(rng, (4, 6, 7), dtype):
        yield _case(dy, rng.integers(0, 5, (6, 4)).T, 5)
    shapes = [((1,), 1, 1), ((40,), 33, 1), ((3, 50), 16, 1000), ((300,), 65, 3), ((), 8, 4), ((2000,), 33, 700)]
    for shape, D, rows in shapes:
        yield _case(normal(rng, (*shape, D), dtype), np.asarray(rng.integers(0, rows, shape)), rows)
    for dtype_of_indices in (np.int32, np.uint8, np.int16, np.uint64):
        yield _case(normal(rng, (20, 9), dtype), rng.integers(0, 7, 20).astype(dtype_of_indices), 7)
    for N, D, rows in ((0, 4, 3), (5, 0, 3), (0, 4, 0)):
        yield _case(normal(rng, (N, D), dtype), np.zeros(N, np.int64), rows)
