"""Cross-entropy of rows of logits, with label smoothing (Szegedy et al. 2016) and ignored rows."""

from numpy import errstate

from ..devices import xp
from ..precision import computed_in_float32


@computed_in_float32
def cross_entropy_forward(logits, targets, ignore_index=-100, label_smoothing=0.0):
    """loss = lse - (1-ε) x_target - ε mean_V(x),   lse = log Σ_v exp(x_v);   0 in ignored rows."""
    np, smoothing = xp(logits), float(label_smoothing)
    if not logits.size:
        return np.zeros(len(logits), logits.dtype), np.full(len(logits), -np.inf, logits.dtype)
    top = logits.max(axis=1)
    with errstate(invalid="ignore", divide="ignore"):  # a row of -inf alone
        lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    rows, kept, places, known = _targets(logits, targets, ignore_index)
    losses = lse - (1 - smoothing) * logits[rows, places]
    if smoothing:  # else an x of -inf would make 0 · mean(x) NaN
        losses = losses - smoothing * logits.mean(axis=1)
    return np.where(kept, losses * known, 0), lse


@computed_in_float32
def cross_entropy_backward(dlosses, logits, targets, lse, ignore_index=-100, label_smoothing=0.0):
    """dx_v = dloss (exp(x_v - lse) - (1-ε)[v = target] - ε/V): the softmax minus the smoothed target."""
    np, smoothing = xp(logits), float(label_smoothing)
    rows, kept, places, known = _targets(logits, targets, ignore_index)
    with errstate(invalid="ignore", over="ignore"):  # in ignored rows
        dlogits = np.exp(logits - lse[:, None])
        dlogits -= smoothing / max(logits.shape[1], 1)
        dlogits[rows, places] -= 1 - smoothing
        return np.where(kept[:, None], (dlosses * known)[:, None] * dlogits, 0)


def _targets(logits, targets, ignore_index):
    """0..N-1; which rows count; a column for every row, its target or any; and NaN for a target that is no column.

    On the CPU the contract has refused such a target; on a GPU nobody has looked.
    """
    np = xp(logits)
    inside = (targets >= 0) & (targets < logits.shape[1])
    places = np.where(inside, targets, 0).astype(np.int64)
    known = np.where(inside, 1, np.nan).astype(logits.dtype)
    return np.arange(len(targets)), targets != ignore_index, places, known
