"""What a head does, as numbers: statistics of attention maps, in float64, one value per head.

Each function takes attention (..., Tq, Tk), rows summing to 1, and returns (...): the mean over the queries that the
statistic is defined for, NaN when there is none. Query i stands at key position i + Tk - Tq (its own key, when a cache
holds earlier ones). `visible` (Tq, Tk) says which keys a query may see; None finds a causal mask by itself.
"""

from __future__ import annotations

import numpy as np

from .checks import visible_cells


def entropy(attention, visible=None):
    """Σ_j -p_j log p_j / log n over the n visible keys: 0 looks at one key, 1 at all alike. Rows of n > 1 count."""
    p = np.asarray(attention, dtype=np.float64)
    n = visible_cells("entropy", p, visible).sum(axis=-1)
    rows = _row_entropy(p)[..., n > 1] / np.log(n[n > 1])
    return _mean(rows)


def effective_keys(attention):
    """exp(entropy) of a row, in keys: 1 looks at one key, n at n keys alike (the row's perplexity)."""
    return _mean(np.exp(_row_entropy(np.asarray(attention, dtype=np.float64))))


def strongest_weight(attention, visible=None):
    """max_j p_ij: 1 puts all on one key, 1/n looks at n keys alike. Rows that see n > 1 keys count; one is always 1."""
    p = np.asarray(attention, dtype=np.float64)
    n = visible_cells("strongest weight", p, visible, normalised=False).sum(axis=-1)  # of maps too
    return _mean(p.max(axis=-1)[..., n > 1])


def mean_distance(attention):
    """Σ_j p_ij |i - j|, in tokens between the query's own position and the keys it looks at."""
    p = np.asarray(attention, dtype=np.float64)
    own, keys = _positions(p)
    return _mean(np.einsum("...ij,ij->...i", p, np.abs(own[:, None] - keys)))


def first_token(attention):
    """The weight on key 0, "the sink", over the queries after the first position (Xiao et al. 2023)."""
    p = np.asarray(attention, dtype=np.float64)
    own, _ = _positions(p)
    return _mean(p[..., own > 0, 0])


def diagonal(attention):
    """The weight on the query's own position, over the queries after the first position."""
    return _offset(attention, 0)


def previous_token(attention):
    """The weight on the position just before, over the queries that have one: 1 for a perfect previous-token head."""
    return _offset(attention, -1)


def induction(attention, token_ids):
    """The weight on what followed earlier occurrences of the query's token (Olsson et al. 2022).

    For query i: Σ of p_ij over j with token_{j-1} = token_i and j < i, averaged over the queries that have such a j.
    token_ids (Tk,) are the tokens at the key positions; self-attention only. Raises ValueError for another length.
    """
    p = np.asarray(attention, dtype=np.float64)
    token_ids = np.asarray(token_ids)
    own, keys = _positions(p)
    if token_ids.shape != keys.shape:
        raise ValueError(f"induction: the key axis has length {len(keys)} but token_ids has shape {token_ids.shape}")
    if own[0] < 0:
        raise ValueError(f"induction: needs self-attention, got {p.shape[-2]} queries for {len(keys)} keys")
    follows = np.zeros(p.shape[-2:], dtype=bool)
    follows[:, 1:] = token_ids[own][:, None] == token_ids[:-1]
    follows &= keys < own[:, None]
    rows = np.einsum("...ij,ij->...i", p, follows)
    return _mean(rows[..., follows.any(axis=-1)])


def statistics(attention, token_ids=None, visible=None):
    """Every statistic above by name -> {name: (...)}; induction only when `token_ids` are given."""
    found = {
        "entropy": entropy(attention, visible),
        "effective keys": effective_keys(attention),
        "strongest weight": strongest_weight(attention, visible),
        "mean distance": mean_distance(attention),
        "first token": first_token(attention),
        "diagonal": diagonal(attention),
        "previous token": previous_token(attention),
    }
    if token_ids is not None:
        found["induction"] = induction(attention, token_ids)
    return found


