"""Lesson 02: a kernel of one's own, forward and backward; merging partial results; a sliding window."""

import math

import numpy as np

from ... import gradient_check, kernels
from ...kernels.numpy import attention as definition
from ...ops.attention import scaled_dot_product_attention
from . import Wrong, arrays, check, cost, equal, forbid, frozen, only, parts

PAPER = [frozen(np.array(x, float)[None, None]) for x in ([[1, 0], [1, 1], [0, 1]], [[0, 1], [1, 0], [1, 1]],
                                                  [[4, 0], [0, 4], [2, 2]])]  # fmt: skip
# B, H, Tq, Tk, d, dv, causal
SHAPES = [
    (1, 1, 1, 1, 1, 1, False),
    (1, 1, 1, 3, 2, 2, False),
    (1, 1, 3, 3, 2, 2, True),
    (1, 1, 2, 5, 2, 1, True),  # queries at the end of a cache
    (2, 3, 7, 7, 5, 4, True),
    (1, 2, 1, 131, 16, 16, True),  # decoding
    (2, 2, 40, 135, 8, 9, True),
    (1, 2, 150, 150, 16, 3, False),
    (1, 2, 0, 4, 3, 3, False),
]
for number in ("02.1", "02.2", "02.3", "02.4"):
    forbid(number, "attention_forward", "attention_backward", "attention_probabilities")


def _inputs(seed, B, H, Tq, Tk, d, dv, dtype=np.float64):
    """q, k, v as strided views, as the heads of a model are."""
    views = arrays(seed, (B, Tq, H, d), (B, Tk, H, d), (B, Tk, H, dv), dtype=dtype)
    return [x.transpose(0, 2, 1, 3) for x in views]


def _condition(q, k, scale):
    """1 + the largest Σ scale |q||k|: an error of one eps in a score changes its probability by so many."""
    return 1 + float((np.abs(q) @ np.abs(k).swapaxes(-1, -2) * scale).max(initial=0))


def _forward(attention_forward, q, k, v, **options):
    """Compare one call with the definition."""
    got = parts("attention_forward", attention_forward(q, k, v, **options), 2)
    expected = definition.attention_forward(q, k, v, **options)
    terms = max(q.shape[3], k.shape[2], 1)
    for name, ours, right in zip(("o", "lse"), got, expected):
        equal(name, ours, right, {"q": q, "k": k, "v": v, **options}, terms=terms,
              condition=_condition(q, k, options["scale"]))  # fmt: skip


@check("02.1", "three tokens, on paper")
def _(attention_forward):
    _forward(attention_forward, *PAPER, scale=1 / math.sqrt(2), causal=True)


@check("02.1", "sizes from 0 to 150, caches, strided heads")
def _(attention_forward):
    for seed, (*shape, causal) in enumerate(SHAPES):
        q, k, v = _inputs(seed, *shape)
        _forward(attention_forward, q, k, v, scale=max(shape[4], 1) ** -0.5, causal=causal)


@check("02.1", "float32 stays float32")
def _(attention_forward):
    _forward(attention_forward, *_inputs(3, 1, 2, 5, 5, 4, 4, dtype=np.float32), scale=0.5, causal=True)


@check("02.1", "a mask is added to the scores")
def _(attention_forward):
    q, k, v = _inputs(4, 2, 2, 3, 4, 2, 2)
    for shape in ((3, 4), (2, 1, 1, 4), (2, 2, 3, 1)):
        _forward(attention_forward, q, k, v, scale=0.7, mask=arrays(5, shape)[0])


@check("02.1", "a row that may see no key gives o = 0, lse = -inf")
def _(attention_forward):
    q, k, v = _inputs(6, 1, 1, 3, 2, 2, 2)
    _forward(attention_forward, q, k, v, scale=0.7, causal=True)  # query 0 comes before the first key
    mask = frozen(np.array([[0, -np.inf], [-np.inf, -np.inf], [1, 0]]))
    _forward(attention_forward, q, k, v, scale=0.7, mask=mask)


@check("02.1", "scores of ±10,000 overflow nowhere")
def _(attention_forward):
    q, k, v = (frozen(x * s) for x, s in zip(_inputs(7, 1, 1, 6, 6, 4, 2), (100, 100, 1)))
    for order in (slice(None), slice(None, None, -1)):
        _forward(attention_forward, q, k[:, :, order], v, scale=0.5)


@check("02.1", "the past never sees the future, to the last bit")
def _(attention_forward):
    q, k, v = arrays(8, *[(1, 2, 9, 4)] * 3)
    before = parts("attention_forward", attention_forward(q, k, v, scale=0.5, causal=True), 2)[0]
    for t in (1, 5, 8):
        changed = [x.copy() for x in (q, k, v)]
        for x in changed:
            x[:, :, t] += 3
        after = attention_forward(*changed, scale=0.5, causal=True)[0]
        equal(f"o before token {t}", after[:, :, :t], before[:, :, :t], {"token changed": t}, exact=True)


