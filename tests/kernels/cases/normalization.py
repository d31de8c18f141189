import numpy as np

from . import Case, cases, layouts, normal, wide

EPS = 1e-5


def _inputs(rng, dtype):
    """x in every layout; widths beside the vector lengths; empty; many rows; a spread of 1 on a mean of 1e4 or 30."""
    yield from layouts(rng, (3, 5, 7), dtype)
    for shape in ((4, 1), (5, 33), (2, 3, 130), (19,), (1, 16), (300, 24), (1100, 65)):
        yield normal(rng, shape, dtype, 3)
    for shape in ((0, 4), (4, 0), (0,)):
        yield normal(rng, shape, dtype)
    yield normal(rng, (6, 40), dtype, 1e4)
    yield normal(rng, (6, 40), dtype, 1, shift=30)
    yield normal(rng, (6, 1000), dtype, 1, shift=1e4)
    yield np.full((3, 9), 2.5, dtype)  # no spread at all
    yield normal(rng, (4, 65), dtype, 1e-3)


def _mean(a):
    return a.sum(axis=-1, keepdims=True) / max(a.shape[-1], 1)


def _weight(rng, x, dtype):
    return normal(rng, (2 * x.shape[-1],), dtype)[::2]


@cases("layer_norm_forward")
def layer_norm_forward(rng, dtype):
    for i, x in enumerate(_inputs(rng, dtype)):
        weight, bias = _weight(rng, x, dtype), None if i % 3 == 0 else _weight(rng, x, dtype)
        a, w = wide(x, weight)
        centred = a - _mean(a)
        rstd = 1 / np.sqrt(_mean(centred * centred) + EPS)
        size = _mean(np.abs(a)) + np.abs(a)  # of the numbers that cancel in x - mean: the condition is |x|/σ
        y = np.abs(w) * (np.abs(centred) + size) * rstd + (0 if bias is None else np.abs(wide(bias)))
        # an error e in the mean enters the variance as e²
        lost = (np.finfo(np.float64).eps if dtype == np.float64 else 1e-7) * (_mean(a * a)) * x.shape[-1] * rstd**2
        condition = (y * (1 + lost), _mean(np.abs(a))[..., 0], (rstd * (1 + lost))[..., 0])
        yield Case((x, weight, bias, EPS), terms=max(x.shape[-1], 1), condition=condition)


@cases("layer_norm_backward")
def layer_norm_backward(rng, dtype):
    for x in _inputs(rng, dtype):
        weight, dy = _weight(rng, x, dtype), normal(rng, x.shape[::-1], dtype).transpose()
        a = wide(x)
        mean = _mean(a).astype(dtype)
        rstd = (1 / np.sqrt(_mean((a - _mean(a)) ** 2) + EPS)).astype(dtype)
        h, g = np.abs((a - wide(mean)) * wide(rstd)), np.abs(wide(dy) * wide(weight))
        dx = wide(rstd) * (g + _mean(g) + h * _mean(g * h))
        rows = tuple(range(x.ndim - 1))
        condition = (dx, (np.abs(wide(dy)) * h).sum(axis=rows), np.abs(wide(dy)).sum(axis=rows))
        terms = max(x.shape[-1], x.size // max(x.shape[-1], 1), 1)
        yield Case((dy, x, weight, mean[..., 0], rstd[..., 0]), terms=terms, condition=condition)


@cases("rms_norm_forward")
def rms_norm_forward(rng, dtype):
    for x in _inputs(rng, dtype):
        yield Case((x, _weight(rng, x, dtype), EPS), terms=max(x.shape[-1], 1))  # squares do not cancel: relative error


@cases("rms_norm_backward")
def rms_norm_backward(rng, dtype):
    for x in _inputs(rng, dtype):
        weight, dy = _weight(rng, x, dtype), normal(rng, x.shape[::-1], dtype).transpose()
        rstd = (1 / np.sqrt(_mean(wide(x) ** 2) + EPS)).astype(dtype)
        h, g = np.abs(wide(x) * wide(rstd)), np.abs(wide(dy) * wide(weight))
        dx = wide(rstd) * (g + h * _mean(g * h))
        terms = max(x.shape[-1], x.size // max(x.shape[-1], 1), 1)
        condition = (dx, (np.abs(wide(dy)) * h).sum(axis=tuple(range(x.ndim - 1))))
        yield Case((dy, x, weight, rstd[..., 0]), terms=terms, condition=condition)
