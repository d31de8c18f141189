"""A feed-forward layer that reads only the neurons which matter for the token at hand."""

from __future__ import annotations

import numpy as np

from .. import kernels
from ..graph import is_grad_enabled, xp
from ..kernels.devices import device, fetch
from ..ops.activation import relu, silu
from ..ops.matmul import linear, matmul
from ..ops.topk_activation import check_backward, count_of, topk_activation
from ..random import Generator
from ..tensor import Tensor
from .initialization import xavier_uniform
from .module import Buffer, Module, Parameter, check_size

__all__ = ["SparseFeedForward"]

FORMS = {"plain": relu, "relu2": relu, "swiglu": silu}
FEW = 16  # tokens up to which reading the chosen rows beats the dense products


class SparseFeedForward(Module):
    """y = h W_down, where h has `active` of its neurons and is 0 elsewhere.

        plain    h = top_k(relu(x W_gateᵀ))
        relu2    h = top_k(relu(x W_gateᵀ))²
        swiglu   h = top_k(silu(x W_gateᵀ)) ⊙ (x W_upᵀ),   the largest by magnitude

    Shapes: x (..., D) -> y (..., D); W_gate, W_up and W_down (hidden, D): row m of each is what neuron m reads and
    writes, so a neuron that is not chosen is memory that is not touched.

    While gradients are recorded, and for more than 16 tokens, the products are dense and the choice is a mask; the
    numbers are the same. For fewer tokens the gate is computed whole and of the other matrices only the chosen rows are
    read. After `fit_predictor` the choice is made by a low-rank guess of the gate instead, and of the gate too only the
    chosen rows are read. `rank`: with a predictor of that rank from the start, that for inputs of all directions alike,
    until `fit_predictor` or a saved state replaces it.

    `shared`: one choice for all tokens of a call, by the sum of their scores: worse for each, but the rows are read
    once for all. A token's output then depends on all the others, and tokens of one text would see those after them: it
    is for serving, a token of each text a call. While gradients are recorded it is a RuntimeError.
    Source: So et al. 2021 (ReLU²); Shazeer 2020 (SwiGLU); Liu et al. 2023 (Deja Vu: predictors); document D1 §4.1.
    """

    def __init__(
        self, width: int, hidden: int | None = None, active: float = 0.15, form: str = "swiglu", backward: str = "mask",
        shared: bool = False, rank: int | None = None, *, generator: Generator, init=xavier_uniform,
    ):  # fmt: skip
        hidden = 4 * width if hidden is None else hidden
        check_size("SparseFeedForward", width=width, hidden=hidden)
        if form not in tuple(FORMS):
            raise ValueError(f"SparseFeedForward: form must be one of {', '.join(FORMS)}, got {form!r}")
        check_backward(backward)
        self.width, self.hidden, self.form, self.shared, self.backward = width, hidden, form, shared, backward
        self.k = count_of(active, hidden)
        self.gate = Parameter(init((hidden, width), generator))
        self.up = Parameter(init((hidden, width), generator)) if form == "swiglu" else None
        self.down = Parameter(init((hidden, width), generator))
        self.predictor: tuple[Buffer, Buffer] | None = None
        if rank is not None:
            self.fit_predictor(np.eye(width), rank)

    def forward(self, x):
        self._check(x)
        tokens = x.reshape(-1, self.width)
        recording = is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        if recording and self.shared:
            raise RuntimeError("SparseFeedForward: shared lets tokens see later ones; it is for serving, mt.no_grad()")
        few = not recording and tokens.shape[0] <= FEW
        y = Tensor(self._read_chosen(tokens.data)) if few else self._read_all(tokens)
        return y.reshape(x.shape)

    def fit_predictor(self, x, rank: int) -> float:
        """Guess the gate through `rank` numbers: the map of that rank nearest to W_gate on the inputs x (N, D).

        With C = xᵀx / N and C^½ from its eigenvectors, W_gate C^½ = U S Vᵀ; what is kept is U_r and U_rᵀ W_gate, the
        reduced-rank regression (Izenman 1975) of the gate on x. Returns the recall: the share of the k truly largest
        neurons that the guess finds, on x itself.
        """
        x = np.asarray(fetch(x.data if isinstance(x, Tensor) else x), np.float64)
        self._check(x)
        x = x.reshape(-1, self.width)
        if not len(x) or not np.isfinite(x).all():
            raise ValueError(f"fit_predictor: x must be finite and hold at least one token, got shape {x.shape}")
        check_size("fit_predictor", rank=rank)
        if rank > self.width:
            raise ValueError(f"fit_predictor: rank must lie in 1..{self.width}, got {rank}")
        gate = fetch(self.gate.data).astype(np.float64)
        values, vectors = np.linalg.eigh(x.T @ x / len(x))
        root = gate @ (vectors * np.sqrt(np.maximum(values, 0)))
        _, directions = np.linalg.eigh(root.T @ root)
        left, _ = np.linalg.qr(root @ directions[:, ::-1][:, :rank])  # U_r: (hidden, rank)
        here = device(self.gate.device)
        left, into, x = (here.put(a.astype(self.gate.dtype)) for a in (left, left.T @ gate, x))
        self.predictor = Buffer(into), Buffer(left)
        guessed, true = self._choice(self._scores(x)), self._choice(self._activation(x @ self.gate.data.T))
        found = sum(len(np.intersect1d(g, t)) for g, t in zip(fetch(guessed), fetch(true), strict=True))
        return found / true.size

    def _check(self, x):
        if x.shape[-1:] != (self.width,):
            raise ValueError(f"SparseFeedForward: x must be (..., {self.width}), got shape {tuple(x.shape)}")

    # ------------------------------------------------------------ the two ways

    def _read_all(self, x):
        """Dense products; the choice is a mask."""
        gate = FORMS[self.form](linear(x, self.gate))
        if self.predictor is None and not self.shared:
            gate = topk_activation(gate, self.k, by=self._by, backward=self.backward)
        else:
            scores = gate.data if self.predictor is None else self._scores(x.data)
            np = xp(x.data)
            mask = np.zeros(gate.shape, gate.dtype)
            np.put_along_axis(mask, np.broadcast_to(self._choice(scores), (len(mask), self.k)), 1, axis=1)
            if self.backward == "mask":
                gate = gate * Tensor(mask)
            else:
                gate = gate + Tensor(gate.data * mask - gate.data)  # what is cut off counts as a constant
        h = gate * linear(x, self.up) if self.form == "swiglu" else gate * gate if self.form == "relu2" else gate
        return matmul(h, self.down)

    def _read_chosen(self, x):
        """Arrays: of every matrix but a gate that is needed whole, only the chosen rows."""
        if self.predictor is None:
            np = xp(x)
            all_rows = np.arange(self.hidden)[None]  # a row at a time is how few tokens read a matrix the fastest
            gate = self._activation(kernels.gathered_linear(x, self.gate.data, all_rows))
            chosen = self._choice(gate)
            gate = np.take_along_axis(gate, np.broadcast_to(chosen, (len(x), self.k)), axis=1)
        else:
            chosen = self._choice(self._scores(x))
            gate = self._activation(kernels.gathered_linear(x, self.gate.data, chosen))
        if self.form == "swiglu":
            gate = gate * kernels.gathered_linear(x, self.up.data, chosen)
        elif self.form == "relu2":
            gate = gate * gate
        return kernels.gathered_sum(gate, self.down.data, chosen)

    # ------------------------------------------------------------ the choice

    @property
    def _by(self):
        return "magnitude" if self.form == "swiglu" else "value"

    def _activation(self, gate):
        return FORMS[self.form](Tensor(gate)).data

    def _scores(self, x):
        """What the predictor expects of the gate, (N, hidden)."""
        into, out_of = self.predictor
        return self._activation(kernels.linear(kernels.linear(x, into.data), out_of.data))

    def _choice(self, scores):
        """The neurons that count, ascending: (N, k), or (1, k) where all tokens share."""
        if self.shared and len(scores):
            scores = abs(scores).sum(0, keepdims=True)
        return kernels.topk_activation(scores, self.k, self._by)[1]

    def extra_repr(self):
        return f"{self.width}, hidden={self.hidden}, active={self.k}, form={self.form}"
