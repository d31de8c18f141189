"""Lesson 10: an attention that is carried on, in tiles, counted beforehand, and read through a table of pages."""

import math
import tracemalloc

import numpy as np

from . import Wrong, arrays, check, cost, equal, forbid, frozen, parts

for number in ("10.1", "10.2", "10.3", "10.4"):
    forbid(number, "attention_forward", "attention_backward", "attention_probabilities", "paged_attention_forward")


def _attention(s, v):
    """All at once: s (T, n) with -inf where hidden, v (n, d) -> o (T, d), lse (T,)."""
    s = s.astype(np.float64)
    m = s.max(1, initial=-np.inf)
    e = np.exp(s - np.where(m == -np.inf, 0, m)[:, None])
    total = e.sum(1)
    with np.errstate(divide="ignore"):
        lse = np.where(total == 0, -np.inf, m + np.log(total))
    return e @ v / np.where(total == 0, 1, total)[:, None], lse


# ---------------------------------------------------------------- 10.1 online_softmax_update


def _updates(update, s, v, cuts, dtype=np.float64):
    """Everything tile by tile, beginning with nothing, beside all at once."""
    s, v = s.astype(dtype), frozen(v.astype(dtype))
    o, lse = np.zeros((len(s), v.shape[1]), dtype), np.full(len(s), -np.inf, dtype)
    for first, last in zip((0, *cuts), (*cuts, s.shape[1])):
        tile = frozen(s[:, first:last].copy())
        before = {"o": frozen(o), "lse": frozen(lse), "s": tile, "v": v[first:last]}
        with np.errstate(divide="raise", invalid="raise"):
            try:
                o, lse = parts("online_softmax_update", update(o, lse, tile, v[first:last]), 2)
            except FloatingPointError as error:
                shown = "\n".join(f"{name} = {value}" for name, value in before.items())
                raise Wrong(f"NumPy would warn: {error}\n{shown}") from None
        seen = frozen(s[:, :last].copy())
        for name, got, right in zip(("o", "lse"), (o, lse), _attention(seen, v[:last].astype(np.float64))):
            equal(name, got, right.astype(dtype), before, terms=seen.shape[1], condition=4)
    return o, lse


@check("10.1", "scores 0, ln 3 and then ln 6, on paper")
def _(online_softmax_update):
    o, lse = frozen(np.array([[0.75, 1.5]])), frozen(np.log([4.0]))
    s, v = frozen(np.log([[6.0]])), frozen(np.array([[4.0, 4.0]]))
    got = parts("online_softmax_update", online_softmax_update(o, lse, s, v), 2)
    inputs = {"o": o, "lse": lse, "s": s, "v": v}
    equal("o", got[0], np.array([[2.7, 3.0]]), inputs, terms=3)
    equal("lse", got[1], np.log([10.0]), inputs, terms=3)


@check("10.1", "any cut gives the whole, from nothing on")
def _(online_softmax_update):
    for seed, cuts in enumerate(((1,), (3, 7), (2, 4, 6, 8), ())):
        _updates(online_softmax_update, *arrays(seed, (4, 9), (9, 3)), cuts)


@check("10.1", "scores that rise, and that fall, by thousands")
def _(online_softmax_update):
    (v,) = arrays(5, (8, 2))
    for slope in (1, -1, 1000, -1000):
        s = slope * np.arange(8.0) + np.array([[0.0], [5.0], [-2000.0]])
        _updates(online_softmax_update, s, v, (3, 5))


@check("10.1", "rows that see nothing: so far, now, ever; no warning")
def _(online_softmax_update):
    s, v = arrays(6, (4, 6), (6, 2))
    s = s.copy()
    s[0, :4], s[1, 2:], s[2], s[3, 2:4] = -np.inf, -np.inf, -np.inf, -np.inf
    _updates(online_softmax_update, s, v, (2, 4))


@check("10.1", "float32 stays float32")
def _(online_softmax_update):
    _updates(online_softmax_update, *arrays(7, (3, 6), (6, 2)), (2, 5), np.float32)


