"""BERT's words: a text made uniform, and cut at white space and around every punctuation mark.

    "Où est l'hôtel?  你好"  ->  ou  est  l  '  hotel  ?  你  好

In this order: control characters go, every white space is a space, a Chinese character is a word by itself; accents go
(the text is decomposed, "é" into "e" and an accent, and accents are left out); capitals become small; a punctuation
mark is a word by itself.

Source: Devlin et al. 2019 and the authors' tokenization.py. Where the library `tokenizers` differs, as the library has
it: the models of today met its words.
"""

from __future__ import annotations

import functools
import re
import unicodedata

__all__ = ["bert_words"]

# Ideographs; kana and hangul stay in their runs. 0x2B920 is as the library has it, in Unicode it is 0x2B820.
CHINESE = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B81F), (0x2B920, 0x2CEAF),
           (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]  # fmt: skip
DROPPED = {"Cc", "Cf", "Co", "Cs"}  # control, format, private use, surrogates
ASCII_DROPPED = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])
ASCII_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")


def bert_words(text: str, lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True) -> list[str]:
    """The words of a text. strip_accents: as `lowercase` unless given. chinese: Chinese characters are words."""
    if text.isascii():
        text = text.lower() if lowercase else text
        return ASCII_WORD.findall(text.translate(ASCII_DROPPED) if ASCII_CONTROL.search(text) else text)
    strip_accents = lowercase if strip_accents is None else strip_accents
    clean, spell = _tables(lowercase, strip_accents, chinese)
    text = text.translate(clean)
    if strip_accents:
        text = unicodedata.normalize("NFD", text)
    return text.translate(spell).split()


@functools.cache
def _tables(lowercase, strip_accents, chinese):
    return _Clean(chinese), _Spell(lowercase, strip_accents)


class _Table(dict):
    """What `str.translate` puts in place of a character, looked up in the tables of Unicode at its first use."""

    def __missing__(self, code: int) -> str:
        self[code] = found = self.find(chr(code))
        return found


class _Clean(_Table):
    def __init__(self, chinese):
        super().__init__()
        self.chinese = chinese

    def find(self, char):
        category, code = unicodedata.category(char), ord(char)
        if char in "\t\n\r" or category in ("Zs", "Zl", "Zp"):
            return " "
        if category in DROPPED or char == "\N{REPLACEMENT CHARACTER}":
            return ""
        return f" {char} " if self.chinese and any(a <= code <= b for a, b in CHINESE) else char


class _Spell(_Table):
    def __init__(self, lowercase, strip_accents):
        super().__init__()
        self.lowercase, self.strip_accents = lowercase, strip_accents

    def find(self, char):
        category = unicodedata.category(char)
        if self.strip_accents and category == "Mn":
            return ""
        if category[0] == "P" or (char.isascii() and char.isprintable() and not char.isalnum() and char != " "):
            return f" {char} "
        return char.lower() if self.lowercase else char
