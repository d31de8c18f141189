"""The learning rate over the course of a training."""

from __future__ import annotations

import math

__all__ = ["warmup_cosine"]


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """The learning rate of a step, counted from 0: up in a straight line, then down along half a cosine.

        step < warmup:          peak (step + 1) / (warmup + 1)
        warmup <= step < total: floor + (peak - floor) (1 + cos(π (step - warmup) / (total - warmup))) / 2
        total <= step:          floor

    The peak is at step = warmup; no step has rate 0 before the end. Early steps are short because Adam's v has seen too
    few gradients to be trusted.   Source: Vaswani et al. 2017, §5.3 (warmup); Loshchilov & Hutter 2017 (cosine).
    Raises ValueError unless 0 <= warmup < total and 0 <= floor <= peak.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup_cosine: warmup must lie in 0..{total - 1} for {total} steps, got {warmup}")
    if not 0 <= floor <= peak < math.inf:
        raise ValueError(f"warmup_cosine: floor must lie in 0..peak, got floor={floor}, peak={peak}")
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / (total - warmup))
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
