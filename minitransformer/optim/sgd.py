"""Stochastic gradient descent."""

from __future__ import annotations

from ..graph import xp
from .optimizer import Optimizer, check_range

__all__ = ["SGD"]


class SGD(Optimizer):
    """With momentum μ and weight decay λ:

        g <- g + λ θ,   u <- μ u + g,   θ <- θ - lr u        (nesterov: θ <- θ - lr (g + μ u))

    u starts from 0.   Source: Polyak 1964; Sutskever et al. 2013 (the Nesterov form).
    """

    def __init__(self, params, lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)

    def check(self, *, lr, momentum, weight_decay, nesterov):
        check_range("SGD", lr=lr, weight_decay=weight_decay)
        check_range("SGD", high=1.0, momentum=momentum)
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    def update(self, parameter, state, *, lr, momentum, weight_decay, nesterov):
        theta, g = parameter.data, parameter.grad
        if weight_decay:
            g = g + weight_decay * theta
        if momentum:
            u = state.setdefault("u", xp(theta).zeros_like(theta))
            u *= momentum
            u += g
            g = g + momentum * u if nesterov else u
        theta -= lr * g