def _fused(q, k, v):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def _gradients(seed):
    result = gradient_check.gradcheck(_fused, *arrays(seed, *[(1, 2, 5, 3)] * 3), raise_on_failure=False)
    if not result:
        raise Wrong(str(result))


@check("02.1", "inside the engine, a gradient check passes")
def _(attention_forward):
    with only("attention_forward", attention_forward):
        _gradients(9)


def _naive(q, k, v, *, scale, causal):
    s = q @ k.swapaxes(2, 3) * q.dtype.type(scale)
    s[..., ~np.tri(*s.shape[2:], dtype=bool)] = -np.inf
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


@cost("02.1", "2 heads, T = 512, d = 64, float32, causal", naive=_naive, engine=kernels.attention_forward)
def _():
    return arrays(0, *[(1, 2, 512, 64)] * 3, dtype=np.float32), {"scale": 0.125, "causal": True}


# ---------------------------------------------------------------- 02.2 merge


def _state(s, v):
    """(m, l, o) of a set of keys: s (T, n) scores of T queries, v (n, d)."""
    m = s.max(-1, initial=-np.inf)
    e = np.exp(s - np.where(np.isfinite(m), m, 0)[:, None])
    return tuple(frozen(x) for x in (m, e.sum(-1), e @ v))


def _merged(merge, *states):
    whole = states[0]
    for other in states[1:]:
        whole = parts("merge", merge(whole, other), 3)
    return whole


def _same_state(got, s, v, inputs):
    for name, ours, right in zip(("m", "l", "o"), got, _state(s, v)):
        equal(name, ours, right, inputs, terms=max(1, s.shape[1]))


@check("02.2", "scores 1 | 3, 2, on paper")
def _(merge):
    s, v = np.array([[1.0, 3.0, 2.0]]), np.array([[1.0], [2.0], [4.0]])
    a, b = _state(s[:, :1], v[:1]), _state(s[:, 1:], v[1:])
    _same_state(_merged(merge, a, b), s, v, {"a": a, "b": b})
    _same_state(_merged(merge, b, a), s, v, {"a": b, "b": a})


@check("02.2", "any cut, any order, equal to the whole")
def _(merge):
    for seed, cuts in enumerate(((1, 2), (3, 7), (5, 6))):
        s, v = arrays(seed, (4, 9), (9, 3))
        pieces = [_state(s[:, i:j], v[i:j]) for i, j in zip((0, *cuts), (*cuts, 9))]
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
            _same_state(_merged(merge, *[pieces[i] for i in order]), s, v, {"cuts": cuts, "order": order})


@check("02.2", "a set without keys changes nothing")
def _(merge):
    s, v = arrays(5, (2, 3), (3, 2))
    full, empty = _state(s, v), _state(s[:, :0], v[:0])
    _same_state(_merged(merge, full, empty), s, v, {"a": full, "b": empty})
    _same_state(_merged(merge, empty, full), s, v, {"a": empty, "b": full})
    _same_state(_merged(merge, empty, empty), s[:, :0], v[:0], {"a": empty, "b": empty})


@check("02.2", "scores of ±10,000 overflow nowhere")
def _(merge):
    s, v = arrays(6, (3, 4), (4, 2))
    s = frozen(1e4 * s)
    a, b = _state(s[:, :2], v[:2]), _state(s[:, 2:], v[2:])
    _same_state(_merged(merge, a, b), s, v, {"a": a, "b": b})


# ---------------------------------------------------------------- 02.3 attention_backward


def _backward(attention_backward, q, k, v, **options):
    o, lse = definition.attention_forward(q, k, v, **options)
    do = arrays(99, o.shape)[0].astype(q.dtype)
    got = parts("attention_backward", attention_backward(frozen(do), q, k, v, o, lse, **options), 3)
    expected = definition.attention_backward(do, q, k, v, o, lse, **options)
    for name, ours, right in zip(("dq", "dk", "dv"), got, expected):
        equal(name, ours, right, {"q": q, "k": k, "v": v, "do": do, **options},
              terms=max(q.shape[3], 1) * max(k.shape[2], q.shape[2], 1),
              condition=_condition(q, k, options["scale"]))  # fmt: skip


@check("02.3", "three tokens, on paper")
def _(attention_backward):
    _backward(attention_backward, *PAPER, scale=1 / math.sqrt(2), causal=True)


