"""Cross-entropy of rows of logits, with label smoothing (Szegedy et al. 2016) and ignored rows."""

import numpy as np

from ..precision import computed_in_float32


@computed_in_float32
def cross_entropy_forward(logits, targets, ignore_index=-100, label_smoothing=0.0):
    """loss = lse - (1-ε) x_target - ε mean_V(x),   lse = log Σ_v exp(x_v);   0 in ignored rows."""
    smoothing = float(label_smoothing)
    top = logits.max(axis=1, initial=-np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):  # a row of -inf alone, or of nothing
        lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    (kept,) = np.nonzero(targets != ignore_index)
    losses = np.zeros_like(lse)
    losses[kept] = lse[kept] - (1 - smoothing) * logits[kept, targets[kept]]
    if smoothing:  # else an x of -inf would make 0 · mean(x) NaN
        losses[kept] -= smoothing * logits[kept].mean(axis=1)
    return losses, lse


@computed_in_float32
def cross_entropy_backward(dlosses, logits, targets, lse, ignore_index=-100, label_smoothing=0.0):
    """dx_v = dloss (exp(x_v - lse) - (1-ε)[v = target] - ε/V): the softmax minus the smoothed target."""
    smoothing = float(label_smoothing)
    (kept,) = np.nonzero(targets != ignore_index)
    p = np.exp(logits[kept] - lse[kept, None])
    p -= smoothing / max(logits.shape[1], 1)
    p[np.arange(kept.size), targets[kept]] -= 1 - smoothing
    dlogits = np.zeros_like(logits)
    dlogits[kept] = dlosses[kept, None] * p
    return dlogits
