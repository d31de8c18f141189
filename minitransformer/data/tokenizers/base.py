"""What every tokenizer is: text to ids and back, labels for people, and a file that is data and nothing but data.

The file is JSON: {"format", "version", "kind", "sha256", "content"}. `sha256` is of the version, kind and content, so a
truncated or edited file is noticed before it tokenizes anything; `kind` chooses the class. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from .labels import readable_sequence

__all__ = ["Tokenizer", "load_tokenizer", "tokenizer_from_json"]

FORMAT, VERSION = "minitransformer tokenizer", 1
MAX_FILE_BYTES = 1 << 26


class Tokenizer(ABC):
    """Text <-> ids 0..vocab_size-1. `decode(encode(text)) == text` for every text that `encode` accepts."""

    kind: str  # the word in the file that names the class
    kinds: dict[str, type[Tokenizer]] = {}
    chat = None  # the template of dialogues (`ChatML`), where the model that it belongs to has one

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Tokenizer.kinds[cls.kind] = cls

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """V, the number of ids."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises TypeError for what is not a str, ValueError for characters it cannot encode."""

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that an id stands for (perhaps only a part of a character)."""

    @abstractmethod
    def content(self) -> dict:
        """What the file keeps, in JSON's types."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: dict) -> Tokenizer:
        """The inverse of `content()`. Raises ValueError for anything that `content()` cannot have written."""

    def decode(self, ids) -> str:
        """The text of a sequence of ids. Bytes that form no character (a sequence cut inside one) become U+FFFD.

        Raises TypeError unless ids are integers in one dimension, IndexError for an id outside 0..V-1.
        """
        return b"".join(map(self.token_bytes, self._checked(ids))).decode("utf-8", errors="replace")

    def token_text(self, id: int) -> str:
        """The label of an id by itself: "·the", "↵", "‹e4›"."""
        return self.token_strings([id])[0]

    def token_strings(self, ids) -> list[str]:
        """One label for each token of a sequence; a character that tokens share reads "你₁", "你₂" in them."""
        return readable_sequence([self.token_bytes(id) for id in self._checked(ids)])

    @property
    def sha256(self) -> str:
        """Identity: equal for two tokenizers exactly when they are of one kind and content."""
        return _digest(self.kind, self.content())

    def __eq__(self, other):
        return isinstance(other, Tokenizer) and self.sha256 == other.sha256

    def __hash__(self):
        return hash(self.sha256)

    def __repr__(self):
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"

    def to_json(self) -> str:
        """The file's text: lists of the content one entry a line, so that a person can read and compare it."""
        head = {"format": FORMAT, "version": VERSION, "kind": self.kind, "sha256": self.sha256}
        lines = [f"  {_dumps(key)}: {_dumps(value)}" for key, value in head.items()]
        entries = ",\n".join(f"    {_dumps(key)}: {_rows(value)}" for key, value in self.content().items())
        return "{\n" + ",\n".join([*lines, f'  "content": {{\n{entries}\n  }}']) + "\n}\n"

    def save(self, path) -> None:
        """Write `to_json()` to a file, whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(self.to_json().encode("utf-8"))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _checked(self, ids) -> list[int]:
        array = np.asarray(ids)
        if array.size == 0:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TypeError(f"ids must be a sequence of integers, got shape {array.shape} of {array.dtype}")
        wrong = (array < 0) | (array >= self.vocab_size)
        if wrong.any():
            position = int(wrong.argmax())
            raise IndexError(f"id {array[position]} at position {position} is outside 0..{self.vocab_size - 1}")
        return array.tolist()


def check_text(text) -> str:
    """`text`, when it is a str of real characters. Raises TypeError or ValueError.

    A lone surrogate (half of a UTF-16 pair) is no character: it has no UTF-8 form, so no token can stand for it.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}; decode bytes with .decode('utf-8')")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is the lone surrogate U+{ord(text[error.start]):04X}, which UTF-8 "
            "cannot write; clean the text with .encode('utf-8', 'replace').decode('utf-8')"
        ) from None
    return text


def load_tokenizer(path) -> Tokenizer:
    """The tokenizer that `save` wrote. Raises ValueError, in one line, for a missing, damaged or foreign file."""
    path = Path(path)
    try:
        if not path.is_file():
            raise ValueError(f"no tokenizer file at {path}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is no tokenizer: it is larger than {MAX_FILE_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no tokenizer: not UTF-8 text") from None
    return tokenizer_from_json(text, name=str(path))


def tokenizer_from_json(text: str, name: str = "the tokenizer") -> Tokenizer:
    """The inverse of `to_json`; `name` begins the message of the ValueError for any other text."""
    try:
        file = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "beyond JSON"
        raise ValueError(f"{name} is no tokenizer: not JSON, or cut short ({reason})") from None
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        raise ValueError(f'{name} is no tokenizer of ours: its "format" must be "{FORMAT}"')
    if file.get("version") != VERSION:
        raise ValueError(f"{name} has tokenizer version {file.get('version')!r}; this release reads version {VERSION}")
    kind, content = file.get("kind"), file.get("content")
    if not isinstance(kind, str) or kind not in Tokenizer.kinds:
        raise ValueError(f"{name} holds a tokenizer of kind {kind!r}; known kinds are {', '.join(Tokenizer.kinds)}")
    if not isinstance(content, dict):
        raise ValueError(f'{name} is damaged: its "content" is not an object')
    try:
        if _digest(kind, content) != file.get("sha256"):
            raise ValueError('its content does not match its "sha256"; it was cut, edited or overwritten')
        return Tokenizer.kinds[kind].from_content(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {error}") from None


def check_keys(content: dict, *keys: str) -> None:
    """Raise ValueError unless the content has exactly these keys."""
    if set(content) != set(keys):
        got = ", ".join(sorted(content)) or "none"
        raise ValueError(f'its "content" must have the keys {", ".join(keys)}, got {got}')


def _digest(kind, content):
    canonical = json.dumps([VERSION, kind, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _dumps(value):
    return json.dumps(value, ensure_ascii=False)


def _rows(value):
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"      {_dumps(row)}" for row in value) + "\n    ]"
    return _dumps(value)
