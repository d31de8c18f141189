"""WordPiece: words as BERT has them, pieces as the definition says, files that lie."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minitransformer.data import WordPieceTokenizer, default_corpus, tokenizer_from_json
from minitransformer.data.tokenizers.bert_words import bert_words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = WordPieceTokenizer([*SPECIAL, "un", "##aff", "##able", "##a", "able", "hotel", ",", "!", "你"])
TRAINED = WordPieceTokenizer.train(default_corpus()[:40_000], 700)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Où est l'HÔTEL?", ["ou", "est", "l", "'", "hotel", "?"]),
        ("a\tb\r\nc\u00a0d\u2028e", ["a", "b", "c", "d", "e"]),
        ("a\u200bb\x00c\x0bd\x85\ufffde", ["abcde"]),
        ("ab你好c", ["ab", "你", "好", "c"]),
        ("ΑΣ İ ẞ", ["ας".replace("ς", "σ"), "i", "ß"]),
        ("$5 e\u0301tat — “x”", ["$", "5", "etat", "—", "“", "x", "”"]),
    ],
)
def test_words(text, words):
    assert bert_words(text) == words


def test_words_with_capitals_and_accents():
    assert bert_words("L'Hôtel 你", lowercase=False) == ["L", "'", "Hôtel", "你"]
    assert bert_words("L'Hôtel 你好", strip_accents=False, chinese=False) == ["l", "'", "hôtel", "你好"]


def test_the_longest_piece_first():
    def pieces(text):
        return [SMALL.vocabulary[id] for id in SMALL.encode(text)]

    assert pieces("unaffable") == ["un", "##aff", "##able"]
    assert pieces("ableaa un") == ["able", "##a", "##a", "un"]
    assert pieces("unx, aff HÔTEL!") == ["[UNK]", ",", "[UNK]", "hotel", "!"]
    assert pieces("[CLS] [MASK]") == ["[UNK]"] * 6, "the name of a special token in a text is text"
    assert pieces("a" * 101) == ["[UNK]"]


def pieces_by_definition(tokenizer, word):
    """Try every cut from the right, again for each piece."""
    found, rest, mark = [], word, ""
    while rest:
        fitting = [n for n in range(1, len(rest) + 1) if mark + rest[:n] in tokenizer.vocabulary]
        if not fitting:
            return ["[UNK]"]
        found, rest, mark = [*found, mark + rest[: fitting[-1]]], rest[fitting[-1] :], "##"
    return found


@given(st.text(alphabet="abcdeinorst", min_size=1, max_size=30))
def test_pieces_are_those_of_the_definition(word):
    assert [TRAINED.vocabulary[id] for id in TRAINED.encode(word)] == pieces_by_definition(TRAINED, word)


@given(st.text(max_size=60))
def test_stretches_between_spaces_are_independent(text):
    """`encode` works on them one at a time, with a memory; all at once must be the same."""
    words = bert_words(text)
    assert TRAINED.encode(text) == [id for word in words for id in TRAINED._pieces(word)]


@given(st.text(alphabet=st.sampled_from(sorted(set(default_corpus()[:40_000]))), max_size=60))
def test_decoding_gives_the_words_back(text):
    """Where all is known, nothing is lost but spaces: encoding what was decoded changes no id."""
    ids = TRAINED.encode(text)
    assume(TRAINED.unknown_id not in ids)  # a character may have been seen at the beginning of words only
    assert TRAINED.encode(TRAINED.decode(ids)) == ids
    assert TRAINED.decode(ids).replace(" ", "") == "".join(bert_words(text))


def test_decoding():
    ids, types = SMALL.sequence("unaffable, hotel!", "你")
    assert types == [0] * 8 + [1, 1]
    assert SMALL.decode(ids) == "unaffable, hotel! 你"
    assert SMALL.decode(ids, special=True) == "[CLS] unaffable, hotel! [SEP] 你 [SEP]"
    assert b"".join(map(SMALL.token_bytes, SMALL.encode("unaffable hotel"))) == b" unaffable hotel"


def test_sequences_are_cut_from_the_longer_text():
    one, two = "hotel " * 6, "able " * 3
    lengths = {most: [t.count(0) - 2, t.count(1) - 1] for most in (3, 6, 9, 12)
               for _, t in [SMALL.sequence(one, two, most)]}  # fmt: skip
    assert lengths == {3: [0, 0], 6: [2, 1], 9: [3, 3], 12: [6, 3]}
    assert len(SMALL.sequence(one, most=5)[0]) == 5
    with pytest.raises(ValueError, match="most must be at least 3, for the marks alone, got 2"):
        SMALL.sequence(one, two, 2)


def test_training_makes_a_vocabulary_that_covers_its_text():
    text = default_corpus()[:40_000]
    assert TRAINED.vocab_size <= 700 and TRAINED.vocabulary[:5] == SPECIAL
    assert TRAINED == WordPieceTokenizer.train(text, 700)
    fewer = WordPieceTokenizer.train(text, 300)
    assert len(TRAINED.encode(text)) < 0.8 * len(fewer.encode(text)), "more pieces, shorter sequences"
    assert WordPieceTokenizer.train("ab ab ab", 10).vocabulary == [*SPECIAL, "##b", "a", "ab"]
    with pytest.raises(ValueError, match=r"at least 7 \(special tokens, characters\), got 6"):
        WordPieceTokenizer.train("ab ab", 6)
    with pytest.raises(TypeError, match="vocab_size must be an integer"):
        WordPieceTokenizer.train("ab", 9.0)


def test_files(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SMALL.vocabulary, "\u2028"]) + "\n", encoding="utf-8")
    assert WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt").vocabulary == [*SMALL.vocabulary, "\u2028"]
    assert tokenizer_from_json(SMALL.to_json()) == SMALL
    cased = WordPieceTokenizer(SMALL.vocabulary, lowercase=False)
    assert tokenizer_from_json(cased.to_json()) == cased != SMALL


GOOD = {
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {t: i for i, t in enumerate(SMALL.vocabulary)}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("model",), None, "model must be an object, got NoneType"),
        (("model", "type"), "BPE", "'model' must be of type WordPiece, got 'BPE'"),
        (("normalizer", "type"), "Lowercase", "'normalizer' must be of type BertNormalizer, got 'Lowercase'"),
        (("pre_tokenizer",), {}, "'pre_tokenizer' must be of type BertPreTokenizer, got None"),
        (("model", "vocab"), [], "model.vocab must be an object, got list"),
        (("model", "vocab"), {"a": 1}, r"model.vocab must give the ids 0..0, each once"),
        (("model", "vocab"), {"a": 0}, r"the vocabulary lacks the special token \[PAD\]"),
        (("model", "continuing_subword_prefix"), "@@", "model.continuing_subword_prefix must be '##', got '@@'"),
        (("normalizer", "lowercase"), 1, "flags of 'normalizer' must be true or false"),
        (("normalizer", "clean_text"), False, "normalizer.clean_text must be true"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path, place, value, message):
    path = tmp_path / "tokenizer.json"
    file = json.loads(json.dumps(GOOD))
    path.write_text(json.dumps(file), encoding="utf-8")
    assert WordPieceTokenizer.from_tokenizer_json(path) == SMALL
    parent = file
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    path.write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        WordPieceTokenizer.from_tokenizer_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xfe", "not UTF-8"), (b"[PAD]\na\na\n", "has 'a' twice"), (b"", r"lacks the special token \[PAD\]")],
)
def test_a_vocabulary_that_is_none(tmp_path, data, message):
    (tmp_path / "vocab.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="cannot read"):
        WordPieceTokenizer.from_vocab(tmp_path / "nothing.txt")


def test_text_that_is_none():
    with pytest.raises(TypeError, match="text must be a str"):
        SMALL.encode(b"x")
    with pytest.raises(ValueError, match="lone surrogate"):
        SMALL.encode("\ud800")
