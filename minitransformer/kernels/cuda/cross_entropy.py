"""Cross-entropy of rows of logits: csrc/cuda/cross_entropy.cu."""

import numpy as np

from ..devices import xp
from .launch import empty, kernel, packed, teams, wide


def cross_entropy_forward(logits, targets, ignore_index=-100, label_smoothing=0.0):
    logits, targets = packed(logits), packed(targets.astype(np.int64))
    rows, n = logits.shape
    losses, lse = empty(logits, (rows,)), empty(logits, (rows,))
    if not logits.size:
        return xp(logits).zeros_like(losses), xp(logits).full_like(lse, -np.inf)
    run = kernel("cross_entropy", "cross_entropy_forward", logits)
    run(*teams(rows, n), (logits, targets, losses, lse, *_options(logits, ignore_index, label_smoothing)))
    return losses, lse


def cross_entropy_backward(dlosses, logits, targets, lse, ignore_index=-100, label_smoothing=0.0):
    logits, dlogits = packed(logits), empty(logits)
    if logits.size:
        arrays = packed(dlosses), logits, packed(targets.astype(np.int64)), packed(lse), dlogits
        run = kernel("cross_entropy", "cross_entropy_backward", logits)
        run(*teams(*logits.shape), (*arrays, *_options(logits, ignore_index, label_smoothing)))
    return dlogits


def _options(logits, ignore_index, label_smoothing):
    rows, n = logits.shape
    return np.int64(rows), np.int32(n), np.int64(ignore_index), wide(logits).type(label_smoothing)
