"""Scaled dot-product attention in memory linear in T: keys come in blocks, the softmax is carried along.

The softmax over a row needs the row's maximum m and the sum Σ_j exp(s_j - m). Both can be kept while the keys arrive
block by block: when a block raises the maximum from m to m', everything summed so far is multiplied by exp(m - m').
So no row of scores is ever whole in memory, and the (Tq, Tk) matrix never exists.

Source: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
"""

from numpy import errstate, inf

from ..devices import xp
from ..precision import computed_in_float32

KEYS = 128  # in one block


@computed_in_float32
def attention_forward(q, k, v, *, scale, causal=False, mask=None):
    np = xp(q)
    o = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    m = np.full(q.shape[:3], -inf, q.dtype)  # the row's maximum so far
    total = np.zeros_like(m)  # Σ_j exp(s_j - m) so far
    for rows, keys in _blocks(q.shape[2], k.shape[2], causal):
        s = _scores(q, k, rows, keys, scale, causal, mask)
        higher = np.maximum(m[..., rows], s.max(-1))
        safe = _finite(higher)
        p = np.exp(s - safe[..., None])
        rescale = np.exp(m[..., rows] - safe)
        total[..., rows] = total[..., rows] * rescale + p.sum(-1)
        o[..., rows, :] = o[..., rows, :] * rescale[..., None] + p @ v[..., keys, :]
        m[..., rows] = higher
    o /= np.where(total == 0, 1, total)[..., None]  # it is 0 in a row without keys, whose o is 0 already
    with errstate(divide="ignore"):
        lse = m + np.log(total)
    return o, lse


@computed_in_float32
def attention_backward(do, q, k, v, o, lse, *, scale, causal=False, mask=None):
    dq, dk, dv = (xp(q).zeros(x.shape, x.dtype) for x in (q, k, v))
    delta = (do * o).sum(-1)  # = Σ_j p_ij (do_i·v_j), what the softmax's gradient takes off every score
    for rows, keys in _blocks(q.shape[2], k.shape[2], causal):
        p = _probabilities(q, k, lse, rows, keys, scale, causal, mask)
        dp = do[..., rows, :] @ v[..., keys, :].swapaxes(2, 3)
        ds = p * (dp - delta[..., rows, None]) * float(scale)
        dq[..., rows, :] += ds @ k[..., keys, :]
        dk[..., keys, :] = ds.swapaxes(2, 3) @ q[..., rows, :]  # every key lies in one block: `=`, not `+=`
        dv[..., keys, :] = p.swapaxes(2, 3) @ do[..., rows, :]
    return dq, dk, dv


@computed_in_float32
def attention_probabilities(q, k, lse, *, scale, causal=False, mask=None):
    return _probabilities(q, k, lse, slice(None), slice(None), scale, causal, mask)


# ---------------------------------------------------------------- one block of scores


def _blocks(Tq, Tk, causal):
    """Slices (rows, keys) that cover every pair of a query and a key it may see."""
    for first in range(0, Tk, KEYS):
        seen_from = max(0, first - (Tk - Tq)) if causal else 0  # earlier queries see no key of this block
        if seen_from < Tq:
            yield slice(seen_from, Tq), slice(first, min(first + KEYS, Tk))


def _scores(q, k, rows, keys, scale, causal, mask):
    """s_ij = scale q_i·k_j + mask_ij, -inf where i may not see j. (B, H, rows, keys)"""
    np, (B, H, Tq), Tk = xp(q), q.shape[:3], k.shape[2]
    s = q[..., rows, :] @ k[..., keys, :].swapaxes(2, 3) * float(scale)
    if mask is not None:
        s += np.broadcast_to(mask, (B, H, Tq, Tk))[..., rows, keys]
    if causal:
        i, j = np.arange(Tq)[rows, None], np.arange(Tk)[keys]
        s = np.where(j <= i + Tk - Tq, s, s.dtype.type(-inf))
    return s


def _probabilities(q, k, lse, rows, keys, scale, causal, mask):
    """p_ij = exp(s_ij - lse_i). (B, H, rows, keys)"""
    return xp(q).exp(_scores(q, k, rows, keys, scale, causal, mask) - _finite(lse[..., rows])[..., None])


def _finite(m):
    """-inf, the maximum of a row without keys, becomes 0: exp(-inf - 0) is the wanted 0, exp(-inf + inf) were NaN."""
    return xp(m).where(m == -inf, m.dtype.type(0), m)
