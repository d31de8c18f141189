"""Recurrent layers: RNN and LSTM, which read a sequence with a state that is carried from step to step.

    layer = nn.LSTM(16, 64, generator=Generator(0))
    y, state = layer(x)                    # x (B, T, 16) -> y (B, T, 64)
    y, state = layer(more, state)          # goes on where the first call stopped

What the inputs contribute is one matrix product for all steps. What the state contributes waits for the state before
it: a chain of T products that no machine can make at once. A state is one step, (B, 1, D), as x is T of them.
"""

from __future__ import annotations

import numpy as np

from ..graph import xp
from ..ops.activation import sigmoid, tanh
from ..ops.shape import cat
from ..random import Generator
from ..tensor import Tensor
from .initialization import xavier_uniform
from .linear import Linear
from .module import Module, check_size

__all__ = ["LSTM", "RNN"]


class Recurrent(Module):
    """What RNN and LSTM share: the maps of input and state into `parts` × D numbers, and the walk through time.

    A subclass defines `step`. States are tuples of tensors (B, 1, D), the output h first.
    """

    parts: int  # maps of D numbers each that a step computes
    state_names: tuple[str, ...]

    def __init__(self, input_width: int, width: int, *, generator: Generator, init=xavier_uniform):
        check_size(type(self).__name__, input_width=input_width, width=width)
        self.input_width, self.width = input_width, width
        options = {"generator": generator, "init": _each(init, self.parts)}
        self.input = Linear(input_width, self.parts * width, **options)
        self.hidden = Linear(width, self.parts * width, bias=False, **options)

    def forward(self, x, state=None):
        """x (B, T, input_width) -> (y (B, T, D), state after the last step). state: of an earlier call; None: zeros.

        Raises ValueError where x or the state do not fit.
        """
        self._check(x)
        state = self.initial_state(x.shape[0]) if state is None else self._checked(state, x.shape[0])
        outputs = []
        for a in self.input(x).split(1, axis=1):  # (B, 1, parts D) each
            state = self.step(a, *state)
            outputs.append(state[0])
        return cat(outputs, axis=1), state

    def step(self, a, *state):
        """What the input contributes, a (B, 1, parts D), and the state before -> the state after."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        weight = self.hidden.weight
        zeros = xp(weight.data).zeros((batch, 1, self.width), weight.dtype)
        return tuple([Tensor(zeros) for _ in self.state_names])

    def _check(self, x):
        if x.ndim != 3 or x.shape[2] != self.input_width or x.shape[1] == 0:
            wanted = f"(B, T, {self.input_width}) with T > 0"
            raise ValueError(f"{type(self).__name__}: x must have shape {wanted}, got {x.shape}")

    def _checked(self, state, batch):
        shape, several = (batch, 1, self.width), isinstance(state, (tuple, list))
        shapes = [getattr(s, "shape", type(s).__name__) for s in (state if several else [state])]
        if not several or shapes != [shape] * len(self.state_names):
            names = ", ".join(self.state_names)
            raise ValueError(
                f"{type(self).__name__}: the state must be a tuple ({names}) of tensors {shape}, "
                f"got {'' if several else 'one '}{', '.join(map(str, shapes)) or 'an empty one'}"
            )
        return tuple(state)

    def extra_repr(self):
        return f"{self.input_width}, {self.width}"


class RNN(Recurrent):
    """h_t = tanh(W_x x_t + b + W_h h_{t-1}),   y_t = h_t.   State: (h,)

    Back through one step the gradient is multiplied by W_hᵀ diag(1 - h_t²): through n steps it vanishes or explodes
    like an n-th power.   Source: Elman 1990; Bengio et al. 1994; document D1 §1.1.
    """

    parts, state_names = 1, ("h",)

    def step(self, a, h):
        return (tanh(a + self.hidden(h)),)


class LSTM(Recurrent):
    """A memory c that is kept by a sum, not pressed through a matrix:

        [i f o g] = W_x x_t + b + W_h h_{t-1},   c_t = σ(f) c_{t-1} + σ(i) tanh(g),   h_t = σ(o) tanh(c_t),   y_t = h_t

    State: (h, c). Back along c the gradient is multiplied by σ(f), entry by entry: near 1 where the gate is open.
    forget_bias: where the bias of f starts; at 0 a memory begins with a half-life of one step, since σ(0) = 1/2.
    Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers et al. 2000; its bias: Jozefowicz et al. 2015.
    """

    parts, state_names = 4, ("h", "c")

    def __init__(
        self, input_width: int, width: int, *, generator: Generator, init=xavier_uniform, forget_bias: float = 1.0
    ):
        super().__init__(input_width, width, generator=generator, init=init)
        self.input.bias.data[width : 2 * width] = forget_bias

    def step(self, a, h, c):
        D = self.width
        gates, candidate = (a + self.hidden(h)).split([3 * D, D], axis=-1)
        i, f, o = sigmoid(gates).split(D, axis=-1)  # (B, 1, D) each
        c = f * c + i * tanh(candidate)
        return o * tanh(c), c


def _each(init, parts):
    """Several maps in one matrix: each starts with the fan-in and fan-out of its own (D, fan_in)."""

    def initialize(shape, generator):
        return np.concatenate([init((shape[0] // parts, shape[1]), generator) for _ in range(parts)])

    return initialize
