"""Byte-level byte-pair encoding: ids 0-255 are the bytes, every further id is a pair of earlier ones.

Because the bytes are in the vocabulary nothing is ever unknown: any text of any script goes in and comes back.

    encode: cut the text into pieces; inside each, merge the pair that was learned first, until no learned pair is left
    decode: join the bytes

Source: Sennrich et al. 2016; on bytes: Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

import heapq
from itertools import chain

from .base import Tokenizer, check_keys, check_text
from .bpe_training import learn_merges
from .pretokenize import pretokenize

__all__ = ["BPETokenizer"]

MAX_VOCABULARY_BYTES = 1 << 26  # 27 merges of a token with itself would ask for more: a file may lie


class BPETokenizer(Tokenizer):
    """merges[r] = (left, right) makes token 256 + r; special tokens take the ids after the last merge.

    A special token ("<|end|>") is an id that no text encodes to: the same characters in a text are a text. Its id is in
    `special_ids`, for whoever builds the sequence to put there.
    Raises ValueError for a merge of ids that do not exist yet, a merge given twice, or special tokens that repeat.
    """

    kind = "bpe"

    def __init__(self, merges, special_tokens=()):
        self.merges = [tuple(pair) for pair in merges]
        self.special_tokens = tuple(special_tokens)
        self._tokens = _build_tokens(self.merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        if len(self._ranks) != len(self.merges):
            raise ValueError("a pair is merged twice")
        if not all(isinstance(name, str) and name for name in self.special_tokens):
            raise ValueError("special tokens must be non-empty strings")
        self.special_ids = {name: id for id, name in enumerate(self.special_tokens, start=len(self._tokens))}
        if len(self.special_ids) != len(self.special_tokens):
            raise ValueError("a special token is given twice")
        self._tokens += [check_text(name).encode("utf-8") for name in self.special_tokens]
        self._pieces = _PieceCache(self._merge)

    @classmethod
    def train(cls, text: str, vocab_size: int, special_tokens=()) -> BPETokenizer:
        """Learn a vocabulary of `vocab_size` tokens: 256 bytes, merges, special tokens.

        The same text gives the same tokenizer, smaller than asked when the text has no pair left that occurs twice.
        Raises ValueError when vocab_size does not hold the bytes and the special tokens.
        """
        special_tokens = tuple(special_tokens)
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int):
            raise TypeError(f"vocab_size must be an integer, got {vocab_size!r}")
        least = 256 + len(special_tokens)
        if vocab_size < least:
            raise ValueError(f"vocab_size must be at least {least} (every byte, every special token), got {vocab_size}")
        return cls(learn_merges(check_text(text), vocab_size - least), special_tokens)

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._pieces.__getitem__, pretokenize(check_text(text)))))

    def token_bytes(self, id: int) -> bytes:
        return self._tokens[id]

    def content(self) -> dict:
        # The third entry of a row is for the reader of the file; no Unicode table, which changes, takes part in it.
        texts = [token.decode("utf-8", errors="backslashreplace") for token in self._tokens[256:]]
        rows = [[*pair, text] for pair, text in zip(self.merges, texts)]
        return {"pretokenizer": "gpt2", "special_tokens": list(self.special_tokens), "merges": rows}

    @classmethod
    def from_content(cls, content: dict) -> BPETokenizer:
        check_keys(content, "pretokenizer", "special_tokens", "merges")
        if content["pretokenizer"] != "gpt2":
            raise ValueError(f'its "pretokenizer" must be "gpt2", got {content["pretokenizer"]!r}')
        names, rows = content["special_tokens"], content["merges"]
        if not isinstance(names, list) or not isinstance(rows, list):
            raise ValueError('its "special_tokens" and "merges" must be lists')
        if not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise ValueError('each of its "merges" must be a left id, a right id and their text')
        return cls([row[:2] for row in rows], names)

    def _merge(self, data: bytes) -> list[int]:
        """The ids of one piece: always the pair of lowest rank, the leftmost of equals. O(n log n) for n bytes.

        A heap holds the pairs that can be merged; `after` and `before` link the tokens that are left. A pair that a
        merge makes possible was learned after it, so it can wait its turn in the heap.
        """
        ids, n, rank_of = list(data), len(data), self._ranks.get
        heap = [(rank, i) for i in range(n - 1) if (rank := rank_of((ids[i], ids[i + 1]))) is not None]
        heapq.heapify(heap)
        after, before = list(range(1, n + 1)), list(range(-1, n))
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if j >= n or rank_of((ids[i], ids[j])) != rank:  # a neighbour took one of the two
                continue
            ids[i], ids[j] = 256 + rank, -1
            k = after[i] = after[j]
            before[k] = i
            if k < n and (right := rank_of((ids[i], ids[k]))) is not None:
                heapq.heappush(heap, (right, i))
            h = before[i]
            if h >= 0 and (left := rank_of((ids[h], ids[i]))) is not None:
                heapq.heappush(heap, (left, h))
        return [id for id in ids if id >= 0]


class _PieceCache(dict):
    """piece -> ids, merged at the first look-up. Bounded: a text is few words again and again, and then noise."""

    ENTRIES, CHARACTERS = 1 << 16, 256

    def __init__(self, merge):
        super().__init__()
        self.merge = merge

    def __missing__(self, piece):
        ids = self.merge(piece.encode("utf-8"))
        if len(self) < self.ENTRIES and len(piece) <= self.CHARACTERS:
            self[piece] = ids
        return ids


def _build_tokens(merges):
    tokens = [bytes([byte]) for byte in range(256)]
    total = 0
    for pair in merges:
        known = len(tokens)
        if len(pair) != 2 or not all(type(id) is int and 0 <= id < known for id in pair):
            raise ValueError(f"merge {known - 256} must join two of the ids 0..{known - 1}, got {list(pair)}")
        left, right = pair
        total += len(tokens[left]) + len(tokens[right])
        if total > MAX_VOCABULARY_BYTES:
            raise ValueError(f"its tokens are longer than {MAX_VOCABULARY_BYTES >> 20} MB together")
        tokens.append(tokens[left] + tokens[right])
    return tokens
