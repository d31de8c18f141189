"""Gradient clipping by the norm of all gradients together."""

from __future__ import annotations

import math

from .. import kernels
from ..graph import xp
from ..kernels.devices import is_array

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(parameters, max_norm: float):
    """Scale all gradients by max_norm / ‖g‖ where ‖g‖ = √Σ g² exceeds max_norm; returns ‖g‖ from before.

    The direction stays; only the length of the step is bounded. A norm that is not finite is returned and nothing is
    scaled: there is no direction to keep. ‖g‖ is a Python float; of gradients on a GPU it is a float64 array () there,
    and nobody has waited for it. Raises ValueError for max_norm <= 0.   Source: Pascanu et al. 2013.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be above 0, got {max_norm}")
    gradients = list({id(p): p.grad for p in parameters if p.grad is not None}.values())
    square = sum(kernels.squared_norm(g) for g in gradients)
    if is_array(square):
        np, norm = xp(square), xp(square).sqrt(square)
        scale = np.where((max_norm < norm) & np.isfinite(norm), max_norm / norm, 1.0)
        for g in gradients:
            g *= scale.astype(g.dtype)
        return norm
    norm = math.sqrt(square)
    if max_norm < norm < math.inf:
        for g in gradients:
            g *= g.dtype.type(max_norm / norm)
    return norm
