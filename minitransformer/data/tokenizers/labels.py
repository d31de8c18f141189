"""Tokens as readable labels for tables and axes: every byte of a token stays visible, whatever it is.

readable(b" the")             "·the"          a space is seen
readable(b"\\n")               "↵"             so are line breaks and tabs
readable(b"\\xe4")             "‹e4›"          a byte that is no character by itself
readable_sequence([b"\\xe4\\xbd", b"\\xa0"])   ["你₁", "你₂"]     a character cut by token borders, seen in context
"""

from __future__ import annotations

import unicodedata

__all__ = ["readable", "readable_sequence"]

_PICTURES = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # control, format (zero width, direction), separators
_SUBSCRIPTS = "₁₂₃₄"  # a character is at most four bytes, so at most four parts


def readable(token: bytes) -> str:
    """The label of one token by itself."""
    return readable_sequence([token])[0]


def readable_sequence(tokens: list[bytes]) -> list[str]:
    """One label a token. A character spread over several tokens is written in each with the number of its part."""
    owner = [index for index, token in enumerate(tokens) for _ in token]  # byte -> token
    labels = [""] * len(tokens)
    start = 0
    # A byte that belongs to no character decodes to the lone surrogate U+DC00 + byte.
    for char in b"".join(tokens).decode("utf-8", errors="surrogateescape"):
        width = len(char.encode("utf-8", errors="surrogateescape"))
        parts = sorted(set(owner[start : start + width]))
        for number, index in enumerate(parts):
            labels[index] += _picture(char) + (_SUBSCRIPTS[number] if len(parts) > 1 else "")
        start += width
    return labels


def _picture(char):
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"‹{code - 0xDC00:02x}›"
    if char in _PICTURES:
        return _PICTURES[char]
    return f"‹U+{code:04X}›" if unicodedata.category(char) in _INVISIBLE else char
