"""Tokenizers: every text comes back, the fast encoder equals the definition, training is a function of the text."""

from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minitransformer.data import BPETokenizer, CharTokenizer, default_corpus, readable, readable_sequence
from minitransformer.data.tokenizers.bpe_training import LONGEST, learn_merges
from minitransformer.data.tokenizers.pretokenize import pretokenize

GPT2_RULE = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
ODD_TEXTS = [
    "",
    "a",
    " ",
    "\x00\x01\x7f\x85\u2028\ufeff",
    "I'll say we've 12 don'ts\r\n\t it's",
    "你好，世界。語言模型",
    "👩‍👩‍👧 🇩🇪 🙂🙂",
    "e\u0301 Ωmega ﬁ Ⅷ ²",
    "שלום עולם",
    "<|end|> is text",
    "a" * 300 + " " * 300,
    "\U0010ffff\ue000\ufffd",
]
# Few letters make merges that overlap; any character at all must come back.
texts = st.one_of(st.text(alphabet="ab  \n'.1é你", max_size=60), st.text(max_size=40), st.sampled_from(ODD_TEXTS))


@pytest.fixture(scope="module")
def tokenizer():
    text = default_corpus()[:60_000] + "\n你好，世界。你好" * 5
    return BPETokenizer.train(text, 700, special_tokens=("<|end|>", "<|pad|>"))


def encoded_by_definition(tokenizer, text):
    """Merge the lowest rank of all pairs, its leftmost occurrence, and look again: quadratic and plain."""
    ids = []
    for piece in GPT2_RULE.findall(text):
        part = list(piece.encode("utf-8"))
        while True:
            known = [(tokenizer.merges.index(p), i) for i, p in enumerate(pairwise(part)) if p in tokenizer.merges]
            if not known:
                break
            rank, i = min(known)
            part[i : i + 2] = [256 + rank]
        ids += part
    return ids


def merges_by_definition(text, count):
    """Count every pair of the whole text again before each merge."""
    words = [list(part) for piece in GPT2_RULE.findall(text) for part in _parts(piece.encode("utf-8"))]
    merges = []
    while len(merges) < count:
        counts = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [256 + len(merges)]
                i += 1
        merges.append(best)
    return merges


def _parts(data):
    return [data[i : i + LONGEST] for i in range(0, len(data), LONGEST)]


@given(texts, st.integers(1, 50))
@example("x—y  z\u00a0\n w \u3000 'll", 1)
def test_pieces_are_those_of_the_rule_whatever_the_block(text, block):
    assert list(pretokenize(text, block)) == GPT2_RULE.findall(text)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_pieces_of_ascii_are_those_of_the_rule(text):
    assert list(pretokenize(text)) == GPT2_RULE.findall(text)


@given(text=texts)
def test_bpe_gives_every_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= id < 256 + len(tokenizer.merges) for id in ids)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode("utf-8")


@given(text=texts)
@settings(max_examples=50)
def test_bpe_encodes_as_defined(tokenizer, text):
    assert tokenizer.encode(text) == encoded_by_definition(tokenizer, text)


@given(st.text(alphabet="ab ", max_size=80), st.text(alphabet="ab ", max_size=40), st.integers(256, 280))
def test_overlapping_merges_are_learned_and_applied_as_defined(train, text, size):
    tokenizer = BPETokenizer.train(train, size)
    assert tokenizer.merges == merges_by_definition(train, size - 256)
    assert tokenizer.encode(text) == encoded_by_definition(tokenizer, text)


def test_merges_of_english_are_learned_as_defined():
    text = default_corpus()[:6_000]
    assert learn_merges(text, 60) == merges_by_definition(text, 60)


def test_long_pieces_are_learned_in_parts():
    text = "abcdefghij" * 40
    assert learn_merges(text, 100) == merges_by_definition(text, 100)


@given(first=texts, second=texts)
def test_a_text_cut_before_a_word_encodes_in_parts(tokenizer, first, second):
    """White space after something always begins a piece, so encoding is a homomorphism there."""
    first, second = first + ".", "\n" + second
    assert tokenizer.encode(first + second) == tokenizer.encode(first) + tokenizer.encode(second)


def test_training_is_a_function_of_the_text():
    text = default_corpus()[:20_000]
    assert BPETokenizer.train(text, 400).to_json() == BPETokenizer.train(text, 400).to_json()


