"""What may stand beside the attention: a question asked first, and what each layer would predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..token_text import token_label


@dataclass(frozen=True)
class Question:
    """A cover over the page until the reader has guessed: choices, the index of the right one, and why it is right."""

    text: str
    choices: tuple
    answer: int
    why: str = ""

    def packed(self):
        """For the page. Raises ValueError for fewer than two choices or an answer that is none of them."""
        count = len(self.choices)
        if count < 2 or not 0 <= self.answer < count:
            raise ValueError(
                f"a Question needs 2 or more choices and the answer's index, got {count} and {self.answer}"
            )
        choices = [str(choice) for choice in self.choices]
        return {"text": self.text, "choices": choices, "answer": self.answer, "why": self.why}


@dataclass(frozen=True)
class LogitLens:
    """What each layer would predict at each position if the model ended there: the k likeliest tokens, likeliest first.

    tokens: nested sequences (rows, Tq, k) of tokens; probabilities (rows, Tq, k); names of the rows, from the embedding
    ("input") to the last layer, numbered when left out.   Source: nostalgebraist 2020.
    """

    tokens: list
    probabilities: np.ndarray
    names: tuple = ()

    def packed(self, queries):
        """For the page. Raises ValueError when the three do not fit each other or the query axis."""
        p = np.asarray(self.probabilities, dtype=np.float64)
        widths = {len(cell) for row in self.tokens for cell in row}
        shape = (len(self.tokens), *{len(row) for row in self.tokens}, *widths)
        if p.ndim != 3 or shape != p.shape or p.shape[1] != queries or not p.size:
            raise ValueError(
                f"explore: a LogitLens needs tokens and probabilities of one shape (rows, query = {queries}, k), "
                f"got {shape} and {p.shape}"
            )
        if not (p.min() >= 0 and p.max() <= 1 + 1e-6):
            raise ValueError("explore: the probabilities of a LogitLens must lie in 0..1")
        names = [str(name) for name in self.names] or [str(i) for i in range(len(p))]
        if len(names) != len(p):
            raise ValueError(f"explore: a LogitLens has {len(p)} rows but {len(names)} names")
        tokens = [[[token_label(token, 16) for token in cell] for cell in row] for row in self.tokens]
        return {"names": names, "tokens": tokens, "probabilities": np.round(p, 4).tolist()}
