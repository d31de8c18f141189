"""Text: the default corpus is there and always the same; a file is read as it is, or refused with one line."""

import logging
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from minitransformer.data import BatchSampler, default_corpus, load_text, split, tokens_needed
from minitransformer.random import Generator


def test_the_default_corpus_is_english_and_deterministic():
    text = default_corpus()
    assert 300_000 < len(text) < 600_000 and 80 < len(set(text)) < 130
    assert text.count(" the ") > 2_000 and "\r" not in text
    program = "import zlib; from minitransformer.data import default_corpus as c; print(zlib.crc32(c().encode()))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert int(other.stdout) == zlib.crc32(text.encode())


def test_no_paragraph_stands_in_the_default_corpus_twice():
    once, all_of_them = (default_corpus(repeats=r).rstrip("\n").split("\n\n") for r in (False, True))
    assert len(once) == len(set(once)) and set(once) == set(all_of_them) and len(once) < len(all_of_them)


def test_a_python_without_the_corpus_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"lacks the default corpus, .*; give a text"):
        default_corpus()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("naïve 你好 🙂\n".encode(), "naïve 你好 🙂\n"),
        (b"\xef\xbb\xbfwith mark", "with mark"),
        (b"one\r\ntwo\rthree\n\r\n", "one\ntwo\nthree\n\n"),
        (b"\x1b[1m\x0c kept \x7f", "\x1b[1m\x0c kept \x7f"),
    ],
)
def test_a_file_is_read(tmp_path, data, text):
    (tmp_path / "a b.dat").write_bytes(data)
    assert load_text(tmp_path / "a b.dat") == text == load_text(str(tmp_path / "a b.dat"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"GIF89a\0\1", "is binary: NUL byte at offset 6"),
        ("hällo".encode("latin-1"), "is not UTF-8: byte 0xe4 at offset 1"),
        ("cut 你".encode()[:-1], "is not UTF-8: byte 0xe4 at offset 4"),
        ("wide".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ],
)
def test_a_bad_file_gives_one_line(tmp_path, data, reason):
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        load_text(path)
    assert str(caught.value).startswith(f"{path} {reason}") and "\n" not in str(caught.value)


def test_a_bad_path_gives_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no such file or folder: .*none\.txt"):
        load_text(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="no text files in"):
        load_text(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe is not a regular file"):
            load_text(tmp_path / "pipe")


def test_an_unreadable_file_gives_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "locked.txt").write_text("text", encoding="utf-8")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ValueError, match=r"cannot read .*locked\.txt: Permission denied$"):
        load_text(tmp_path / "locked.txt")
    with pytest.raises(ValueError, match=r"no text files in .* \(skipped: 1 unreadable"):
        load_text(tmp_path)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path, caplog):
    for name, data in {
        "b.txt": b"second\n",
        "a/z.md": b"\nfirst",
        "b/c.PY": b"third\r\n",
        "b/.hidden.txt": b"hidden",
        ".git/config.txt": b"hidden",
        "image.png": b"\x89PNG\0",
        "broken.txt": b"\xff\xfe\0",
        "latin.txt": b"\xe4\xe4",
        "zero.txt": b"\0",
        "void.txt": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert load_text(tmp_path) == "first\n\nthird\n\nsecond\n"
    (record,) = caplog.records
    message = record.getMessage()
    assert "read 3 files, skipped 5: " in message
    for reason in ("1 is binary", "1 is not UTF-8", "1 is UTF-16", "1 is empty", "1 not a text file by its suffix"):
        assert reason in message


def test_a_folder_without_text_says_what_was_skipped(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"no text files in .* \(skipped: 1 not a text file by its suffix\)"):
        load_text(tmp_path)


@pytest.mark.parametrize("context", [1, 7, 64, 256])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.1, 0.3, 0.5, 0.9])
def test_the_length_asked_for_is_exactly_enough(context, fraction):
    needed = tokens_needed(context, fraction)

    def fits(n):
        return all(len(part) > context for part in split(np.empty(n, np.int8), fraction)[: 2 if fraction else 1])

    assert fits(needed) and not any(fits(n) for n in range(needed))


def test_a_short_text_is_refused_with_the_length_it_needs(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("x" * 649, encoding="utf-8")
    with pytest.raises(ValueError, match=r"too short: 649 characters, but a context of 64 .* at least 650"):
        load_text(path, context=64)
    path.write_text("x" * 650, encoding="utf-8")
    for part in split([0] * len(load_text(path, context=64))):
        BatchSampler(part, 1, 64, Generator(0))
