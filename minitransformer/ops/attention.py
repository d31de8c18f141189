"""Scaled dot-product attention, fused: the (T, T) matrix of scores never exists."""

from __future__ import annotations

import math

import numpy

from .. import kernels
from ..function import Function, xp
from ..kernels import paging
from ..kernels.devices import device, device_of, is_array
from ..tensor import Tensor, plain

__all__ = ["paged_attention", "scaled_dot_product_attention"]


class Attention(Function):
    """softmax(q kᵀ scale + mask - slope distance) v, a block of keys at a time.

        s_ij = scale q_i·k_j + mask_ij - slope |t_i - j|,   p_ij = exp(s_ij - lse_i),   o_i = Σ_j p_ij v_j
        delta_i = do_i·o_i,   ds_ij = p_ij (do_i·v_j - delta_i)
        dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i

    Forward keeps one number a row, lse_i = ln Σ_j exp(s_ij); backward recomputes p from it. Where G < H key/value heads
    serve groups of query heads, dk and dv are sums over the group.
    Shapes: q (B, H, Tq, d), k (B, G, Tk, d), v (B, G, Tk, dv) -> o (B, H, Tq, dv), lse (B, H, Tq).
    Source: Vaswani et al. 2017; Dao et al. 2022; documents D2 §1.1, D3 §1.1.
    """

    def forward(self, q, k, v, mask, slopes, spans, **options):
        self.options = options
        o, lse = kernels.attention_forward(q, k, v, mask=mask, **options, **_given(slopes=slopes, spans=spans))
        self.save(q, k, v, o, lse, mask, slopes, spans)
        return o

    def backward(self, do):
        *arrays, mask, slopes, spans = self.saved
        options = self.options | _given(slopes=slopes, spans=spans)
        return (*kernels.attention_backward(do, *arrays, mask=mask, **options), None, None, None)


class PagedAttention(Function):
    """Causal attention to keys and values that lie in pages; see `kernels.paged_attention_forward`.

    Backward gathers the pages, lets `attention_backward` work on them, and adds each token's gradient to the page it
    came from: two rows may share one.
    Shapes: q (B, H, Tq, d), keys (P, G, n, d), values (P, G, n, dv), table (B, m), lengths (B,) -> o (B, H, Tq, dv).
    Source: Kwon et al. 2023.
    """

    def forward(self, q, keys, values, table, lengths, slopes, **options):
        self.options = options
        o, lse = kernels.paged_attention_forward(q, keys, values, table, lengths, slopes=slopes, **options)
        self.save(q, keys, values, o, lse, table, lengths, slopes)
        return o

    def backward(self, do):
        q, keys, values, o, lse, table, lengths, slopes = self.saved
        pages, slots, filled = paging.places(table, lengths, keys.shape[2])
        k, v = (paging.gather(pool, pages, slots) for pool in (keys, values))
        spans = paging.spans(filled, q.shape[2])
        dq, dk, dv = kernels.attention_backward(
            do, q, k, v, o, lse, causal=True, slopes=slopes, spans=spans, **self.options
        )
        dkeys, dvalues = (paging.scatter_add(d, pool, pages, slots) for d, pool in ((dk, keys), (dv, values)))
        return dq, dkeys, dvalues, None, None, None


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, is_causal=False, scale=None,
    window=None, alibi_slopes=None, key_lengths=None, boundaries=None, offset=None,
) -> Tensor:  # fmt: skip
    """Attention of every head: query (B, H, Tq, d), key (B, G, Tk, d), value (B, G, Tk, dv) -> (B, H, Tq, dv).

    Query head h reads key/value head h // (H/G). Query i stands at position i + offset among the keys; offset is
    Tk - Tq unless given. scale: 1/√d unless given. A query that may see nothing gets zeros.

    What a query sees, and each limit makes it cheaper:
    is_causal: keys up to its position. window: keys less than so far from it. key_lengths (B,): the first so many keys
    of a padded batch. boundaries (S + 1,): texts packed into one row (B = 1, Tq = Tk), text s being the tokens
    boundaries[s] .. boundaries[s + 1] - 1, each of which sees only its own text.
    attn_mask: additive, or boolean with True where a query may look; broadcastable to (B, H, Tq, Tk); a constant.
    alibi_slopes (H,): takes slope · distance off every score; constants (see `nn.alibi_slopes`).

    Raises TypeError for a mask or slopes that require a gradient: compose matmul and softmax for that; ValueError for
    lengths or boundaries that do not fit.
    """
    if attn_mask is not None:
        attn_mask = attn_mask if isinstance(attn_mask, Tensor) else Tensor(attn_mask)
        if attn_mask.requires_grad:
            raise TypeError("attention: the mask is a constant here; for a learned bias compose matmul, + and softmax")
        if attn_mask.dtype == bool:
            np, dtype = xp(attn_mask.data), query.dtype
            attn_mask = Tensor(np.where(attn_mask.data, dtype.type(0), dtype.type(-math.inf)))
    spans = key_spans(query, key, key_lengths, boundaries)
    return Attention.apply(
        query, key, value, attn_mask, _constant_slopes(alibi_slopes, query), spans,
        scale=_scale(scale, query), causal=is_causal, **_given(window=window, offset=offset),
    )  # fmt: skip


