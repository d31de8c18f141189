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
        return np.eye(x.shape[-1])[x.argmax(axis=-1)]
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the largest to -inf, as it should
        p = np.exp((x - largest) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if top_k is None and top_p is None:
        return p

    order = np.argsort(-x, axis=-1, kind="stable")  # from the most probable token to the least
    ordered = np.take_along_axis(p, order, axis=-1)
    if top_k is not None:
        ordered[..., top_k:] = 0.0
        ordered /= ordered.sum(axis=-1, keepdims=True)
    if top_p is not None:
        before = np.cumsum(ordered, axis=-1) - ordered  # the mass of all tokens that are more probable
        ordered[before >= top_p] = 0.0
        ordered /= ordered.sum(axis=-1, keepdims=True)
    np.put_along_axis(p, order, ordered, axis=-1)
    return p


def sample(probabilities: np.ndarray, generator: Generator) -> np.ndarray:
    """One draw a row: probabilities (..., V) -> int64 (...), by inverting the cumulative distribution.

    u uniform on [0, 1), the token is the first i with Σ_{j<=i} p_j > u Σ_j p_j; one of probability 0 is never drawn.
    """
    cumulative = np.cumsum(probabilities, axis=-1)
    u = generator.uniform(cumulative.shape[:-1], dtype=np.float64)
    return (cumulative > u[..., None] * cumulative[..., -1:]).argmax(axis=-1)
