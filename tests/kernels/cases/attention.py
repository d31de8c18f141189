import numpy as np

from minitransformer.kernels import paging
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
# B, H, G, Tq, Tk, d, dv, options
VARIANTS = [
    (2, 4, 2, 50, 50, 16, 9, {"causal": True}),  # grouped heads
    (1, 6, 1, 3, 300, 64, 64, {"causal": True}),  # decoding, one key for all heads
    (1, 2, 2, 300, 300, 8, 8, {"causal": True, "window": 33}),
    (1, 3, 3, 200, 170, 5, 65, {"window": 7}),  # on both sides
    (1, 2, 1, 1, 140, 63, 1, {"causal": True, "window": 20, "offset": 99}),
    (2, 2, 2, 40, 40, 16, 16, {"causal": True, "slopes": (0.5, 0.0625)}),
    (1, 4, 2, 150, 150, 7, 7, {"slopes": (0.5, 0.25, 0.0, 0.0625), "window": 100, "mask": "full"}),
    (1, 2, 2, 2, 260, 8, 8, {"causal": True, "slopes": (0.5, 0.0625), "mask": "full"}),
    (1, 2, 1, 60, 200, 16, 16, {"causal": True, "offset": 30}),  # a block of queries in the middle
    (1, 1, 1, 40, 50, 4, 4, {"causal": True, "offset": -20}),  # the first queries stand before all keys
    (1, 1, 1, 40, 50, 4, 4, {"window": 5, "offset": 48}),  # the last ones behind
    (1, 2, 2, 290, 290, 16, 16, {"causal": True, "spans": "packed"}),
    (1, 4, 2, 290, 290, 16, 16, {"spans": "packed", "window": 40, "slopes": (0.5, 0.0, 0.25, 0.0625)}),
    (3, 2, 1, 37, 140, 16, 16, {"spans": "lengths"}),
    (3, 2, 1, 2, 140, 16, 16, {"spans": "lengths"}),
    (1, 2, 2, 70, 70, 256, 256, {"causal": True, "window": 1}),  # every query sees itself
    (1, 0, 2, 5, 5, 4, 4, {}),  # keys that nobody reads
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


def spans_of(kind, B, Tq, Tk):
    """Four texts packed into one row, one of them empty and one of one token; or padded keys, one row all padding."""
    spans = np.zeros((B, Tq, 2), np.int64)
    if kind == "lengths":
        spans[..., 1] = np.linspace(Tk, 0, B).astype(int)[:, None]
    else:
        ends = np.array([0, Tq // 3, Tq // 3, Tq // 3 + 1, Tq])
        text = np.searchsorted(ends, np.arange(Tq), side="right") - 1
        spans[..., 0], spans[..., 1] = ends[text], ends[text + 1]
    return spans


def _variants(rng, dtype):
    for n, (B, H, G, Tq, Tk, d, dv, options) in enumerate(VARIANTS):
        kwargs = {"scale": d**-0.5, **options}
        if "mask" in kwargs:
            kwargs["mask"] = _mask(rng, kwargs["mask"], B, H, Tq, Tk, dtype)
        if "slopes" in kwargs:
            kwargs["slopes"] = np.array(kwargs["slopes"], dtype)
        if "spans" in kwargs:
            kwargs["spans"] = spans_of(kwargs["spans"], B, Tq, Tk)
        layout = [LAYOUTS[(n + i) % len(LAYOUTS)] for i in range(3)]
        q = _heads(rng, layout[0], B, H, Tq, d, dtype)
        yield q, _heads(rng, layout[1], B, G, Tk, d, dtype), _heads(rng, layout[2], B, G, Tk, dv, dtype), kwargs


def _inputs(rng, dtype):
    """q, k, v and the keyword arguments."""
    yield from _variants(rng, dtype)
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


def every_head(x, q):
    """Keys or values for each head of q."""
    return np.repeat(x, q.shape[1] // x.shape[1] if x.shape[1] else 1, axis=1)


def _over_groups(x, like):
    B, G, T, d = like.shape
    return x.reshape(B, G, x.shape[1] // G if G else 0, T, d).sum(2)


def _scores(q, k, **options):
    """Float64 probabilities, and what each score was added up from: Σ|q||k|, the mask and the slope."""
    lse = reference.attention_forward(q, k, k, **options)[1]
    p = reference.attention_probabilities(q, k, lse, **options)
    size = options["scale"] * (np.abs(q) @ np.abs(every_head(k, q)).swapaxes(2, 3))
    if (mask := options.get("mask")) is not None:
        size = size + np.where(np.isfinite(mask), np.abs(mask), 0)
    if (slopes := options.get("slopes")) is not None:
        Tq, Tk = p.shape[2:]
        position = np.arange(Tq) + (options.get("offset") or Tk - Tq)
        size = size + slopes[:, None, None] * np.abs(position[:, None] - np.arange(Tk))
    return p, size, lse


def _terms(q, k, v):
    return max(q.shape[3], v.shape[3], q.shape[2], k.shape[2], 1)


def _wide(kwargs):
    return {
        name: wide(a) if isinstance(a, np.ndarray) and a.dtype.kind not in "iu" else a for name, a in kwargs.items()
    }


def _condition(q, k, v, options):
    """Of o and lse, in float64."""
    p, size, lse = _scores(q, k, **options)
    spread = (p * size).sum(-1)
    # an error e in a score changes its p by the factor 1 + e
    o = (p * (1 + size + spread[..., None])) @ np.abs(every_head(v, q))
    return o, 1 + spread + np.where(np.isfinite(lse), np.abs(lse), 0)


@cases("attention_forward")
def forward(rng, dtype):
    for q, k, v, kwargs in _inputs(rng, dtype):
        yield Case((q, k, v), kwargs, terms=_terms(q, k, v), condition=_condition(*wide(q, k, v), _wide(kwargs)))


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
        ds = kwargs["scale"] * p * (ado @ every_head(av, q).swapaxes(2, 3) + (ado * ao).sum(-1, keepdims=True))
        dk, dv = _over_groups(ds.swapaxes(2, 3) @ aq, k), _over_groups(p.swapaxes(2, 3) @ ado, v)
        condition = (ds @ every_head(ak, q), dk, dv)
        yield Case((do, q, k, v, o, lse), kwargs, terms=_terms(q, k, v), condition=condition)


@cases("attention_probabilities")
def probabilities(rng, dtype):
    for q, k, v, kwargs in _inputs(rng, dtype):
        _, lse, p = _saved(q, k, v, kwargs, dtype)
        yield Case((q, k, lse), kwargs, terms=max(q.shape[3], 1), condition=p)
        if min(q.shape[:3]) > 1:
            heads, rows = np.array([1, 0, 1]), rng.integers(0, q.shape[2], 5)
            chosen = {"heads": heads, "rows": rows.astype(np.int32)}
            yield Case((q, k, lse), kwargs | chosen, terms=max(q.shape[3], 1), condition=p[:, heads][:, :, rows])


# H, G, Tq, lengths, page, d, dv, options
PAGED = [
    (4, 2, 1, (37, 300, 1), 16, 64, 64, {}),
    (2, 1, 3, (130, 2), 5, 7, 9, {"window": 40}),
    (2, 2, 40, (200, 40, 0), 32, 16, 33, {"slopes": (0.5, 0.0625)}),
    (3, 3, 33, (129,), 1, 8, 8, {"window": 20, "slopes": (0.5, 0.25, 0.0)}),
    (2, 1, 1, (), 4, 4, 4, {}),
    (2, 1, 0, (3,), 4, 4, 4, {}),
]


def paged(rng, lengths, page, dtype, *shapes):
    """Pools (P, G, page, d), a table of shuffled pages in which two rows share their first, and what lies where."""
    needed = [-(-n // page) for n in lengths]
    table = np.full((len(lengths), max(needed, default=0) + 1), -7)
    order = rng.permutation(sum(needed) + 2)
    for b, n in enumerate(needed):
        start = sum(needed[:b])
        table[b, :n] = order[start : start + n]
        if b and n and needed[0]:
            table[b, 0] = table[0, 0]
    pools = [normal(rng, (len(order), page, G, d), dtype).transpose(0, 2, 1, 3) for G, d in shapes]
    return *pools, table, np.array(lengths, int)


@cases("paged_attention_forward")
def paged_forward(rng, dtype):
    for H, G, Tq, lengths, page, d, dv, options in PAGED:
        keys, values, table, lengths = paged(rng, lengths, page, dtype, (G, d), (G, dv))
        q = _heads(rng, "packed", len(lengths), H, Tq, d, dtype)
        kwargs = {"scale": d**-0.5, **options}
        if "slopes" in kwargs:
            kwargs["slopes"] = np.array(kwargs["slopes"], dtype)
        pages, slots, filled = paging.places(table, lengths, page)
        k, v = (paging.gather(wide(pool), pages, slots) for pool in (keys, values))
        condition = _condition(wide(q), k, v, _wide(kwargs) | {"causal": True, "spans": paging.spans(filled, Tq)})
        terms = max(d, dv, *lengths, 1)
        yield Case((q, keys, values, table, lengths), kwargs, terms=terms, condition=condition)
