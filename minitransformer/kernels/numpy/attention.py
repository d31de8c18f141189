"""Scaled dot-product attention in memory linear in T: keys come in blocks, the softmax is carried along.

The softmax over a row needs the row's maximum m and the sum Σ_j exp(s_j - m). Both can be kept while the keys arrive
block by block: when a block raises the maximum from m to m', everything summed so far is multiplied by exp(m - m').
So no row of scores is ever whole in memory, and the (Tq, Tk) matrix never exists.

Causality, windows, packed sequences and lengths are all one thing: query i sees the keys low_i <= j < high_i, and
neither end decreases with i. So a block of keys is seen by one run of queries, and all others skip it.

Source: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
"""

import numpy
from numpy import errstate, inf

from .. import paging
from ..devices import xp
from ..precision import computed_in_float32

KEYS = 128  # in one block


@computed_in_float32
def attention_forward(
    q, k, v, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None
):  # fmt: skip
    np = xp(q)
    o = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    m = np.full(q.shape[:3], -inf, q.dtype)  # the row's maximum so far
    total = np.zeros_like(m)  # Σ_j exp(s_j - m) so far
    scores = _Scores(q, k, scale, causal, window, offset, mask, slopes, spans)
    v = _for_every_head(v, q)
    for rows, keys in scores.blocks():
        s = scores(rows, keys)
        higher = np.maximum(m[..., rows], s.max(-1))
        p = _exp(s, higher)
        rescale = np.exp(m[..., rows] - _finite(higher))
        total[..., rows] = total[..., rows] * rescale + p.sum(-1)
        o[..., rows, :] = o[..., rows, :] * rescale[..., None] + _product(p, v[..., keys, :])
        m[..., rows] = higher
    o /= np.where(total == 0, 1, total)[..., None]  # it is 0 in a row without keys, whose o is 0 already
    with errstate(divide="ignore"):
        lse = m + np.log(total)
    return o, lse


@computed_in_float32
def attention_backward(
    do, q, k, v, o, lse, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None
):  # fmt: skip
    np = xp(q)
    dq = np.zeros(q.shape, q.dtype)
    scores = _Scores(q, k, scale, causal, window, offset, mask, slopes, spans)
    values = _for_every_head(v, q)
    dk, dv = np.zeros_like(scores.k), np.zeros_like(values)  # of every query head by itself
    delta = (do * o).sum(-1)  # = Σ_j p_ij (do_i·v_j), what the softmax's gradient takes off every score
    for rows, keys in scores.blocks():
        p = _exp(scores(rows, keys), lse[..., rows])
        with errstate(invalid="ignore"):
            dp = do[..., rows, :] @ values[..., keys, :].swapaxes(2, 3)
            ds = np.where(p == 0, 0, p * (dp - delta[..., rows, None])) * p.dtype.type(scale)
        dq[..., rows, :] += _product(ds, scores.k[..., keys, :])
        dk[..., keys, :] = _product(ds.swapaxes(2, 3), q[..., rows, :])  # every key lies in one block: `=`, not `+=`
        dv[..., keys, :] = _product(p.swapaxes(2, 3), do[..., rows, :])
    return dq, _over_groups(dk, k), _over_groups(dv, v)


@computed_in_float32
def attention_probabilities(
    q, k, lse, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None,
    heads=None, rows=None,
):  # fmt: skip
    heads, rows = (slice(None) if chosen is None else chosen for chosen in (heads, rows))
    scores = _Scores(q, k, scale, causal, window, offset, mask, slopes, spans)
    return _exp(scores(rows, slice(None), heads), lse[:, heads][..., rows])


@computed_in_float32
def paged_attention_forward(q, keys, values, table, lengths, *, scale, window=None, slopes=None):
    pages, slots, filled = paging.places(table, lengths, keys.shape[2])
    k, v = (paging.gather(pool, pages, slots) for pool in (keys, values))
    spans = paging.spans(filled, q.shape[2])
    return attention_forward(q, k, v, scale=scale, causal=True, window=window, slopes=slopes, spans=spans)


# ---------------------------------------------------------------- heads in groups


