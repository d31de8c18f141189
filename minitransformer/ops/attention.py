"""Scaled dot-product attention, fused: the (T, T) matrix of scores never exists."""

from __future__ import annotations

import math

from .. import kernels
from ..function import Function, xp
from ..tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


class Attention(Function):
    """softmax(q kᵀ scale + mask) v, a block of keys at a time.

        s_ij = scale q_i·k_j + mask_ij,   p_ij = exp(s_ij - lse_i),   o_i = Σ_j p_ij v_j
        delta_i = do_i·o_i,   ds_ij = p_ij (do_i·v_j - delta_i)
        dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i

    Forward keeps one number a row, lse_i = ln Σ_j exp(s_ij); backward recomputes p from it.
    Shapes: q (B, H, Tq, d), k (B, H, Tk, d), v (B, H, Tk, dv) -> o (B, H, Tq, dv), lse (B, H, Tq).
    Source: Vaswani et al. 2017; Dao et al. 2022; documents D2 §1.1, D3 §1.1.
    """

    def forward(self, q, k, v, mask, *, scale, causal):
        self.scale, self.causal = scale, causal
        o, lse = kernels.attention_forward(q, k, v, scale=scale, causal=causal, mask=mask)
        self.save(q, k, v, o, lse, mask)
        return o

    def backward(self, do):
        *arrays, mask = self.saved
        return (*kernels.attention_backward(do, *arrays, scale=self.scale, causal=self.causal, mask=mask), None)


def scaled_dot_product_attention(query, key, value, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Attention of every head: query (B, H, Tq, d), key (B, H, Tk, d), value (B, H, Tk, dv) -> (B, H, Tq, dv).

    attn_mask: additive, or boolean with True where a query may look; broadcastable to (B, H, Tq, Tk); a constant.
    is_causal: query i sees keys up to i + Tk - Tq. scale: 1/√d unless given. A query that may see nothing gets zeros.
    Raises TypeError for a mask that requires a gradient: compose matmul and softmax for that.
    """
    if attn_mask is not None:
        attn_mask = attn_mask if isinstance(attn_mask, Tensor) else Tensor(attn_mask)
        if attn_mask.requires_grad:
            raise TypeError("attention: the mask is a constant here; for a learned bias compose matmul, + and softmax")
        if attn_mask.dtype == bool:
            np, dtype = xp(attn_mask.data), query.dtype
            attn_mask = Tensor(np.where(attn_mask.data, dtype.type(0), dtype.type(-math.inf)))
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return Attention.apply(query, key, value, attn_mask, scale=scale, causal=bool(is_causal))
