"""Adam with decoupled weight decay."""

from __future__ import annotations

from .. import kernels
from ..graph import xp
from .optimizer import Optimizer, check_range

__all__ = ["AdamW"]


class AdamW(Optimizer):
    """Each number moves by about lr, whatever the size of its gradient; weight decay acts beside that, not through it.

        m <- β1 m + (1-β1) g,   v <- β2 v + (1-β2) g²
        θ <- θ (1 - lr λ) - lr m̂ / (√v̂ + eps),   m̂ = m/(1-β1ᵗ),   v̂ = v/(1-β2ᵗ)

    t counts the steps of a parameter from 1. One kernel call a parameter.
    Source: Kingma & Ba 2015; Loshchilov & Hutter 2019; documents D2 §2.2, D5 §1.3.
    """

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def check(self, *, lr, betas, eps, weight_decay):
        check_range("AdamW", lr=lr, eps=eps, weight_decay=weight_decay)
        if len(betas) != 2:
            raise ValueError(f"AdamW: betas are two numbers, got {betas}")
        check_range("AdamW", high=1.0, beta1=betas[0], beta2=betas[1])

    def update(self, parameter, state, *, lr, betas, eps, weight_decay):
        if not state:
            np = xp(parameter.data)
            state.update(step=0, m=np.zeros_like(parameter.data), v=np.zeros_like(parameter.data))
        state["step"] += 1
        kernels.adamw_step(
            parameter.data, parameter.grad, state["m"], state["v"], step=state["step"],
            lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay,
        )  # fmt: skip
