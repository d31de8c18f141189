import numpy as np

from . import Case, cases, layouts, normal, wide


def _inputs(rng, dtype):
    """|dy/dx| stays below 1.13, so the rounding of a number as large as x is the condition of y, and dy that of dx."""
    yield from layouts(rng, (3, 5, 7), dtype, 2)
    for shape in ((), (0,), (3, 0), (1,), (16,), (33,), (1031,), (50_001,)):
        yield normal(rng, shape, dtype, 3)
    yield np.linspace(-12, 12, 4001).astype(dtype)
    yield np.array([-1e4, -100, -20, -0.0, 0.0, 1e-30, -1e-4, 20, 100, 1e4, np.nan], np.float64).astype(dtype)


@cases("gelu")
def gelu(rng, dtype):
    for approximate in ("none", "tanh"):
        for x in _inputs(rng, dtype):
            yield Case((x, approximate), condition=np.abs(wide(x)))


@cases("gelu_backward")
def gelu_backward(rng, dtype):
    for approximate in ("none", "tanh"):
        for x in _inputs(rng, dtype):
            dy = normal(rng, x.shape[::-1], dtype).transpose()
            yield Case((dy, x, approximate), condition=np.abs(wide(dy)))


@cases("silu")
def silu(rng, dtype):
    for x in _inputs(rng, dtype):
        yield Case((x,), condition=np.abs(wide(x)))


@cases("silu_backward")
def silu_backward(rng, dtype):
    for x in _inputs(rng, dtype):
        dy = normal(rng, x.shape[::-1], dtype).transpose()
        yield Case((dy, x), condition=np.abs(wide(dy)))
