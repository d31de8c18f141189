"""GPT-2's alphabet: a printable letter for each byte, so that files can write tokens as text.

Bytes that are printable in Latin-1 are themselves; the others are, in order, U+0100 and up: a space Ġ, a line break Ċ.
Source: the encoder of Radford et al. 2019, which all byte-level tokenizer files have followed since.
"""

from __future__ import annotations

__all__ = ["from_letters", "to_letters"]

_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_LETTERS = [chr(b) if b in _PRINTABLE else chr(0x100 + sum(c not in _PRINTABLE for c in range(b))) for b in range(256)]
_BYTES = {letter: byte for byte, letter in enumerate(_LETTERS)}


def to_letters(token: bytes) -> str:
    """b" the" -> "Ġthe"."""
    return "".join(_LETTERS[byte] for byte in token)


def from_letters(text: str) -> bytes:
    """ "Ġthe" -> b" the". Raises ValueError for a character that stands for no byte."""
    try:
        return bytes(map(_BYTES.__getitem__, text))
    except KeyError as error:
        raise ValueError(f"{text!r} is no token in letters: {error.args[0]!r} stands for no byte") from None
