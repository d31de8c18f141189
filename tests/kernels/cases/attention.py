import numpy as np

from minitransformer.kernels.numpy import attention as reference

from . import Case, cases, normal, wide

# B, H, Tq, Tk, d, dv, causal, mask
SHAPES = [
    (1, 1, 1, 1, 1, 1, False, None),
    (2, 3, 7, 7, 5, 5, True, None),
    (1, 2, 33, 33, 64, 64, True, None),
    (2, 1, 40, 135, 63, 65, True, "padding"),  # queries at the end of a cache
    (1, 3, 1, 131, 16, 16, True, None),  # decoding
    (1, 3, 2, 131, 17, 9, True, "full"),
    (1, 2, 140, 19, 8, 3, True, None),  # early queries see no key
    (1, 1, 150, 150, 128, 16, False, None),
    (1, 2, 37, 290, 7, 256, False, "full"),
    (2, 2, 50, 50, 16, 33, True, "transposed"),
    (2, 2, 34, 65, 1, 1, False, "rows"),
    (1, 2, 3, 5, 0, 4, True, None),  # scores without a width are 0
    (1, 2, 0, 5, 4, 4, False, None),
    (1, 2, 5, 0, 4, 4, False, None),
    (0, 2, 5, 5, 4, 4, True, None),
    (1, 0, 5, 5, 4, 4, True, None),
]
LAYOUTS = ("heads last", "packed", "plain", "reversed", "broadcast")


def _mask(rng, kind, B, H, Tq, Tk, dtype):
    """Additive, with -inf: a padded batch whose last text has no token at all, or anything in any layout."""
    if kind is None:
        return None
    if kind == "padding":
        length = np.linspace(Tk, 0, B).astype(int)[:, None, None, None]
        return np.where(np.arange(Tk) < length, 0, -np.inf).astype(dtype)
    shape = {"full": (H, Tq, Tk), "transposed": (B, 1, Tk, Tq), "rows": (B, H, Tq, 1)}[kind]
    mask = normal(rng, shape, dtype)
    mask[rng.random(shape) < 0.3] = -np.inf
    return mask.swapaxes(2, 3) if kind == "transposed" else mask


def _heads(rng, layout, B, H, T, d, dtype, scale=1.0):
    """(B, H, T, d) as it comes: from (B, T, H, d) activations, from a packed qkv, or in a layout that nobody makes."""
    if layout == "heads last":
        return normal(rng, (B, T, H, d), dtype, scale).transpose(0, 2, 1, 3)
    if layout == "packed":
        return normal(rng, (B, T, 3, H, d), dtype, scale)[:, :, 1].transpose(0, 2, 1, 3)
    if layout == "reversed":
        return normal(rng, (B, H, T, 2 * d), dtype, scale)[:, ::-1, ::-1, ::-2]
    if layout == "broadcast":
        return np.broadcast_to(normal(rng, (B, 1, T, d), dtype, scale), (B, H, T, d))
    return normal(rng, (B, H, T, d), dtype, scale)


def _inputs(rng, dtype):
    """q, k, v and the keyword arguments."""
    for n, (B, H, Tq, Tk, d, dv, causal, kind) in enumerate(SHAPES):
        layout = [LAYOUTS[(n + i) % len(LAYOUTS)] for i in range(3)]
        q = _heads(rng, layout[0], B, H, Tq, d, dtype)
        k = _heads(rng, layout[1], B, H, Tk, d, dtype)
        v = _heads(rng, layout[2], B, H, Tk, dv, dtype)
        yield q, k, v, {"scale": max(d, 1) ** -0.5, "causal": causal, "mask": _mask(rng, kind, B, H, Tq, Tk, dtype)}
    large = 100 if dtype.itemsize > 2 else 10  # scores around ±1e4, or ±1e2 where halves would overflow
    q, k = (_heads(rng, "heads last", 1, 2, 20, 4, dtype, large) for _ in range(2))
    yield q, k, _heads(rng, "plain", 1, 2, 20, 4, dtype), {"scale": 0.5, "causal": True}
    ties = np.repeat(_heads(rng, "plain", 1, 1, 5, 6, dtype), 8, axis=2)
    yield ties, ties, ties, {"scale": 0.4}


def _scores(q, k, scale, causal=False, mask=None):
    """Float64 probabilities, and what each score was added up from: Σ|q||k| and the mask."""
    lse = reference.attention_forward(q, k, k, scale=scale, causal=causal, mask=mask)[1]
    p = reference.attention_probabilities(q, k, lse, scale=scale, causal=causal, mask=mask)
    size = scale * (np.abs(q) @ np.abs(k).swapaxes(2, 3))
    if mask is not None:
        size = size + np.where(np.isfinite(mask), np.abs(mask), 0)
    return p, size, lse


def _terms(q, k, v):
    return max(q.shape[3], v.shape[3], q.shape[2], k.shape[2], 1)


def _wide(kwargs):
    return {name: wide(value) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()}


@cases("attention_forward")
def forward(rng, dtype):
    for q, k, v, kwargs in _inputs(rng, dtype):
        p, size, lse = _scores(*wide(q, k), **_wide(kwargs))
        spread = (p * size).sum(-1)
        # an error e in a score changes its p by the factor 1 + e
        o = (p * (1 + size + spread[..., None])) @ np.abs(wide(v))
        lse = 1 + spread + np.where(np.isfinite(lse), np.abs(lse), 0)
        yield Case((q, k, v), kwargs, terms=_terms(q, k, v), condition=(o, lse))


def _saved(q, k, v, kwargs, dtype):
    """o and lse, rounded to dtype, and the probabilities that this lse gives with the error that is in them."""
    o, lse = (x.astype(dtype) for x in reference.attention_forward(*wide(q, k, v), **_wide(kwargs)))
    _, size, _ = _scores(*wide(q, k), **_wide(kwargs))
    p = reference.attention_probabilities(*wide(q, k, lse), **_wide(kwargs))
    level = np.where(np.isfinite(wide(lse)), np.abs(wide(lse)), 0)[..., None]
    return o, lse, p * (1 + size + level)


@cases("attention_backward")
def backward(rng, dtype):
    for q, k, v, kwargs in _inputs(rng, dtype):
        o, lse, p = _saved(q, k, v, kwargs, dtype)
        do = _heads(rng, "heads last", *o.shape, dtype)
        aq, ak, av, ao, ado = (np.abs(wide(x)) for x in (q, k, v, o, do))
        ds = kwargs["scale"] * p * (ado @ av.swapaxes(2, 3) + (ado * ao).sum(-1, keepdims=True))
        condition = (ds @ ak, ds.swapaxes(2, 3) @ aq, p.swapaxes(2, 3) @ ado)
        yield Case((do, q, k, v, o, lse), kwargs, terms=_terms(q, k, v), condition=condition)


@cases("attention_probabilities")
def probabilities(rng, dtype):
    for q, k, v, kwargs in _inputs(rng, dtype):
        _, lse, p = _saved(q, k, v, kwargs, dtype)
        yield Case((q, k, lse), kwargs, terms=max(q.shape[3], 1), condition=p)