def jensen_shannon(attention_a, attention_b):
    """How far two heads' rows lie apart, in bits: 0 for the same rows, 1 for rows that share no key.

    JS(p, q) = H((p + q)/2) - (H(p) + H(q))/2 per row, H in bits. Shapes (..., Tq, Tk) -> (..., Tq).   Source: Lin 1991.
    """
    p, q = np.asarray(attention_a, dtype=np.float64), np.asarray(attention_b, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"jensen_shannon: the two attention arrays must have one shape, got {p.shape} and {q.shape}")
    nats = _row_entropy((p + q) / 2) - (_row_entropy(p) + _row_entropy(q)) / 2
    return np.clip(nats / np.log(2), 0.0, 1.0)


def rollout(attention):
    """Where each layer's positions draw from, through all layers below, residual paths included.

        Â_l = rows of (0.5 mean_heads A_l + 0.5 I) divided by their sums,   R_l = Â_l R_{l-1},   R_0 = Â_0

    attention (L, H, T, T) -> R (L, T, T); R[-1] is the whole model's.   Source: Abnar & Zuidema 2020.
    Raises ValueError unless the query and key axes are equally long (self-attention over one sequence).
    """
    attention = np.asarray(attention, dtype=np.float64)
    if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2]:
        raise ValueError(f"rollout: attention must have shape (layer, head, T, T), got {attention.shape}")
    flow = 0.5 * attention.mean(axis=1) + 0.5 * np.eye(attention.shape[-1])
    flow /= flow.sum(axis=-1, keepdims=True)
    for layer in range(1, len(flow)):
        flow[layer] = flow[layer] @ flow[layer - 1]
    return flow


def relevance(attention, gradients):
    """What each position's output owes to each input, by gradient-weighted attention through all layers.

        Ā_l = mean_heads max(0, dA_l ⊙ A_l),   R_l = R_{l-1} + Ā_l R_{l-1},   R_{-1} = I

    attention and its gradients dA (of the output to be explained), both (L, H, T, T) -> R (L, T, T); R[-1] is the whole
    model's. Its rows do not sum to 1.   Source: Chefer et al. 2021, equations 5 and 6.
    Raises ValueError for other shapes.
    """
    attention, gradients = np.asarray(attention, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2] or attention.shape != gradients.shape:
        raise ValueError(
            f"relevance: attention and gradients must have one shape (layer, head, T, T), got {attention.shape} "
            f"and {gradients.shape}"
        )
    mean = np.maximum(gradients * attention, 0).mean(axis=1)
    flow, relevances = np.eye(attention.shape[-1]), np.empty_like(mean)
    for layer, weights in enumerate(mean):
        flow = relevances[layer] = flow + weights @ flow
    return relevances


def value_weighted(attention, values, output_weight=None):
    """What each key really contributes: ‖a_ij v_j‖ = a_ij ‖v_j‖; a large weight on a small value is little.

    attention (..., H, Tq, Tk), values (..., H, Tk, d) -> (..., H, Tq, Tk). With output_weight (H, d, D), each head's
    part of the output projection, v_j W_h takes the place of v_j.   Source: Kobayashi et al. 2020.
    Raises ValueError for other shapes.
    """
    attention, values = np.asarray(attention, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if values.shape[:-1] != (*attention.shape[:-2], attention.shape[-1]):
        raise ValueError(
            f"value_weighted: values must have shape (..., key, d) for attention {attention.shape}, got {values.shape}"
        )
    if output_weight is not None:
        values = values @ np.asarray(output_weight, dtype=np.float64)
    return attention * np.linalg.norm(values, axis=-1)[..., None, :]


def _row_entropy(p):
    """-Σ_j p_j log p_j in nats with 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _positions(p):
    """The key position of each query (Tq,), and of each key (Tk,)."""
    queries, keys = p.shape[-2:]
    return np.arange(queries) + keys - queries, np.arange(keys)


def _offset(attention, offset):
    p = np.asarray(attention, dtype=np.float64)
    own, keys = _positions(p)
    rows = np.flatnonzero((own > 0) & (own + offset >= 0) & (own + offset < len(keys)))
    return _mean(p[..., rows, own[rows] + offset])


def _mean(rows):
    """Mean over the last axis; NaN, without a warning, when it is empty."""
    return rows.mean(axis=-1) if rows.shape[-1] else np.full(rows.shape[:-1], np.nan)[()]
