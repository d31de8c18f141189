import numpy as np

from . import Case, cases, layouts, normal


@cases("topk_activation")
def topk_activation(rng, dtype):
    for x in layouts(rng, (5, 33), dtype):
        yield Case((x, 7), condition=0)
        yield Case((x, 7, "magnitude"), condition=0)
    for shape, k in (((1,), 1), ((9,), 9), ((3, 2, 64), 1), ((4, 65), 64), ((300, 100), 15), ((2, 5000), 750)):
        yield Case((normal(rng, shape, dtype), k), condition=0)
        yield Case((normal(rng, shape, dtype, scale=1e4), k, "magnitude"), condition=0)
    for shape in ((0, 5), (2, 0, 5)):
        yield Case((np.zeros(shape, dtype), 2), condition=0)
    few = rng.integers(-2, 3, (40, 37)).astype(dtype)  # ties everywhere
    for k in (1, 6, 18, 36, 37):
        yield Case((few, k), condition=0)
        yield Case((few, k, "magnitude"), condition=0)
    zeros = np.where(rng.random((6, 20)) < 0.5, dtype.type(-0.0), dtype.type(0.0))  # -0 and 0 are equal
    yield Case((zeros, 5), condition=0)
    yield Case((np.full((3, 16), -7, dtype), 4), condition=0)
    special = normal(rng, (8, 30), dtype)
    special[rng.random(special.shape) < 0.3] = np.inf
    special[rng.random(special.shape) < 0.2] = -np.inf
    special[rng.random(special.shape) < 0.2] = -np.nan
    for k in (1, 9, 25, 30):
        yield Case((special, k), condition=0)
        yield Case((special, k, "magnitude"), condition=0)
