"""A KV cache in pages: many sequences of any length share one pool, and a common beginning is stored once.

    cache = PagedCache(layers, pages=64, page_size=16, heads=G, head_width=d)
    a = cache.start()                        # a sequence without tokens
    batch = cache.extend([a], tokens=7)      # places for 7 tokens more; then block(x, batch.layers[i]) for every layer
    b = cache.fork(a)                        # the same 7 tokens, at no cost
    batch = cache.extend([a, b], tokens=1)   # each now writes its own: the page that both would write to is copied
    cache.free(a)

A contiguous cache takes batch x capacity tokens of memory however short the sequences are; here what is lost is less
than a page a sequence.
Source: Kwon et al. 2023 (PagedAttention).
"""

from __future__ import annotations

import numpy as np

from ..ops.attention import paged_attention
from ..tensor import Tensor, as_dtype
from .module import check_size

__all__ = ["PagedCache", "PagedLayer"]


class PagedLayer:
    """One layer of a batch: the places of its new tokens, and attention over all tokens of each row."""

    def __init__(self, batch, keys, values):
        self.batch, self.keys, self.values = batch, keys, values  # (P, G, page_size, d)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options) -> Tensor:
        """Store key and value (B, G, T, d) of the new tokens; attention of query (B, H, T, d) to all: (B, H, T, d).

        Raises ValueError where they do not fit, TypeError for another dtype, RuntimeError while gradients are recorded,
        and where the places may be another's by now: a sequence was freed, forked or extended since.
        """
        batch, (_, G, page_size, d) = self.batch, self.keys.shape
        expected = (len(batch.lengths), G, batch.tokens, d)
        if key.requires_grad or value.requires_grad:
            raise RuntimeError("paged cache: no gradient flows through it; decode under mt.no_grad()")
        if key.device != "cpu":
            raise TypeError(f'paged cache: its pages live on cpu, the keys on {key.device}; .to("cpu") the model')
        if key.shape != expected or value.shape != expected:
            raise ValueError(f"paged cache: expects keys and values {expected}, got {key.shape} and {value.shape}")
        if query.ndim != 4 or query.shape[2] != batch.tokens:
            raise ValueError(f"paged cache: expects queries (B, H, {batch.tokens}, d), got {query.shape}")
        if key.dtype != self.keys.dtype or value.dtype != self.keys.dtype:
            raise TypeError(f"paged cache: made for {self.keys.dtype}, got {key.dtype} and {value.dtype}")
        batch.written_by(self)
        at = batch.lengths[:, None] - batch.tokens + np.arange(batch.tokens)  # (B, T)
        pages, slots = np.take_along_axis(batch.table, at // page_size, 1), at % page_size
        self.keys[pages, :, slots] = key.data.transpose(0, 2, 1, 3)
        self.values[pages, :, slots] = value.data.transpose(0, 2, 1, 3)
        return paged_attention(query, self.keys, self.values, batch.table, batch.lengths, **options)


class Batch:
    """What `PagedCache.extend` made ready: `layers`, one for each layer of the model, and `lengths` (B,) with the new
    tokens counted."""

    def __init__(self, cache, sequences, table, lengths, tokens):
        self.cache, self.sequences = cache, list(sequences)
        self.table, self.lengths, self.tokens = table, lengths, tokens
        self.layers = [PagedLayer(self, *pool) for pool in cache.pools]
        self.unwritten = set(self.layers)

    def written_by(self, layer):
        """Note that a layer stores its tokens. Raises RuntimeError where it must not any more."""
        if any(self.cache.batches.get(sequence) is not self for sequence in self.sequences):
            raise RuntimeError(f"paged cache: of {self.sequences} one was freed, forked or extended since; extend anew")
        self.unwritten.discard(layer)


class PagedCache:
    """`pages` pages of `page_size` tokens for every layer, shared by all sequences, which are numbers from `start`."""

    def __init__(self, layers: int, pages: int, page_size: int, heads: int, head_width: int, dtype="float32"):
        check_size("PagedCache", layers=layers, pages=pages, page_size=page_size, heads=heads, head_width=head_width)
        shape = (pages, heads, page_size, head_width)
        self.pools = [tuple(np.empty(shape, as_dtype(dtype)) for _ in range(2)) for _ in range(layers)]
        self.page_size = page_size
        self.holders = np.zeros(pages, np.int64)  # how many sequences hold each page
        self.sequences: dict[int, list[int]] = {}  # sequence -> its pages
        self.lengths: dict[int, int] = {}
        self.batches: dict[int, Batch] = {}  # sequence -> the batch that may write its last tokens
        self._next = 0

    @property
    def free_pages(self) -> int:
        return int((self.holders == 0).sum())

    def start(self) -> int:
        """A new sequence without tokens."""
        number, self._next = self._next, self._next + 1
        self.sequences[number], self.lengths[number] = [], 0
        return number

    def fork(self, sequence: int) -> int:
        """A new sequence with the same tokens. Their pages are shared, and copied only when one of the two writes."""
        self._check_written(sequence)
        self.batches.pop(sequence, None)  # which would write for both
        number = self.start()
        self.sequences[number], self.lengths[number] = list(self.sequences[sequence]), self.lengths[sequence]
        self.holders[self.sequences[sequence]] += 1
        return number

    def free(self, sequence: int) -> None:
        """Forget a sequence; pages that nobody else holds are free again."""
        self._check(sequence)
        self.holders[self.sequences.pop(sequence)] -= 1
        del self.lengths[sequence]
        self.batches.pop(sequence, None)

    def extend(self, sequences: list[int], tokens: int) -> Batch:
        """Make places for `tokens` more tokens of each sequence; every layer must then write them, by `attend`.

        Raises RuntimeError, with nothing changed, where the free pages do not suffice, or the tokens of the extend
        before are not written yet.
        """
        check_size("PagedCache", tokens=tokens)
        for sequence in sequences:
            self._check_written(sequence)
        if len(set(sequences)) != len(sequences):
            raise ValueError(f"paged cache: a sequence can be only once in a batch, got {sequences}")
        before = self.holders.copy(), {s: list(self.sequences[s]) for s in sequences}
        try:
            for sequence in sequences:
                self._make_room(sequence, self.lengths[sequence] + tokens)
        except RuntimeError:
            self.holders = before[0]
            self.sequences.update(before[1])
            raise
        for sequence in sequences:
            self.lengths[sequence] += tokens
        lengths = np.array([self.lengths[s] for s in sequences], np.int64)
        table = np.zeros((len(sequences), max((len(self.sequences[s]) for s in sequences), default=0)), np.int64)
        for row, sequence in zip(table, sequences, strict=True):
            row[: len(self.sequences[sequence])] = self.sequences[sequence]
        batch = Batch(self, sequences, table, lengths, tokens)
        self.batches.update(dict.fromkeys(sequences, batch))
        return batch

    def _make_room(self, sequence, length):
        pages = self.sequences[sequence]
        partial = self.lengths[sequence] % self.page_size != 0
        if partial and self.holders[pages[-1]] > 1:  # it will be written to, and others read it
            shared, own = pages[-1], self._take()
            for keys, values in self.pools:
                keys[own], values[own] = keys[shared], values[shared]
            self.holders[shared] -= 1
            pages[-1] = own
        while len(pages) * self.page_size < length:
            pages.append(self._take())

    def _take(self):
        free = np.flatnonzero(self.holders == 0)
        if not free.size:
            raise RuntimeError(f"paged cache: all {len(self.holders)} pages are in use; free a sequence")
        self.holders[free[0]] = 1
        return int(free[0])

    def _check(self, sequence):
        if sequence not in self.sequences:
            raise KeyError(f"paged cache: no sequence {sequence!r}; it holds {sorted(self.sequences)}")

    def _check_written(self, sequence):
        self._check(sequence)
        if sequence in self.batches and self.batches[sequence].unwritten:
            raise RuntimeError(
                f"paged cache: sequence {sequence} still lacks tokens that a layer must write, by attend"
            )
