"""Text to learn from: the English that every CPython ships, or any UTF-8 file or folder.

Line ends become "\\n" (Windows' "\\r\\n", old "\\r") and a byte order mark is dropped; nothing else is changed.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from .batches import tokens_needed

__all__ = ["TEXT_SUFFIXES", "default_corpus", "load_text"]

TEXT_SUFFIXES = frozenset(
    (
        ".txt .text .md .markdown .rst .tex .org .adoc .html .htm .xml .csv .tsv .json .jsonl .yaml .yml .toml .ini "
        ".py .pyi .c .h .cc .cpp .hpp .cu .cuh .java .js .ts .go .rs .rb .pl .lua .r .jl .hs .ml .scala .kt .sh"
    ).split()
)

_log = logging.getLogger(__name__)


def default_corpus(repeats: bool = False) -> str:
    """The English of Python's language reference (`pydoc_data.topics`), topics in the order of their names.

    About 0.4 million characters; the text differs a little between Python versions and never within one. Topics quote
    each other, so that a fifth of it is repetition. Each paragraph is kept once, because one that is in both the
    training and the validation part would let the validation loss praise memory; `repeats=True` keeps them all.
    Raises ValueError where a distribution has left the module out.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError("this Python lacks the default corpus, pydoc_data.topics; give a text of your own") from None
    paragraphs = [part.strip("\n") for name in sorted(topics) for part in _unix(topics[name]).split("\n\n")]
    paragraphs = [part for part in paragraphs if part]
    return "\n\n".join(paragraphs if repeats else dict.fromkeys(paragraphs)) + "\n"


def load_text(path, *, context: int | None = None, validation_fraction: float = 0.1) -> str:
    """The text of a file, or of a folder's text files joined by an empty line, in the order of their paths.

    A folder is walked to its depth without following links; hidden files and folders are passed over. Files without one
    of TEXT_SUFFIXES, empty, binary or not UTF-8 are skipped, and their number is logged as a warning.
    With `context` the text must have the characters that training with that context length needs.
    Raises ValueError, in one line: missing, unreadable, empty, binary, not UTF-8 (with the offset), or too short.
    """
    path = Path(path)
    text = _read_folder(path) if path.is_dir() else _read_file(path)
    if context is not None:
        needed = tokens_needed(context, validation_fraction)
        if len(text) < needed:
            raise ValueError(
                f"{path} is too short: {len(text):,} characters, but a context of {context} with "
                f"{validation_fraction:.0%} kept for validation needs at least {needed:,}; "
                "give more text or a smaller context"
            )
    return text


def _read_file(path):
    try:
        if not path.exists():
            raise ValueError(f"no such file or folder: {path}")
        if not path.is_file():
            raise ValueError(f"{path} is not a regular file")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    text, fault = _decode(data)
    if fault:
        raise ValueError(f"{path} {fault}")
    return text


def _read_folder(folder):
    texts, skipped = [], Counter()
    for file in _files(folder):
        if file.suffix.lower() not in TEXT_SUFFIXES:
            skipped["not a text file by its suffix"] += 1
            continue
        try:
            text, fault = _decode(file.read_bytes())
        except OSError as error:
            text, fault = "", f"unreadable ({error.strerror})"
        if fault:
            skipped[fault.partition(":")[0]] += 1
        else:
            texts.append(text.strip("\n"))
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(skipped.items()))
    if not texts:
        raise ValueError(f"no text files in {folder}" + (f" (skipped: {reasons})" if skipped else ""))
    if skipped:
        _log.warning("%s: read %d files, skipped %d: %s", folder, len(texts), skipped.total(), reasons)
    return "\n\n".join(texts) + "\n"


def _files(folder):
    """Regular, not hidden files below a folder, sorted by their paths' parts: the same order on every system."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.parts)


def _decode(data):
    """(text, "") or ("", what is wrong)."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "", "is UTF-16: save it as UTF-8"
    nul = data.find(b"\0")
    if nul >= 0:
        return "", f"is binary: NUL byte at offset {nul}; a text file in UTF-8 is needed"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        return "", f"is not UTF-8: byte 0x{byte:02x} at offset {error.start}; save it as UTF-8"
    text = _unix(text.removeprefix("\ufeff"))
    return (text, "") if text.strip() else ("", "is empty: it holds no text")


def _unix(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")