@pytest.mark.parametrize(
    ("text", "merges"),
    [
        ("", []),
        ("ab", []),  # seen once
        ("abab", [(97, 98)]),  # then (ab)(ab) is seen once
        ("ab.ab.cd.cd", [(97, 98), (99, 100)]),  # a tie goes to the smaller ids
        ("cd.cd.ab.ab", [(97, 98), (99, 100)]),  # in whichever order they come
        ("aaaa", [(97, 97)]),
    ],
)
def test_training_by_hand(text, merges):
    assert BPETokenizer.train(text, 300).merges == merges


def test_a_merge_is_applied_from_the_left():
    assert BPETokenizer([(97, 97)]).encode("aaa") == [256, 97]
    assert BPETokenizer([(97, 98), (98, 99)]).encode("abc") == [256, 99]
    assert BPETokenizer([(98, 99), (97, 98)]).encode("abc") == [97, 256]


def test_more_merges_never_make_a_text_longer():
    text = default_corpus()[:20_000]
    lengths = [len(BPETokenizer.train(text, size).encode(text)) for size in (256, 300, 400, 600)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == len(text.encode("utf-8")) > 2 * lengths[-1]


def test_special_tokens_in_text_are_text(tokenizer):
    end = tokenizer.special_ids["<|end|>"]
    assert (end, tokenizer.special_ids["<|pad|>"]) == (tokenizer.vocab_size - 2, tokenizer.vocab_size - 1)
    ids = tokenizer.encode("so <|end|><|pad|>")
    assert max(ids) < end and tokenizer.decode(ids) == "so <|end|><|pad|>"
    assert tokenizer.decode([*ids[:1], end]) == tokenizer.decode(ids[:1]) + "<|end|>"
    assert tokenizer.token_text(end) == "<|end|>"


def test_a_cut_character_decodes_to_a_replacement():
    tokenizer = BPETokenizer([])
    ids = tokenizer.encode("é你")
    assert tokenizer.decode(ids[:-1]) == "é\ufffd" and tokenizer.decode(ids[1:]) == "\ufffd你"


def test_the_piece_cache_is_bounded_and_changes_nothing(tokenizer):
    cache = tokenizer._pieces
    long = "x" * (cache.CHARACTERS + 1)
    assert tokenizer.encode(long) == tokenizer.encode(long) == encoded_by_definition(tokenizer, long)
    assert long not in cache
    tokenizer.encode("cached")
    assert cache["cached"] == encoded_by_definition(tokenizer, "cached")
    small = BPETokenizer(tokenizer.merges)
    small._pieces.ENTRIES = 3
    assert small.encode("some words here and there") == encoded_by_definition(tokenizer, "some words here and there")
    assert len(small._pieces) == 3


@given(st.text(max_size=40))
def test_char_gives_every_text_of_its_characters_back(text):
    tokenizer = CharTokenizer.train(text + "x")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and len(ids) == len(text) and tokenizer.vocab_size == len(set(text + "x"))
    assert all(0 <= id < tokenizer.vocab_size for id in ids)


def test_char_names_the_character_it_lacks():
    tokenizer = CharTokenizer.train("hello")
    assert tokenizer.characters == "ehlo"
    with pytest.raises(ValueError, match=r"character 2 of the text, '你' \(U\+4F60\), is not among the 4") as caught:
        tokenizer.encode("he你o")
    assert "\n" not in str(caught.value)
    assert tokenizer.decode(tokenizer.encode("he你o", errors="ignore")) == "heo"


@pytest.mark.parametrize(
    ("token", "label"),
    [
        (b" the", "·the"),
        (b"\n", "↵"),
        (b"\r\n\t", "␍↵⇥"),
        (b"\xe4", "‹e4›"),
        (b"a\xe4\xbd", "a‹e4›‹bd›"),
        (b"\x80\xed\xa0\x80", "‹80›‹ed›‹a0›‹80›"),
        (b"\x00\x1b", "‹U+0000›‹U+001B›"),
        ("\u200b\u202e\u00a0".encode(), "‹U+200B›‹U+202E›‹U+00A0›"),
        ("你好".encode(), "你好"),
        (b"", ""),
    ],
)
def test_labels(token, label):
    assert readable(token) == label


def test_labels_show_a_character_that_tokens_share():
    assert readable_sequence([b"a\xe4", b"\xbd", b"\xa0 b", b"\xe5"]) == ["a你₁", "你₂", "你₃·b", "‹e5›"]
    assert BPETokenizer([]).token_strings(list("é\n".encode())) == ["é₁", "é₂", "↵"]
    assert readable_sequence([]) == []


@given(text=texts)
def test_no_label_breaks_a_line_or_is_empty(tokenizer, text):
    ids = tokenizer.encode(text)
    labels = tokenizer.token_strings(ids)
    assert len(labels) == len(ids)
    assert all(label and label.splitlines() == [label] and " " not in label for label in labels)