def paged_attention(query, keys, values, table, lengths, scale=None, window=None, alibi_slopes=None) -> Tensor:
    """Causal attention of each row's last tokens to all its tokens, which lie in pages of a pool.

    query (B, H, Tq, d), keys (P, G, n, d), values (P, G, n, dv), table (B, m) page numbers, lengths (B,) tokens that a
    row holds, those of the query included -> (B, H, Tq, dv). Token j of row b is at place j % n of page
    table[b, j // n].
    """
    slopes = _constant_slopes(alibi_slopes, query)
    return PagedAttention.apply(query, keys, values, table, lengths, slopes, scale=_scale(scale, query), window=window)


def _given(**options):
    """Without those that are None: a kernel of one's own need not know what it is not asked for."""
    return {name: value for name, value in options.items() if value is not None}


def _scale(scale, query):
    return 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale


def _constant_slopes(slopes, query):
    if isinstance(slopes, Tensor) and slopes.requires_grad:
        raise TypeError("attention: ALiBi slopes are constants here; for learned ones compose matmul, + and softmax")
    slopes = plain(slopes)
    if is_array(slopes):  # stays where it lives
        return slopes.astype(query.dtype, copy=False)
    return None if slopes is None else xp(query.data).asarray(slopes, query.dtype)


def key_spans(query, key, lengths=None, boundaries=None):
    """The first and last key of each query, (B or 1, Tq, 2), from lengths or boundaries; None without them."""
    if lengths is None and boundaries is None:
        return None
    if lengths is not None and boundaries is not None:
        raise ValueError("attention: key_lengths and boundaries are two ways to say it; give one of them")
    B, _, Tq, _ = query.shape
    Tk, given = key.shape[2], plain(boundaries if lengths is None else lengths)
    if not is_array(given):  # a list, which is looked at here and goes to the query in one piece
        here = device(device_of(plain(query)))
        return here.put(_spans_of(numpy.asarray(given), B, Tq, Tk, lengths is not None))
    return _spans_of(given, B, Tq, Tk, lengths is not None)


def _spans_of(given, B, Tq, Tk, are_lengths):
    """`given` may live on a device. Its values are then not looked at, which would be to wait for it: what lies outside
    0..Tk is no key, and is left out."""
    np, seen = xp(given), device_of(given) == "cpu"
    if given.dtype.kind not in "iu":
        raise TypeError(f"attention: key_lengths and boundaries are integers, got {given.dtype}")
    if are_lengths:
        if given.shape != (B,) or (seen and ((given < 0) | (given > Tk)).any()):
            got = given.tolist() if seen else f"shape {given.shape}"
            raise ValueError(f"attention: key_lengths must be {B} numbers in 0..{Tk}, got {got}")
        spans = np.zeros((B, Tq, 2), np.int64)
        spans[..., 1] = given[:, None]
        return spans
    if B != 1 or Tq != Tk:
        raise ValueError(f"attention: boundaries need one row and as many keys as queries, got B = {B}, {Tq}, {Tk}")
    rise = given.ndim == 1 and len(given) > (Tk > 0)
    if rise and seen:
        rise = given[0] == 0 and given[-1] == Tk and not (given[1:] < given[:-1]).any()
    if not rise:
        got = given.tolist() if seen else f"shape {given.shape}"
        raise ValueError(f"attention: boundaries must rise from 0 to {Tk}, got {got}")
    text = np.searchsorted(given, np.arange(Tq), side="right")
    text = np.clip(text, 1, max(len(given) - 1, 1)) if not seen else text
    return np.stack([given[text - 1], given[text]], -1).astype(np.int64)[None]
