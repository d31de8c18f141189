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
from .byte_letters import from_letters, to_letters
from .pretokenize import RULES, pretokenize

__all__ = ["BPETokenizer"]

MAX_VOCABULARY_BYTES = 1 << 26  # 27 merges of a token with itself would ask for more: a file may lie


class BPETokenizer(Tokenizer):
    """merges[r] = (left, right) makes token 256 + r; special tokens take the ids after the last merge.

    A special token ("<|end|>") is an id that no text encodes to: the same characters in a text are a text. Its id is in
    `special_ids`, for whoever builds the sequence to put there.

    vocabulary: where the ids of a model made elsewhere stand in another order, the bytes of every id. Then the token
    that a merge makes is the one with its bytes, and special_tokens is {name: id}. Such a vocabulary may lack bytes
    which its makers' texts did not have. pretokenizer: a name of `pretokenize.RULES`.
    Raises ValueError for a merge of ids that do not exist yet, a merge given twice, special tokens that repeat, a merge
    that makes no token of the vocabulary.
    """

    kind = "bpe"

    def __init__(self, merges, special_tokens=(), pretokenizer: str = "gpt2", vocabulary=None):
        if pretokenizer not in RULES:
            raise ValueError(f'its "pretokenizer" must be one of {", ".join(RULES)}, got {pretokenizer!r}')
        self.merges, self.pretokenizer = [tuple(pair) for pair in merges], pretokenizer
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        if len(self._ranks) != len(self.merges):
            raise ValueError("a pair is merged twice")
        if not all(isinstance(name, str) and name for name in special_tokens):
            raise ValueError("special tokens must be non-empty strings")
        self.special_tokens, self._own_order = tuple(special_tokens), vocabulary is not None
        if vocabulary is None:
            self._tokens = _build_tokens(self.merges)
            self._bytes, self._made = range(256), range(256, len(self._tokens))
            self.special_ids = {name: id for id, name in enumerate(self.special_tokens, start=len(self._tokens))}
            if len(self.special_ids) != len(self.special_tokens):
                raise ValueError("a special token is given twice")
            self._tokens += [check_text(name).encode("utf-8") for name in self.special_tokens]
        else:
            self._tokens, self.special_ids = list(vocabulary), dict(special_tokens)
            self._bytes, self._made = _find_tokens(self._tokens, self.merges, set(self.special_ids.values()))
        self._known = bytes(byte for byte in range(256) if self._bytes[byte] is not None)
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

    def encode(self, text: str, errors: str = "strict") -> list[int]:
        """The ids of a text. A character with a byte that the vocabulary lacks raises ValueError, or loses that byte
        with errors="ignore", as it does in other libraries; only a `vocabulary` of others lacks any."""
        if errors not in ("strict", "ignore"):
            raise ValueError(f'errors must be "strict" or "ignore", got {errors!r}')
        check_text(text)
        if len(self._known) < 256 and errors == "strict" and text.encode("utf-8").translate(None, self._known):
            char = next(char for char in text if char.encode("utf-8").translate(None, self._known))
            raise ValueError(
                f"the text has {char!r} (U+{ord(char):04X}), of which this tokenizer does not know every byte; "
                'leave it out, or pass errors="ignore"'
            )
        pieces = pretokenize(text, rule=self.pretokenizer)
        return list(chain.from_iterable(map(self._pieces.__getitem__, pieces)))

    def token_bytes(self, id: int) -> bytes:
        return self._tokens[id]

    def content(self) -> dict:
        # The third entry of a row is for the reader of the file; no Unicode table, which changes, takes part in it.
        made = [self._tokens[id] for id in self._made]
        rows = [[*pair, text.decode("utf-8", errors="backslashreplace")] for pair, text in zip(self.merges, made)]
        content = {"pretokenizer": self.pretokenizer, "special_tokens": list(self.special_tokens), "merges": rows}
        if self._own_order:
            content["special_tokens"] = self.special_ids
            content["vocabulary"] = [to_letters(token) for token in self._tokens]
        return content

    @classmethod
    def from_content(cls, content: dict) -> BPETokenizer:
        own_order = "vocabulary" in content
        check_keys(content, "pretokenizer", "special_tokens", "merges", *["vocabulary"] * own_order)
        names, rows, tokens = content["special_tokens"], content["merges"], content.get("vocabulary", [])
        if not isinstance(names, dict if own_order else list) or not isinstance(rows, list):
            raise ValueError('its "special_tokens" and "merges" must be lists')
        if not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise ValueError('each of its "merges" must be a left id, a right id and their text')
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError('its "vocabulary" must be a list of strings')
        vocabulary = [from_letters(token) for token in tokens] if own_order else None
        return cls([row[:2] for row in rows], names, content["pretokenizer"], vocabulary)

    @classmethod
    def from_letters(cls, tokens, merges, special_ids, pretokenizer: str = "gpt2") -> BPETokenizer:
        """From what the files of others hold: tokens and merges in GPT-2's letters ("Ġthe", "Ġt he"), in the order of
        their ids and ranks; special_ids: the ids of the tokens that stand for themselves and not for a text.

        Raises ValueError for merges of tokens that the vocabulary does not have.
        """
        special_ids = set(special_ids)
        vocabulary = [
            check_text(token).encode("utf-8") if id in special_ids else from_letters(token)
            for id, token in enumerate(tokens)
        ]
        ids = {token: id for id, token in reversed(list(enumerate(tokens))) if id not in special_ids}
        pairs = []
        for rank, merge in enumerate(merges):
            pair = [ids.get(part) for part in merge.split(" ")]
            if len(pair) != 2 or None in pair:
                raise ValueError(f"merge {rank} must be two tokens of the vocabulary, got {merge!r}")
            pairs.append(pair)
        return cls(pairs, {tokens[id]: id for id in sorted(special_ids)}, pretokenizer, vocabulary)

    def _merge(self, data: bytes) -> list[int]:
        """The ids of one piece: always the pair of lowest rank, the leftmost of equals. O(n log n) for n bytes.

        A heap holds the pairs that can be merged; `after` and `before` link the tokens that are left. A pair that a
        merge makes possible was learned after it, so it can wait its turn in the heap.
        """
        ids = [id for byte in data if (id := self._bytes[byte]) is not None]
        rank_of, made = self._ranks.get, self._made
        n = len(ids)
        heap = [(rank, i) for i in range(n - 1) if (rank := rank_of((ids[i], ids[i + 1]))) is not None]
        heapq.heapify(heap)
        after, before = list(range(1, n + 1)), list(range(-1, n))
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if j >= n or rank_of((ids[i], ids[j])) != rank:  # a neighbour took one of the two
                continue
            ids[i], ids[j] = made[rank], -1
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


def _find_tokens(tokens, merges, special):
    """Of a vocabulary in its own order: the id of each byte (None where it has none), and of each merge's result."""
    ids: dict[bytes, int] = {}
    for id, token in enumerate(tokens):
        if not isinstance(token, bytes):
            raise ValueError(f"token {id} of a vocabulary must be bytes, got {type(token).__name__}")
        if id not in special:
            ids.setdefault(token, id)
    if not all(type(id) is int and 0 <= id < len(tokens) for id in special):
        raise ValueError(f"special tokens must have ids in 0..{len(tokens) - 1}")
    made = []
    for rank, pair in enumerate(merges):
        if len(pair) != 2 or not all(type(id) is int and 0 <= id < len(tokens) for id in pair):
            raise ValueError(f"merge {rank} must join two of the ids 0..{len(tokens) - 1}, got {list(pair)}")
        joined = tokens[pair[0]] + tokens[pair[1]]
        if joined not in ids:
            raise ValueError(f"merge {rank} makes {joined!r}, which is no token of the vocabulary")
        made.append(ids[joined])
    return [ids.get(bytes([byte])) for byte in range(256)], made
