"""Our WordPiece against the library `tokenizers`: the same ids, for every text."""

import unicodedata

import numpy as np
import pytest

from minitransformer import Generator
from minitransformer.data import WordPieceTokenizer, default_corpus

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: `python start.py peers` adds it")
pytestmark = pytest.mark.peers

CHINESE = "你好，世界！語言模型（language model）学习𠀀𫝀﨎〇カタカナ한국어。" * 3
EMOJI = "👩‍👩‍👧 🇩🇪 🙂🙂 e\u0301 Ωmega ﬁ Ⅷ ² ΑΣ İstanbul ǅ straße\u2028x\u00a0y\u200bz\ufffd\x00\x85w \x1c\x0b"
CODE = 'def f(x: int = 0x1F) -> str:\r\n\treturn f"{x!r:>{10}}" if x else `a`\n'


def peer(tokenizer, **flags):
    """The library's tokenizer of the same vocabulary. Special tokens in a text are a text, as they are here."""
    model = tokenizers.models.WordPiece(
        {piece: id for id, piece in enumerate(tokenizer.vocabulary)}, unk_token="[UNK]", max_input_chars_per_word=100
    )
    other = tokenizers.Tokenizer(model)
    other.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=tokenizer.chinese, strip_accents=tokenizer.strip_accents,
        lowercase=tokenizer.lowercase,
    )  # fmt: skip
    other.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    marks = ("[SEP]", tokenizer.end_id), ("[CLS]", tokenizer.start_id)
    other.post_processor = tokenizers.processors.BertProcessing(*marks)
    other.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=True)
    other.add_special_tokens(list(tokenizer.special_ids))
    other.encode_special_tokens = True
    return other


@pytest.fixture(scope="module", params=["uncased", "cased", "accents kept", "Chinese in runs"])
def pair(request):
    text = default_corpus()[:60_000] + CHINESE * 3 + EMOJI * 3 + CODE * 3 + "élève ÉLÈVE " * 3
    trained = WordPieceTokenizer.train(text, 1500, lowercase=request.param != "cased")
    flags = {"accents kept": {"strip_accents": False}, "Chinese in runs": {"chinese": False}}.get(request.param, {})
    ours = WordPieceTokenizer(trained.vocabulary, trained.lowercase, **flags)
    return ours, peer(ours)


def check(pair, text):
    ours, theirs = pair
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == theirs.decode(ids)


ODD = ["", " ", CHINESE, EMOJI, CODE, "a" * 100, "a" * 101, "[CLS] x [SEP][MASK]", "don't . x ?"]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts(pair, text):
    check(pair, text)


def test_the_documentation_of_python(pair):
    check(pair, default_corpus())


def test_random_text_of_code_points_that_both_unicode_versions_assign(pair):
    """Those of Unicode 3.2, which every version since has; less four whose category was changed later."""
    old = unicodedata.ucd_3_2_0
    assigned = [c for c in range(0x110000) if old.category(chr(c)) not in ("Cn", "Cs")]
    assigned = np.array([c for c in assigned if c not in (0x166D, 0x1734, 0x1885, 0x1886)])
    rng = Generator(0)
    for _ in range(40):
        points = assigned[rng.integers(0, len(assigned), (500,))]
        few = rng.integers(0, 0x3100, (500,))
        points = np.where(rng.integers(0, 3, (500,)) == 0, points, np.where(np.isin(few, assigned), few, 32))
        check(pair, "".join(map(chr, points)))


def test_sequences_of_one_and_two_texts_cut_to_length(pair):
    ours, theirs = pair
    texts = ["the cat", "", "sat on the mat, " * 4, "你好 " * 7]
    for most in range(3, 30):
        theirs.enable_truncation(most)
        for a in texts:
            found = theirs.encode(a)
            assert ours.sequence(a, most=most) == (found.ids, found.type_ids)
            for b in texts:
                found = theirs.encode(a, b)
                assert ours.sequence(a, b, most) == (found.ids, found.type_ids), (a, b, most)
    theirs.no_truncation()


def test_reading_their_file(pair, tmp_path):
    ours, theirs = pair
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert WordPieceTokenizer.from_tokenizer_json(tmp_path / "tokenizer.json") == ours
