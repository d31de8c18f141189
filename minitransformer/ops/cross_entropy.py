"""Cross-entropy of logits, with its softmax folded in."""

from __future__ import annotations

from .. import kernels
from ..function import Function, xp
from ..kernels.devices import device_of
from ..kernels.precision import computed_in_float32
from ..tensor import Tensor

__all__ = ["cross_entropy"]


class CrossEntropy(Function):
    """Mean over the rows that count of  lse - (1-ε) x_target - ε mean_V x,  lse = ln Σ_v exp x_v.

        dx_v = dy/n (exp(x_v - lse) - (1-ε)[v = target] - ε/V)

    Shapes: logits (N, V), targets (N,) -> a number.   Source: document D3 §2.2; label smoothing: Szegedy et al. 2016.
    """

    def forward(self, logits, targets, *, ignore_index, label_smoothing):
        self.options = ignore_index, label_smoothing
        losses, lse = kernels.cross_entropy_forward(logits, targets, ignore_index, label_smoothing)
        counted = (targets != ignore_index).sum()
        if device_of(counted) == "cpu" and counted == 0:  # on a GPU nobody waits to see: the mean of nothing is NaN
            raise ValueError(
                f"cross_entropy: every target is {ignore_index} (ignore_index), there is nothing to average"
            )
        self.counted = counted.astype(logits.dtype)
        self.save(logits, targets, lse)
        return _average(losses, counted)

    def backward(self, dy):
        logits, targets, lse = self.saved
        dlosses = xp(logits).broadcast_to(dy / self.counted, targets.shape)
        return kernels.cross_entropy_backward(dlosses, logits, targets, lse, *self.options), None


@computed_in_float32
def _average(losses, counted):
    return losses.sum() / counted.astype(losses.dtype)


class SoftCrossEntropy(Function):
    """Mean over rows of  -Σ_v t_v ln softmax(x)_v  for targets t that are distributions.

        dx_v = dy/N (softmax(x)_v Σ_u t_u - t_v),   dt_v = -dy/N ln softmax(x)_v

    Shapes: logits (N, V), targets (N, V) -> a number.   Source: Hinton et al. 2015 (soft targets); document D2 §2.3.
    """

    @computed_in_float32
    def forward(self, logits, targets):
        log_probabilities = kernels.log_softmax(logits, -1)
        self.save(log_probabilities, targets)
        return -xp(logits).sum(targets * log_probabilities, dtype=logits.dtype) / logits.dtype.type(len(logits))

    @computed_in_float32
    def backward(self, dy):
        log_probabilities, targets = self.saved
        np = xp(targets)
        each = dy / dy.dtype.type(len(targets))
        mass = np.sum(targets, axis=-1, keepdims=True, dtype=targets.dtype)
        dx = each * (np.exp(log_probabilities) * mass - targets)
        return dx, -each * log_probabilities if self.needs[1] else None


def cross_entropy(logits, targets, ignore_index=-100, label_smoothing=0.0) -> Tensor:
    """Mean cross-entropy in nats: logits (..., V) against class indices (...) or distributions (..., V).

    Rows whose index is `ignore_index` do not count. Raises ValueError where no row counts, IndexError for an index
    outside 0..V-1.
    """
    targets = targets if isinstance(targets, Tensor) else Tensor(targets)
    V = logits.shape[-1]
    rows = logits if logits.ndim == 2 else logits.reshape(-1, V)
    if targets.dtype.kind in "iu":
        if targets.shape != logits.shape[:-1]:
            raise ValueError(f"cross_entropy: targets must have shape {logits.shape[:-1]}, got {targets.shape}")
        return CrossEntropy.apply(
            rows, targets.reshape(-1), ignore_index=ignore_index, label_smoothing=float(label_smoothing)
        )
    if targets.shape != logits.shape:
        raise ValueError(f"cross_entropy: soft targets must have shape {logits.shape}, got {targets.shape}")
    if rows.shape[0] == 0:
        raise ValueError("cross_entropy: there are no rows to average")
    targets = targets.reshape(-1, V)
    if label_smoothing:
        targets = targets * (1.0 - label_smoothing) + label_smoothing / V
    return SoftCrossEntropy.apply(rows, targets)
