"""The AdamW update (Loshchilov & Hutter 2019) and the norm that gradient clipping needs."""

import numpy as np

from ..devices import device_of, xp


def adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
    """In place:   m <- β1 m + (1-β1) g,   v <- β2 v + (1-β2) g²,   θ <- θ (1 - lr λ) - lr m̂ / (√v̂ + eps).

    m̂ = m/(1-β1^step) and v̂ = v/(1-β2^step) undo the pull towards the zeros that m and v started from.
    """
    lr, beta1, beta2, eps, weight_decay = map(float, (lr, beta1, beta2, eps, weight_decay))
    wide = np.promote_types(parameter.dtype, np.float32)  # half precision is storage: compute in float32
    g = gradient.astype(wide, copy=False)
    first = beta1 * m.astype(wide, copy=False) + (1 - beta1) * g
    second = beta2 * v.astype(wide, copy=False) + (1 - beta2) * (g * g)
    update = first / (1 - beta1**step) / (xp(second).sqrt(second / (1 - beta2**step)) + eps)
    parameter[...] = parameter.astype(wide, copy=False) * (1 - lr * weight_decay) - lr * update
    m[...], v[...] = first, second


def squared_norm(x):
    """Σ x_i² in float64: in float32 a sum over millions of parameters would lose digits, and 1e20² would overflow."""
    total = xp(x).square(x.astype(np.float64)).sum()
    return float(total) if device_of(x) == "cpu" else total