def _for_every_head(x, q):
    """(B, G, T, d) to (B, H, T, d): query head h reads head h // (H/G)."""
    H, G = q.shape[1], x.shape[1]
    return x if G == H else xp(x).repeat(x, H // G, axis=1)


def _over_groups(gradient, x):
    """(B, H, T, d) back to x's (B, G, T, d): the sum over the heads that read the same."""
    B, G, T, d = x.shape
    return gradient if gradient.shape == x.shape else gradient.reshape(B, G, gradient.shape[1] // G, T, d).sum(2)


# ---------------------------------------------------------------- one block of scores


class _Scores:
    """s_ij = scale q_i·k_j + mask_ij - slope |t_i - j| of any block, -inf where query i may not see key j."""

    def __init__(self, q, k, scale, causal, window, offset, mask, slopes, spans):
        self.np = np = xp(q)
        self.q, self.k, self.scale, self.slopes = q, _for_every_head(k, q), float(scale), slopes
        B, H, Tq, Tk = *q.shape[:3], k.shape[2]
        self.mask = None if mask is None else np.broadcast_to(mask, (B, H, Tq, Tk))
        seen = Tq, Tk, causal, window, Tk - Tq if offset is None else offset
        self.position, self.low, self.high = _intervals(np, *seen, spans)
        self.plan = self.low, self.high
        if np is not numpy:  # blocks are chosen here, without waiting for the device: spans that live there hide, but
            self.plan = _intervals(numpy, *seen, None)[1:]  # save no work

    def blocks(self):
        """Slices (rows, keys) that cover every pair of a query and a key it may see."""
        (low, high), Tk = self.plan, self.k.shape[2]
        for first in range(0, Tk, KEYS):
            last = min(first + KEYS, Tk)
            seeing = numpy.flatnonzero(((low < last) & (high > first)).any(0))
            if seeing.size:
                yield slice(int(seeing[0]), int(seeing[-1]) + 1), slice(first, last)

    def __call__(self, rows, keys, heads=slice(None)):
        """(B, heads, rows, keys)"""
        np = self.np
        with errstate(invalid="ignore"):  # what is hidden may hold anything
            s = self.q[:, heads][..., rows, :] @ self.k[:, heads][..., keys, :].swapaxes(2, 3) * self.scale
        j = np.arange(self.k.shape[2])[keys]
        if self.slopes is not None:
            distance = np.abs(self.position[rows, None] - j)
            with errstate(invalid="ignore"):  # an infinite slope
                s -= (self.slopes[heads, None, None] * distance).astype(s.dtype)
        hidden = (j < self.low[:, rows, None]) | (j >= self.high[:, rows, None])  # (B or 1, rows, keys)
        s = np.where(hidden[:, None], s.dtype.type(-inf), s)
        if self.mask is not None:
            mask = self.mask[:, heads][:, :, rows, keys]
            with errstate(invalid="ignore"):
                s = np.where(mask == -inf, mask, s + mask)
        return s


def _intervals(np, Tq, Tk, causal, window, offset, spans):
    """Positions (Tq,) of the queries, and low, high (B or 1, Tq): query i sees the keys low_i <= j < high_i."""
    position = np.arange(Tq) + offset
    low, high = np.zeros((1, Tq), np.int64), np.full((1, Tq), Tk)
    if causal:
        high = np.minimum(high, position + 1)
    if window is not None:
        low, high = np.maximum(low, position - window + 1), np.minimum(high, position + window)
    if spans is not None:
        low, high = np.maximum(low, spans[..., 0]), np.minimum(high, spans[..., 1])
    return position, low, high


def _exp(s, level):
    """exp(s - level), and 0 where s is -inf, whatever the level: that of a row without keys is -inf too. (…, i, j)"""
    np = xp(s)
    with errstate(invalid="ignore"):
        return np.where(s == -inf, s.dtype.type(0), np.exp(s - _finite(level)[..., None]))


def _finite(m):
    """-inf, the maximum of a row without keys, becomes 0: exp(-inf - 0) is the wanted 0, exp(-inf + inf) were NaN."""
    return xp(m).where(m == -inf, m.dtype.type(0), m)


def _product(p, x):
    """p x, to which a pair with p_ij = 0 adds nothing even where x_j is not finite: 0 · inf were NaN."""
    np = xp(p)
    finite = np.isfinite(x).all(-1)  # (B, H, j)
    if np is not numpy:  # on a device nobody looks at values: what meets a row that is not finite is NaN
        met = (p != 0).astype(p.dtype) @ (~finite).astype(p.dtype)[..., None]
        return np.where(met > 0, p.dtype.type(numpy.nan), p @ np.where(finite[..., None], x, p.dtype.type(0)))
    if finite.all():
        return p @ x
    result = p @ np.where(finite[..., None], x, 0)
    with errstate(invalid="ignore"):
        for j in np.flatnonzero(~finite.all((0, 1))):
            counts = (p[..., j] != 0) & ~finite[..., None, j]
            result += np.where(counts[..., None], p[..., j, None] * x[..., None, j, :], 0)
    return result
