"""One id a character: the smallest tokenizer, and the clearest one to watch a model learn with."""

from __future__ import annotations

from .base import Tokenizer, check_keys, check_text

__all__ = ["CharTokenizer"]


class CharTokenizer(Tokenizer):
    """id = the character's place in `characters`, a string of distinct characters.

    `CharTokenizer.train(text)` takes those of a text in code point order, so that equal texts give equal ids.
    Raises ValueError when there are none, or one comes twice.
    """

    kind = "char"

    def __init__(self, characters: str):
        check_text(characters)
        if not characters:
            raise ValueError("a character tokenizer needs at least one character; the text it was given is empty")
        if len(set(characters)) != len(characters):
            raise ValueError("the characters of a tokenizer must be distinct")
        self.characters = characters
        self._ids = {char: id for id, char in enumerate(characters)}

    @classmethod
    def train(cls, text: str) -> CharTokenizer:
        """The tokenizer of the distinct characters of a text."""
        return cls("".join(sorted(set(check_text(text)))))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str, errors: str = "strict") -> list[int]:
        """One id a character. One that the vocabulary lacks raises ValueError, or is left out with errors="ignore".

        There is no "replace": a stand-in would have to be a token that the model was trained with.
        """
        if errors not in ("strict", "ignore"):
            raise ValueError(f'errors must be "strict" or "ignore", got {errors!r}')
        check_text(text)
        if errors == "ignore":
            return [self._ids[char] for char in text if char in self._ids]
        try:
            return list(map(self._ids.__getitem__, text))
        except KeyError:
            position = next(i for i, char in enumerate(text) if char not in self._ids)
            char = text[position]
            raise ValueError(
                f"character {position} of the text, {char!r} (U+{ord(char):04X}), is not among the {self.vocab_size} "
                "that this tokenizer knows; leave it out, or train a byte-level BPE tokenizer (`--tokenizer bpe`), "
                "which knows every one"
            ) from None

    def token_bytes(self, id: int) -> bytes:
        return self.characters[id].encode("utf-8")

    def content(self) -> dict:
        return {"characters": self.characters}

    @classmethod
    def from_content(cls, content: dict) -> CharTokenizer:
        check_keys(content, "characters")
        if not isinstance(content["characters"], str):
            raise ValueError('its "characters" must be one string')
        return cls(content["characters"])