# ---------------------------------------------------------------- 10.2 blocked_attention


def _interval(T, window=None, boundaries=None, length=None, causal=True):
    t = np.arange(T)
    low, high = np.zeros(T, np.int64), t + 1 if causal else np.full(T, T)
    if window is not None:
        low = np.maximum(low, t - window + 1)
    if boundaries is not None:
        text = np.searchsorted(boundaries, t, side="right")
        low, high = np.maximum(low, np.take(boundaries, text - 1)), np.minimum(high, np.take(boundaries, text))
    if length is not None:
        high = np.minimum(high, length)
    return frozen(low), frozen(high)


def _blocked(blocked_attention, q, k, v, low, high):
    got = parts("blocked_attention", blocked_attention(q, k, v, low, high), 2)
    shared, j = len(q) // len(k), np.arange(k.shape[1])
    seen = (low[:, None] <= j) & (j < high[:, None])
    wanted = seen.any(0)  # what nobody sees may hold NaN
    right = []
    for h in range(len(q)):
        keys, values = (np.where(wanted[:, None], x[h // shared], 0).astype(np.float64) for x in (k, v))
        s = q[h].astype(np.float64) @ keys.T / math.sqrt(q.shape[2])
        right.append(_attention(np.where(seen, s, -np.inf), values))
    inputs = {"q": q, "k": k, "v": v, "low": low, "high": high}
    scores = 1 + float(np.abs(q).max(initial=0) * np.abs(k[:, wanted]).max(initial=0) * math.sqrt(q.shape[2]))
    for name, ours, expected in zip(("o", "lse"), got, zip(*right)):
        equal(name, ours, np.array(expected, q.dtype), inputs, terms=k.shape[1], condition=scores)


@check("10.2", "three tokens, causal, on paper")
def _(blocked_attention):
    q = frozen(np.full((1, 3, 2), math.sqrt(2)))  # times 1/√2: (1, 1)
    k, v = (frozen(np.array([x])) for x in (np.log([[1.0, 1], [3, 1], [1, 6]]), [[3.0, 0], [0, 2], [4, 4]]))
    _blocked(blocked_attention, q, k, v, *_interval(3))


@check("10.2", "two pairs of heads, each pair with one head of keys")
def _(blocked_attention):
    q, k, v = arrays(1, (4, 5, 2), (2, 5, 2), (2, 5, 2))
    _blocked(blocked_attention, q, k, v, *_interval(5))


@check("10.2", "window, packed texts, padding, no limit at all")
def _(blocked_attention):
    q, k, v = arrays(2, (2, 9, 4), (1, 9, 4), (1, 9, 4))
    for options in ({"window": 3}, {"boundaries": [0, 2, 7, 9]}, {"length": 5}, {"causal": False}):
        _blocked(blocked_attention, q, k, v, *_interval(9, **options))


@check("10.2", "queries that see nothing give 0 and -inf")
def _(blocked_attention):
    q, k, v = arrays(3, (1, 5, 2), (1, 4, 2), (1, 4, 2))
    low, high = (frozen(np.array(x)) for x in ([0, 0, 0, 2, 4], [0, 0, 2, 3, 4]))
    _blocked(blocked_attention, q, k, v, low, high)


@check("10.2", "many blocks, scores rising along the keys")
def _(blocked_attention):
    q, k, v = arrays(4, (1, 500, 3), (1, 500, 3), (1, 500, 3))
    rising = frozen(k + np.linspace(0, 6, 500)[:, None])
    for options in ({}, {"window": 130}, {"boundaries": [0, 300, 301, 500]}):
        _blocked(blocked_attention, frozen(np.abs(q)), rising, v, *_interval(500, **options))


@check("10.2", "what nobody sees may hold NaN")
def _(blocked_attention):
    q, k, v = arrays(5, (1, 300, 2), (1, 300, 2), (1, 300, 2))
    low, high = _interval(300, causal=False)
    low, high = low.copy(), np.minimum(high, 250)
    low[150:] = 170
    high[:150] = 160  # keys 160 … 169 are seen by nobody, and those from 250 on
    k, v = k.copy(), v.copy()
    for hidden in (slice(160, 170), slice(250, None)):
        k[:, hidden] = v[:, hidden] = np.nan
    _blocked(blocked_attention, q, frozen(k), frozen(v), frozen(low), frozen(high))


@check("10.2", "float32 stays float32")
def _(blocked_attention):
    q, k, v = arrays(6, (2, 7, 4), (1, 7, 4), (1, 7, 4), dtype=np.float32)
    _blocked(blocked_attention, q, k, v, *_interval(7))


@check("10.2", "T = 2,048 in less than half of a T × T matrix")
def _(blocked_attention):
    q, k, v = arrays(7, *[(1, 2048, 4)] * 3, dtype=np.float32)
    low, high = _interval(2048)
    tracemalloc.start()
    try:
        blocked_attention(q, k, v, low, high)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > 2048 * 2048 * 4 / 2:
        raise Wrong(f"it took {peak / 2**20:.1f} MiB beyond its inputs; one 2,048 × 2,048 matrix of float32 is 16 MiB")


def _naive(q, k, v, low, high):
    j = np.arange(k.shape[1])
    s = q @ k.swapaxes(1, 2) / np.float32(math.sqrt(q.shape[2]))
    s[:, (j < low[:, None]) | (j >= high[:, None])] = -np.inf
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


@cost("10.2", "2 heads, T = 1,024, d = 64, window 128, float32", naive=_naive)
def _():
    return (*arrays(0, *[(2, 1024, 64)] * 3, dtype=np.float32), *_interval(1024, window=128)), {}


# ---------------------------------------------------------------- 10.3 visible_blocks


def _tiles(low, high, rows, keys):
    """Brute force: mark the tile of every pair."""
    met = set()
    for i, (a, b) in enumerate(zip(low.tolist(), high.tolist())):
        met |= {(i // rows, j // keys) for j in range(a, b)}
    return np.int64(len(met))


def _count(visible_blocks, low, high, rows, keys):
    got = visible_blocks(low, high, rows, keys)
    inputs = {"low": low, "high": high, "rows": rows, "keys": keys}
    equal("tiles", got, _tiles(low, high, rows, keys), inputs, exact=True)


@check("10.3", "four tokens, causal, tiles of 2 × 2: three of four")
def _(visible_blocks):
    _count(visible_blocks, *_interval(4), 2, 2)


@check("10.3", "tiles that are no squares, and cut off at the end")
def _(visible_blocks):
    for rows, keys in ((1, 1), (2, 3), (3, 2), (4, 1), (100, 7), (7, 100)):
        for options in ({}, {"window": 3}, {"boundaries": [0, 4, 5, 11]}, {"causal": False}, {"length": 6}):
            _count(visible_blocks, *_interval(11, **options), rows, keys)


@check("10.3", "queries that see nothing, and gaps that nobody sees")
def _(visible_blocks):
    for low, high in (
        ([0, 0, 0], [0, 0, 0]),
        ([4, 0, 0, 4], [4, 2, 2, 6]),
        ([0, 0, 20, 21], [1, 2, 22, 23]),
        ([0, 2, 9, 9, 30], [2, 2, 10, 12, 31]),
        ([5, 5, 5, 5], [5, 5, 5, 6]),
    ):
        for rows, keys in ((2, 2), (4, 2), (3, 5), (5, 1)):
            _count(visible_blocks, frozen(np.array(low)), frozen(np.array(high)), rows, keys)


@check("10.3", "50 random masks")
def _(visible_blocks):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        low = np.sort(rng.integers(0, 30, 20))
        high = np.maximum.accumulate(np.maximum(low, low + rng.integers(-2, 6, 20)))
        _count(visible_blocks, frozen(low), frozen(high), *map(int, rng.integers(1, 9, 2)))


@check("10.3", "the lesson's numbers: 93 of 528, 381 of 8,256")
def _(visible_blocks):
    for T, window, expected in ((4096, None, 528), (4096, 256, 93), (16384, None, 8256), (16384, 256, 381)):
        low, high = _interval(T, window)
        got = visible_blocks(low, high, 128, 128)
        equal("tiles", got, np.int64(expected), {"T": T, "window": window}, exact=True)


@check("10.3", "200,000 tokens, window 1,000, without a table of pairs")
def _(visible_blocks):
    low, high = _interval(200_000, 1000)
    tracemalloc.start()
    try:
        got = visible_blocks(low, high, 100, 100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    equal("tiles", got, np.int64(11 * 2000 - 55), {"T": 200_000, "window": 1000, "rows": 100, "keys": 100}, exact=True)
    if peak > 2**26:
        raise Wrong(f"it took {peak / 2**20:.0f} MiB; what it needs to remember does not grow with T × T")


# ---------------------------------------------------------------- 10.4 paged_row


def _pool(seed, n, length, window=None, d=3, dv=2):
    """A text in pages out of order, among pages and places that hold NaN; those behind the window are given away."""
    k, v = arrays(seed, (length, d), (length, dv))
    need, rng = -(-length // n), np.random.default_rng(seed)
    keys, values = np.full((need + 3, n, d), np.nan), np.full((need + 3, n, dv), np.nan)
    table = np.append(rng.permutation(need + 3)[:need], -1)  # longer than the text is
    for j in range(length):
        keys[table[j // n], j % n], values[table[j // n], j % n] = k[j], v[j]
    if window is not None:
        for page in range(max(0, length - window) // n):
            keys[table[page]], values[table[page]] = np.nan, np.nan
            table[page] = -1
    return k, v, frozen(keys), frozen(values), frozen(table)


def _row(paged_row, seed, n, length, window=None, large=1.0):
    k, v, keys, values, table = _pool(seed, n, length, window)
    q = frozen(large * arrays(seed + 100, (3,))[0])
    seen = slice(0 if window is None else max(0, length - window), None)
    expected = _attention(q[None] @ k[seen].T / math.sqrt(3), v[seen])[0][0]
    inputs = {"q": q, "table": table, "length": length, "window": window, "keys": keys, "values": values}
    got = paged_row(q, keys, values, table, length) if window is None else paged_row(
        q, keys, values, table, length, window)  # fmt: skip
    equal("o", got, expected, inputs, terms=max(3, length), condition=1 + large * 30)


@check("10.4", "three tokens in pages of two, the second page first in the pool, on paper")
def _(paged_row):
    q = frozen(np.full(2, math.sqrt(2)))
    logs = np.log([[1.0, 1], [3, 1], [1, 6]])
    nan = [math.nan, math.nan]
    keys = frozen(np.array([[logs[2], nan], [logs[0], logs[1]]]))
    values = frozen(np.array([[[4, 4], nan], [[3, 0], [0, 2]]]))
    table = frozen(np.array([1, 0]))
    got = paged_row(q, keys, values, table, 3)
    inputs = {"q": q, "keys": keys, "values": values, "table": table, "length": 3}
    equal("o", got, np.array([2.7, 3.0]), inputs, terms=3, condition=4)


@check("10.4", "lengths from 1 to 40, pages of 1 to 16, NaN wherever nobody wrote")
def _(paged_row):
    for seed, (n, length) in enumerate(((1, 1), (1, 5), (2, 4), (4, 1), (4, 7), (3, 9), (16, 37), (16, 40), (5, 23))):
        _row(paged_row, seed, n, length)


@check("10.4", "a window; pages behind it are given away, their entries -1")
def _(paged_row):
    for seed, (n, length, window) in enumerate(((2, 5, 1), (2, 6, 2), (4, 9, 4), (4, 16, 5), (3, 7, 20), (1, 6, 3))):
        _row(paged_row, seed, n, length, window)


@check("10.4", "scores of ±10,000 overflow nowhere")
def _(paged_row):
    for seed in range(4):
        _row(paged_row, seed, 4, 11, large=1e4)
