import numpy as np

from . import Case, cases, layouts, normal


@cases("dropout")
def dropout(rng, dtype):
    for p in (0.0, 0.1, 0.5, 0.999):
        for x in layouts(rng, (3, 5, 7), dtype):
            yield Case((x, p, int(rng.integers(2**63)), int(rng.integers(2**63))))
    for shape in ((), (0,), (3, 0), (1,), (7,), (33,), (1031,), (50_001,)):
        yield Case((normal(rng, shape, dtype), 0.25, 7, 2**64 - 3))  # the counter wraps round
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e4] * 8).astype(dtype)  # dropped is 0, whatever it was
    yield Case((special, 0.5, 1, 1))
