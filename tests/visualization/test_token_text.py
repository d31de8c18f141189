"""Labels of tokens: nothing invisible, nothing that breaks a line, nothing too wide."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.visualization.token_text import columns, escape, token_label


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("plain", "plain"),
        (" lead", "␣lead"),
        ("a b", "a b"),
        ("  ", "␣␣"),
        ("", "∅"),
        ("\n", "⏎"),
        ("a\tb", "a⇥b"),
        ("\x00\x1b", "␀␛"),
        ("\u200b", "\\u200b"),
        ("\u202eabc", "\\u202eabc"),
        ("\u2028", "\\u2028"),
        ("\xa0", "\\xa0"),
        ("\ud83d", "\\ud83d"),  # a lone surrogate, which no file could hold
        ("\U000e0041", "\\U000e0041"),
        ("\u0301", "◌\u0301"),
        ("👨\u200d👩", "👨\u200d👩"),  # the joiner is part of the picture
        ("a\u200db", "a\\u200db"),
        (b"caf\xc3\xa9", "café"),
        (b"\xe4\xbd", "\\xe4\\xbd"),
        (7, "7"),
        ("</script>", "</script>"),
        ("$x_1$", "$x_1$"),
    ],
)
def test_labels(token, label):
    assert token_label(token) == label


def test_long_tokens_keep_both_ends():
    label = token_label("b" + "z" * 10_000 + "e", width=11)
    assert label == "bzzzz…zzzze" and columns(label) == 11
    assert columns(token_label("你" * 50, width=11)) <= 11


def test_escape_reads_back():
    text = "é你😀\x07"
    assert escape(text).encode("ascii").decode("unicode_escape") == text


@given(st.text() | st.binary(), st.integers(3, 40))
def test_any_token_gives_one_visible_line(token, width):
    label = token_label(token, width)
    assert label and columns(label) <= width
    unseen = {c for c in label if unicodedata.category(c) in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")}
    assert not unseen and len(label.splitlines()) == 1