@check("02.3", "sizes from 0 to 150, caches, strided heads")
def _(attention_backward):
    for seed, (*shape, causal) in enumerate(SHAPES):
        _backward(attention_backward, *_inputs(seed, *shape), scale=max(shape[4], 1) ** -0.5, causal=causal)


@check("02.3", "float32 stays float32")
def _(attention_backward):
    _backward(attention_backward, *_inputs(3, 1, 2, 5, 5, 4, 4, dtype=np.float32), scale=0.5, causal=True)


@check("02.3", "masks, and rows that saw no key give zeros")
def _(attention_backward):
    q, k, v = _inputs(6, 1, 1, 3, 2, 2, 2)
    _backward(attention_backward, q, k, v, scale=0.7, causal=True)
    _backward(attention_backward, q, k, v, scale=0.7, mask=np.array([[0, -np.inf], [-np.inf, -np.inf], [1, 0]]))


@check("02.3", "inside the engine, a gradient check passes")
def _(attention_backward):
    with only("attention_backward", attention_backward):
        _gradients(10)


def _naive_backward(do, q, k, v, o, lse, *, scale, causal):
    s = q @ k.swapaxes(2, 3) * q.dtype.type(scale)
    s[..., ~np.tri(*s.shape[2:], dtype=bool)] = -np.inf
    p = np.exp(s - lse[..., None])
    ds = p * (do @ v.swapaxes(2, 3) - (do * o).sum(-1, keepdims=True)) * q.dtype.type(scale)
    return ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ do


@cost("02.3", "2 heads, T = 512, d = 64, float32, causal", naive=_naive_backward, engine=kernels.attention_backward)
def _():
    q, k, v, do = arrays(0, *[(1, 2, 512, 64)] * 4, dtype=np.float32)
    options = {"scale": 0.125, "causal": True}
    return (do, q, k, v, *definition.attention_forward(q, k, v, **options)), options


# ---------------------------------------------------------------- 02.4 window


def _windowed(q, k, v, width):
    """Brute force: a query at a time."""
    o = np.empty((len(q), v.shape[1]), q.dtype)
    for i in range(len(q)):
        seen = slice(max(0, i - width + 1), i + 1)
        s = k[seen] @ q[i] / math.sqrt(q.shape[1])
        p = np.exp(s - s.max())
        o[i] = p / p.sum() @ v[seen]
    return o


def _window(window, q, k, v, width):
    equal("o", window(q, k, v, width), _windowed(q, k, v, width), {"q": q, "k": k, "v": v, "width": width},
          terms=max(width, q.shape[1]), condition=_condition(q, k, q.shape[1] ** -0.5))  # fmt: skip


@check("02.4", "three tokens, width 2, on paper")
def _(window):
    _window(window, *[x[0, 0] for x in PAPER], 2)


@check("02.4", "width 1: every token hears itself alone")
def _(window):
    q, k, v = arrays(1, (4, 2), (4, 2), (4, 3))
    _window(window, q, k, v, 1)


@check("02.4", "lengths and widths from 1 to 300")
def _(window):
    for seed, (T, width) in enumerate(((1, 1), (2, 5), (7, 3), (64, 64), (65, 64), (129, 10), (300, 77), (300, 400))):
        _window(window, *arrays(seed, (T, 4), (T, 4), (T, 2)), width)


@check("02.4", "scores of ±10,000 overflow nowhere")
def _(window):
    q, k, v = arrays(7, (9, 4), (9, 4), (9, 2))
    _window(window, frozen(100 * q), frozen(100 * k), v, 4)


@check("02.4", "token t changes the outputs t … t + width - 1 and no other bit")
def _(window):
    q, k, v = arrays(8, (20, 4), (20, 4), (20, 3))
    before, t, width = window(q, k, v, 5), 9, 5
    k, v = k.copy(), v.copy()
    k[t], v[t] = k[t] + 1, v[t] - 1
    changed = (window(q, k, v, width) != before).any(-1)
    expected = (np.arange(20) >= t) & (np.arange(20) < t + width)
    if (changed != expected).any():
        got, right = (np.flatnonzero(x).tolist() for x in (changed, expected))
        raise Wrong(f"key and value {t} of 20 changed, width {width}: so did the outputs {got}, expected {right}")


def _all_pairs(q, k, v, width):
    s = q @ k.T / np.float32(math.sqrt(q.shape[1]))
    i, j = np.ogrid[: len(q), : len(q)]
    s[(j > i) | (j <= i - width)] = -np.inf
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


@cost("02.4", "T = 2,048, d = 64, width 128, float32", naive=_all_pairs)
def _():
    return (*arrays(0, *[(2048, 64)] * 3, dtype=np.float32), 128), {}
