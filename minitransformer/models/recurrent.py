"""A recurrent language model: predict the next token from a state that has read the tokens before it.

    model = RecurrentLM(RecurrentLMConfig(vocab_size=65, cell="lstm", width=128))
    loss = model.loss(ids, targets)               # (B, T) integers each; targets are ids one position later
    logits, state = model.read(ids)               # and go on from there: model.read(more, state)

What language models were before attention (Mikolov et al. 2010; Zaremba et al. 2014). There is no longest sequence and
no table of positions; all that is known of the past has to fit into the state.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import partial

from ..nn import LSTM, RNN, Embedding, Linear, Module
from ..nn.initialization import normal
from ..nn.module import check_size
from ..ops.cross_entropy import cross_entropy
from ..random import Generator
from ..tensor import Tensor, as_tensor

__all__ = ["RecurrentLM", "RecurrentLMConfig"]

CELLS = {"rnn": RNN, "lstm": LSTM}


@dataclass(frozen=True)
class RecurrentLMConfig:
    """The sizes of a recurrent language model.

    vocab_size V; cell "rnn" or "lstm"; layers L, of which each reads the outputs of the one below; width D;
    forget_bias, where the LSTM's forget gates start (an RNN has none).
    Raises ValueError, in one line, for what makes no model.
    """

    vocab_size: int
    cell: str = "lstm"
    layers: int = 1
    width: int = 128
    forget_bias: float = 1.0

    def __post_init__(self):
        check_size("RecurrentLM", vocab_size=self.vocab_size, layers=self.layers, width=self.width)
        if self.cell not in tuple(CELLS):
            near = difflib.get_close_matches(str(self.cell).lower(), CELLS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, CELLS))}"
            raise ValueError(f"RecurrentLM: there is no cell {self.cell!r}; {hint}")
        if not isinstance(self.forget_bias, (int, float)) or not math.isfinite(self.forget_bias):
            raise ValueError(f"RecurrentLM: forget_bias must be a finite number, got {self.forget_bias!r}")


class RecurrentLM(Module):
    """ids (B, T) -> logits (B, T, V): at every position the scores of the token that comes next.

    generator: draws the initial weights; `Generator(0)` unless given.
    """

    def __init__(self, config: RecurrentLMConfig, generator: Generator | None = None):
        self.config = config
        g = Generator(0) if generator is None else generator
        V, D = config.vocab_size, config.width
        options = {"forget_bias": config.forget_bias} if config.cell == "lstm" else {}
        # No norm stands between the table and the layer, so tokens come in at the size of 1 that its weights expect.
        self.token_embedding = Embedding(V, D, generator=g, init=partial(normal, std=1.0))
        self.layers = [CELLS[config.cell](D, D, generator=g, **options) for _ in range(config.layers)]
        self.head = Linear(D, V, generator=g, init=partial(normal, std=0.02))  # starts near guessing evenly

    def forward(self, ids) -> Tensor:
        """ids (B, T) integers -> logits (B, T, V), from a state of zeros."""
        return self.read(ids)[0]

    def read(self, ids, state=None) -> tuple[Tensor, list]:
        """ids (B, T) -> (logits (B, T, V), the state of every layer after them). state: what an earlier call returned.

        Raises ValueError where ids are not integers (B, T) with T > 0 or the state is of another batch, IndexError for
        an id outside 0..V-1.
        """
        ids = as_tensor(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] == 0:
            raise ValueError(
                f"RecurrentLM: ids must be integers (B, T) with T > 0, got {ids.dtype} of shape {ids.shape}"
            )
        if state is not None and len(state) != len(self.layers):
            raise ValueError(f"RecurrentLM: the state must be that of {len(self.layers)} layers, got {len(state)}")
        x, after = self.token_embedding(ids), []  # (B, T, D)
        for i, layer in enumerate(self.layers):
            x, last = layer(x, None if state is None else state[i])
            after.append(last)
        return self.head(x), after

    def loss(self, ids, targets) -> Tensor:
        """Mean cross-entropy, in nats a token, of targets (B, T) given ids (B, T); ln V is what guessing costs."""
        return cross_entropy(self(ids), targets)

    def extra_repr(self):
        return f"{self.parameter_count():,} parameters, cell={self.config.cell}"
