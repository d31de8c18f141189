"""Tokens as readable labels: whitespace and control characters made visible, long tokens elided in the middle.

A token is data. Whatever it holds (line breaks, zero-width or direction marks, half a Chinese character, markup) its
label shows it and changes nothing around it.
"""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
_JOINERS = "\u200c\u200d"  # meaningful inside Persian, Indic and emoji sequences


def token_label(token, width=24):
    """A one-line printable label of a token (str, bytes or anything with str()), at most `width` columns wide.

    Outer spaces become ␣, control characters their pictures (⏎ ⇥ ␀…), characters that print nothing their escapes
    (\\u200b), bytes that are no UTF-8 theirs (\\xe4), an empty token ∅. Wide (CJK) characters count two columns.
    """
    if isinstance(token, bytes):
        token = token.decode("utf-8", errors="backslashreplace")
    return elide(_printable(str(token)), width)


def _printable(text):
    if not text:
        return "∅"
    core = text.strip(" ")
    lead = len(text) - len(text.lstrip(" "))
    spaced = "␣" * lead + core + "␣" * (len(text) - len(core) - lead)
    shown = [_shown(spaced, i) for i in range(len(spaced))]
    if unicodedata.category(spaced[0])[0] == "M":
        shown.insert(0, "◌")  # a combining mark needs something to stand on
    return "".join(shown)


def _shown(text, i):
    char = text[i]
    if char in _NAMED:
        return _NAMED[char]
    if char < " ":
        return chr(0x2400 + ord(char))
    category = unicodedata.category(char)
    if char in _JOINERS and 0 < i < len(text) - 1 and min(text[i - 1], text[i + 1]) > "\x7f":
        return char
    if category[0] == "C" or category in ("Zl", "Zp") or (category == "Zs" and char != " "):
        return escape(char)
    return char


def escape(text):
    """Each character as its Python escape: \\xa0, \\u4f60, \\U0001f600."""

    def one(code):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return "".join(one(ord(char)) for char in text)


def columns(text):
    """Width in terminal columns: 2 for wide characters, 0 for combining ones."""
    return sum(_columns(char) for char in text)


def _columns(char):
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def elide(text, width):
    """`text`, or its beginning and end around "…" when it is wider than `width` columns."""
    if len(text) <= width and columns(text) <= width:
        return text
    room = max(width - 1, 2)
    head = _prefix(text, (room + 1) // 2)
    tail = _prefix(text[::-1], room // 2)[::-1]
    return f"{head}…{tail}"


def _prefix(text, width):
    used = 0
    for i, char in enumerate(text):
        used += _columns(char)
        if used > width:
            return text[:i]
    return text
