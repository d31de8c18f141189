"""Batches for next-token prediction: x is a window of T tokens, y the same window one token later.

    ids t₀ t₁ t₂ t₃ …      x = t_s … t_{s+T-1}      y = t_{s+1} … t_{s+T}

So a window takes T + 1 tokens, and gives T questions with their answers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

__all__ = ["BatchSampler", "evaluation_batches", "split", "tokens_needed"]


def split(ids, validation_fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation): the last ⌊n · fraction⌋ tokens are validation, the ones before them training.

    One cut, not a draw of windows: a drawn validation window would lie among, and overlap, windows trained on.
    Raises ValueError unless 0 <= fraction < 1.
    """
    ids = _as_ids(ids)
    cut = len(ids) - _validation_size(len(ids), validation_fraction)
    return ids[:cut], ids[cut:]


def tokens_needed(context: int, validation_fraction: float = 0.1) -> int:
    """The fewest tokens whose `split` leaves a window, context + 1 tokens, in either part (fraction 0: in training)."""
    window, held_out = _positive("context", context) + 1, validation_fraction
    _validation_size(0, held_out)  # checks it
    needed = int(max((window - 1) / (1 - held_out), window / held_out if held_out else 0)) - 1
    while True:  # rounding decides the last token or two
        validation = _validation_size(needed, held_out)
        if needed - validation >= window and (validation >= window or not held_out):
            return needed
        needed += 1


class BatchSampler:
    """Endless seeded batches: (x, y), both (B, T) int64, y[b, i] the token after x[b, i].

    An epoch cuts the ids into windows from a random offset below T and goes through them in random order: no token is
    read twice in it, fewer than T at either end are left out, and the next epoch cuts at other places. A batch may
    reach over an epoch's end.

    `generator` belongs to the sampler alone. `state_dict()` is the generator's state at the epoch's start and the
    position in the epoch, plain integers fit for JSON; after `load_state_dict` the batches continue bit for bit.
    Raises ValueError when the ids are fewer than T + 1.
    """

    def __init__(self, ids, batch_size: int, context: int, generator):
        self.ids = _windowed(ids, context)
        self.batch_size = _positive("batch_size", batch_size)
        self.context = int(context)
        self.generator = generator
        self._checksum = None
        self._begin_epoch()

    def _begin_epoch(self):
        self._epoch_state = self.generator.state_dict()
        last = len(self.ids) - 1 - self.context  # the last place where a window can start
        offset = int(self.generator.integers(0, min(self.context, last + 1), (1,))[0])
        windows = 1 + (last - offset) // self.context
        self._starts = offset + self.context * self.generator.permutation(windows)
        self._position = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        starts = np.empty(self.batch_size, np.int64)
        filled = 0
        while filled < self.batch_size:
            if self._position == len(self._starts):
                self._begin_epoch()
            some = self._starts[self._position : self._position + self.batch_size - filled]
            starts[filled : filled + len(some)] = some
            filled += len(some)
            self._position += len(some)
        return _windows(self.ids, starts, self.context)

    def state_dict(self) -> dict:
        """Where the sampler stands, and of which ids."""
        return {"generator": dict(self._epoch_state), "position": self._position, **self._text()}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict()` was taken.

        Raises ValueError, and leaves the sampler as it was, when the state is none, or of other ids or another context.
        """
        text = self._text()
        if not isinstance(state, dict) or set(state) != {"generator", "position", *text}:
            raise ValueError("not the state of a batch sampler: it needs generator, position, " + ", ".join(text))
        for name, here in text.items():
            if state[name] != here:
                raise ValueError(f"the batches cannot be resumed: {name} was {state[name]} and is {here} here")
        before = self.generator.state_dict(), self._epoch_state, self._starts, self._position
        try:
            self.generator.load_state_dict(state["generator"])
            self._begin_epoch()
            position = state["position"]
            if type(position) is not int or not 0 <= position <= len(self._starts):
                raise ValueError(f"position must be an integer in 0..{len(self._starts)}, got {position!r}")
            self._position = position
        except Exception as error:
            self.generator.load_state_dict(before[0])
            _, self._epoch_state, self._starts, self._position = before
            raise ValueError(f"not the state of a batch sampler: {error}") from error

    def _text(self):
        if self._checksum is None:  # once, and only for who saves or resumes
            self._checksum = zlib.crc32(np.ascontiguousarray(self.ids, dtype="<i8"))
        return {"tokens": len(self.ids), "checksum": self._checksum, "context": self.context}


def evaluation_batches(ids, batch_size: int, context: int, limit: int | None = None):
    """Iterate over (x, y) in text order, each window once: shapes (B, T), the last batch perhaps with fewer rows.

    `limit` is the most batches. Tokens after the last whole window are left out.
    Raises ValueError when the ids are fewer than T + 1.
    """
    ids = _windowed(ids, context)
    batch_size = _positive("batch_size", batch_size)
    starts = np.arange(0, len(ids) - context, context)
    if limit is not None:
        starts = starts[: batch_size * _positive("limit", limit)]
    return (_windows(ids, starts[i : i + batch_size], context) for i in range(0, len(starts), batch_size))


def _windows(ids, starts, context):
    places = starts[:, None] + np.arange(context)  # (B, T)
    return ids[places].astype(np.int64, copy=False), ids[places + 1].astype(np.int64, copy=False)


def _windowed(ids, context):
    ids = _as_ids(ids)
    if len(ids) < _positive("context", context) + 1:
        raise ValueError(
            f"a context of {context} needs at least {context + 1} tokens, got {len(ids)}; "
            "give more text or a smaller context"
        )
    return ids


def _as_ids(ids):
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"ids must be integers in one dimension, got shape {array.shape} of {array.dtype}")
    return array if array.size else array.astype(np.int64)


def _validation_size(n, fraction):
    if not 0 <= fraction < 1:
        raise ValueError(f"validation_fraction must be at least 0 and below 1, got {fraction}")
    return int(n * fraction)


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
