"""Choosing a token: logits -> probabilities, a pure function, and one draw from them.

    token = sample(probabilities(logits, temperature=0.8, top_k=50, top_p=0.95), generator)

Computed in float64: a cumulative sum over a vocabulary of 50,000 would be off by some tokens' probabilities in float32.
"""

from __future__ import annotations

import numpy as np

from ..random import Generator
from ..tensor import Tensor

__all__ = ["check_options", "probabilities", "sample"]


def check_options(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> None:
    """Raises ValueError for a temperature below 0, a top_k below 1, a top_p outside (0, 1]."""
    if not 0.0 <= temperature < np.inf:
        raise ValueError(f"sampling: temperature must be a number of at least 0, got {temperature}")
    if top_k is not None and (not isinstance(top_k, (int, np.integer)) or top_k < 1):
        raise ValueError(f"sampling: top_k must be an integer of at least 1, got {top_k!r}")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"sampling: top_p must lie in (0, 1], got {top_p}")


def probabilities(logits, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> np.ndarray:
    """The distribution that a token is drawn from: logits (..., V) -> float64 (..., V), each row with sum 1.

        p_i ∝ exp(x_i / temperature)           temperature 0: everything on the largest logit
        top_k: p_i <- 0 but for the k largest
        top_p: p_i <- 0 but for the smallest set of largest p whose sum reaches top_p (of what top_k left)

    What is left is divided by its sum. Among equals the lower index counts as the larger, so the result never depends
    on how a sort breaks ties. Raises ValueError for options out of range, and for logits that hold NaN, +inf, or -inf
    alone.
    Source: Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p); document D3 §4.1.
    """
    check_options(temperature, top_k, top_p)
    x = np.asarray(logits.numpy() if isinstance(logits, Tensor) else logits).astype(np.float64)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"sampling: logits must be (..., V) with V > 0, got shape {x.shape}")
    largest = x.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():  # a NaN anywhere makes the largest NaN
        raise ValueError("sampling: the logits hold NaN or infinity; the model has diverged")
    if temperature == 0.0:
        p = np.zeros(x.shape)
        np.put_along_axis(p, x.argmax(axis=-1)[..., None], 1.0, axis=-1)
        return p
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the largest to -inf, as it should
        p = np.exp((x - largest) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is None and top_p is None:
        return p
    for row, scores in zip(p.reshape(-1, p.shape[-1]), x.reshape(-1, p.shape[-1])):
        row[:] = _cut(row, scores, top_k, top_p)
    return p


def _cut(p, x, top_k, top_p):
    """One row with its tail cut off. Only what may stay is sorted: a vocabulary is large, what stays is little."""
    if top_k is not None and top_k < p.size:
        least = np.partition(x, p.size - top_k)[p.size - top_k]
        candidates = np.flatnonzero(x >= least)  # those that equal the least may be too many
    else:
        # All tokens below (1 - top_p) / V together weigh less than 1 - top_p, so the set is full before them.
        candidates = np.flatnonzero(p >= (0.0 if top_p is None else (1.0 - top_p) / p.size * (1.0 - 1e-9)))
    order = candidates[np.argsort(-x[candidates], kind="stable")][:top_k]  # from the most probable token to the least
    kept = p[order]
    if top_k is not None:
        kept /= kept.sum()
    if top_p is not None:
        before = np.cumsum(kept) - kept  # the mass of all tokens that are more probable
        kept[before >= top_p] = 0.0
    row = np.zeros_like(p)
    row[order] = kept / kept.sum()
    return row


def sample(probabilities: np.ndarray, generator: Generator) -> np.ndarray:
    """One draw a row: probabilities (..., V) -> int64 (...), by inverting the cumulative distribution.

    u uniform on [0, 1), the token is the first i with Σ_{j<=i} p_j > u Σ_j p_j; one of probability 0 is never drawn.
    """
    cumulative = np.cumsum(probabilities, axis=-1)
    u = generator.uniform(cumulative.shape[:-1], dtype=np.float64)
    return (cumulative > u[..., None] * cumulative[..., -1:]).argmax(axis=-1)
