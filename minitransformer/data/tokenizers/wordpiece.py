"""WordPiece, the tokenizer of BERT: a word is cut into the longest pieces that the vocabulary has, from left to right.

    unaffable  ->  un ##aff ##able          "##": a piece that continues a word
    a word that cannot be made of pieces    ->  [UNK]

`encode` is of the text alone. A model's input has marks around it, which `sequence` sets:

    [CLS] first [SEP]                       token types 0
    [CLS] first [SEP] second [SEP]          token types 0 … 0 1 … 1

Source: Schuster & Nakajima 2012; Wu et al. 2016, §4.1; Devlin et al. 2019, §3.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path

from .base import MAX_FILE_BYTES, Tokenizer, check_keys, check_text
from .bert_words import bert_words
from .bpe_training import merge_frequent_pairs

__all__ = ["WordPieceTokenizer"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; a longer word is unknown
CONTINUES = "##"
WHITE = str.maketrans("\t\n\r", "   ")


class WordPieceTokenizer(Tokenizer):
    """id = the place in `vocabulary`, a list of distinct pieces, the five special tokens among them.

    lowercase, strip_accents (as lowercase unless given), chinese: what happens to a text before, see `bert_words`.
    A special token is an id that no text encodes to: "[SEP]" in a text is three words.
    `decode` gives back the normalised text: the words, and spaces where BERT's authors put them.
    Raises ValueError for a vocabulary with a piece twice or without a special token.
    """

    kind = "wordpiece"

    def __init__(self, vocabulary, lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True):
        self.vocabulary = list(vocabulary)
        for id, piece in enumerate(self.vocabulary):
            if not isinstance(piece, str):
                raise ValueError(f"token {id} of the vocabulary must be a string, got {type(piece).__name__}")
        ids = {piece: id for id, piece in enumerate(self.vocabulary)}
        if len(ids) != len(self.vocabulary):
            twice = next(piece for id, piece in enumerate(self.vocabulary) if ids[piece] != id)
            raise ValueError(f"the vocabulary has {check_text(twice)!r} twice")
        if missing := [name for name in SPECIAL if name not in ids]:
            raise ValueError(f"the vocabulary lacks the special token {missing[0]}")
        check_text("".join(self.vocabulary))
        self.lowercase, self.strip_accents, self.chinese = lowercase, strip_accents, chinese
        self.special_ids = {name: ids.pop(name) for name in SPECIAL}
        self.pad_id, self.unknown_id, self.start_id, self.end_id, self.mask_id = self.special_ids.values()
        self._ids, self._longest = ids, max(map(len, ids), default=0)
        self._stretches, self._words = _Cache(self._encode), _Cache(self._pieces)

    # ------------------------------------------------------------ text to ids

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        stretches = check_text(text).translate(WHITE).split(" ")  # over whose ends nothing reaches
        return list(chain.from_iterable(map(self._stretches.__getitem__, stretches)))

    def _encode(self, stretch):
        words = bert_words(stretch, self.lowercase, self.strip_accents, self.chinese)
        return list(chain.from_iterable(map(self._words.__getitem__, words)))

    def sequence(self, first: str, second: str | None = None, most: int | None = None) -> tuple[list[int], list[int]]:
        """(ids, token types) of a text, or of a pair, with its marks; at most `most` of them, cut from the longer text.

        Raises ValueError where `most` has no room for the marks.
        """
        parts = [self.encode(first)] + ([] if second is None else [self.encode(second)])
        if most is not None:
            room = most - 1 - len(parts)
            if room < 0:
                raise ValueError(f"most must be at least {1 + len(parts)}, for the marks alone, got {most}")
            _cut(parts, room)
        ids, types = [self.start_id], [0]
        for type, part in enumerate(parts):
            ids += [*part, self.end_id]
            types += [type] * (len(part) + 1)
        return ids, types

    def _pieces(self, word: str) -> list[int]:
        """The ids of one word: the longest piece that it begins with, then the longest that continues it, …"""
        if len(word) > LONGEST_WORD:
            return [self.unknown_id]
        ids, start, mark = [], 0, ""
        while start < len(word):
            for stop in range(min(len(word), start + self._longest), start, -1):
                id = self._ids.get(mark + word[start:stop])
                if id is not None:
                    break
            else:
                return [self.unknown_id]
            ids.append(id)
            start, mark = stop, CONTINUES
        return ids

    # ------------------------------------------------------------ ids to text

    def token_bytes(self, id: int) -> bytes:
        """A piece that begins a word has the space before it: " un", "aff", "able"."""
        piece = self.vocabulary[id]
        return (piece[2:] if piece.startswith(CONTINUES) else f" {piece}").encode("utf-8")

    def decode(self, ids, special: bool = False) -> str:
        """The text of ids: words apart, no space before . , ! ?; special tokens only where they are asked for."""
        drop = set() if special else set(self.special_ids.values())
        pieces = [self.vocabulary[id] for id in self._checked(ids) if id not in drop]
        joined = (
            piece[2:] if piece.startswith(CONTINUES) else piece if piece in (".", ",", "!", "?") else f" {piece}"
            for piece in pieces[1:]
        )  # fmt: skip
        return "".join([*pieces[:1], *joined])

    # ------------------------------------------------------------ where vocabularies come from

    @classmethod
    def train(cls, text: str, vocab_size: int, lowercase: bool = True) -> WordPieceTokenizer:
        """Learn a vocabulary of `vocab_size` pieces: special tokens, every character as it begins and as it continues a
        word, then the most frequent pairs of neighbouring pieces joined, as byte-pair encoding does.

        The same text gives the same tokenizer, smaller than asked when no pair is left that occurs twice.
        Raises ValueError when vocab_size does not hold the special tokens and the characters.
        """
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int):
            raise TypeError(f"vocab_size must be an integer, got {vocab_size!r}")
        counts = Counter(word for word in bert_words(check_text(text), lowercase) if len(word) <= LONGEST_WORD)
        spelled = [[word[0], *(CONTINUES + char for char in word[1:])] for word in counts]
        pieces = sorted(set(chain.from_iterable(spelled)))
        least = len(SPECIAL) + len(pieces)
        if vocab_size < least:
            raise ValueError(f"vocab_size must be at least {least} (special tokens, characters), got {vocab_size}")
        ids = {piece: id for id, piece in enumerate(pieces)}
        words = [[ids[piece] for piece in word] for word in spelled]
        # Two pairs may make one piece (a b·c and a·b c); then the vocabulary is short of one, and another is learned.
        for left, right in merge_frequent_pairs(words, list(counts.values()), len(pieces), vocab_size - least):
            pieces.append(pieces[left] + pieces[right].removeprefix(CONTINUES))
        return cls([*SPECIAL, *dict.fromkeys(pieces)], lowercase)

    @classmethod
    def from_vocab(cls, path, lowercase: bool = True, strip_accents: bool | None = None) -> WordPieceTokenizer:
        """From a vocab.txt, one piece a line. Raises ValueError, in one line, for a file that is none."""
        lines = _read(path).split("\n")  # not splitlines: U+2028 is a piece of some vocabularies
        lines = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
        return _made(path, cls, lines, lowercase, strip_accents)

    @classmethod
    def from_tokenizer_json(cls, path) -> WordPieceTokenizer:
        """From a tokenizer.json with BERT's parts. Raises ValueError, naming the field, for one that has others."""
        try:
            file = json.loads(_read(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no tokenizer.json: not JSON, or cut short ({error})") from None
        parts = {part: _object(path, file, part) for part in ("model", "normalizer", "pre_tokenizer")}
        wanted = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
        for part, kind in wanted.items():
            if parts[part].get("type", kind if part == "model" else None) != kind:
                raise ValueError(f"{path}: {part!r} must be of type {kind}, got {parts[part].get('type')!r}")
        model, normalizer = parts["model"], parts["normalizer"]
        for key, value in {"unk_token": "[UNK]", "continuing_subword_prefix": CONTINUES,
                           "max_input_chars_per_word": LONGEST_WORD}.items():  # fmt: skip
            if model.get(key, value) != value:
                raise ValueError(f"{path}: model.{key} must be {value!r}, got {model[key]!r}")
        ids = _object(path, model, "vocab", "model.")
        if not all(type(id) is int for id in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
            raise ValueError(f"{path}: model.vocab must give the ids 0..{len(ids) - 1}, each once")
        flags = [normalizer.get(key) for key in ("lowercase", "strip_accents", "handle_chinese_chars", "clean_text")]
        if not all(type(flag) is bool for flag in (flags[0], *flags[2:])) or flags[1] not in (None, True, False):
            raise ValueError(f"{path}: the flags of 'normalizer' must be true or false, got {flags}")
        if not flags[3]:
            raise ValueError(f"{path}: normalizer.clean_text must be true to be read")
        return _made(path, cls, sorted(ids, key=ids.get), *flags[:3])

    def content(self) -> dict:
        return {
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "chinese": self.chinese,
            "vocabulary": self.vocabulary,
        }

    @classmethod
    def from_content(cls, content: dict) -> WordPieceTokenizer:
        check_keys(content, "lowercase", "strip_accents", "chinese", "vocabulary")
        flags = [content[key] for key in ("lowercase", "strip_accents", "chinese")]
        if not isinstance(content["vocabulary"], list):
            raise ValueError('its "vocabulary" must be a list')
        if type(flags[0]) is not bool or type(flags[2]) is not bool or type(flags[1]) not in (bool, type(None)):
            raise ValueError('its "lowercase", "strip_accents" and "chinese" must be true or false')
        return cls(content["vocabulary"], *flags)


class _Cache(dict):
    """text -> ids, worked out the first time. Bounded: a text is few words again and again, and then noise."""

    ENTRIES = 1 << 16

    def __init__(self, encode):
        super().__init__()
        self.encode = encode

    def __missing__(self, text):
        ids = self.encode(text)
        if len(self) < self.ENTRIES and len(text) <= LONGEST_WORD:
            self[text] = ids
        return ids


def _cut(parts, room):
    """Shorten one part, or the longer of two and then both, from the end, until there is room for them together."""
    if sum(map(len, parts)) <= room:
        return
    short, long = ([], *parts) if len(parts) == 1 else sorted(parts, key=len)
    del short[room // 2 :]
    del long[room - len(short) :]


def _read(path) -> str:
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is no tokenizer: it is larger than {MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no tokenizer: not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def _object(path, parent, key, prefix=""):
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {prefix}{key} must be an object, got {type(value).__name__}")
    return value


def _made(path, cls, *arguments):
    try:
        return cls(*arguments)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
