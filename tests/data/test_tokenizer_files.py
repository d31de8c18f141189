"""Tokenizer files: what was saved is loaded, and anything else is refused with one line."""

import json

import numpy as np
import pytest

from minitransformer.data import BPETokenizer, CharTokenizer, load_tokenizer, tokenizer_from_json

BPE = BPETokenizer.train("the cat sat on the mat, the cat 你好你好 \u2028", 280, special_tokens=("<|end|>", "ende\n"))
CHAR = CharTokenizer.train('héllo\n\u2028"\\ 你')


@pytest.mark.parametrize("tokenizer", [BPE, CHAR, BPETokenizer([]), CharTokenizer("x")], ids=lambda t: t.kind)
def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    path = tmp_path / "with space" / "tökenizer.json"
    path.parent.mkdir()
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert type(loaded) is type(tokenizer) and loaded == tokenizer and loaded.sha256 == tokenizer.sha256
    assert loaded.content() == tokenizer.content()
    assert tokenizer_from_json(tokenizer.to_json()) == tokenizer
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    loaded.save(path)
    assert path.read_text(encoding="utf-8") == tokenizer.to_json()


def test_the_file_is_readable():
    assert '[116, 104, "th"]' in BPE.to_json() or '[104, 101, "he"]' in BPE.to_json()
    assert json.loads(BPE.to_json())["content"]["special_tokens"] == ["<|end|>", "ende\n"]
    assert BPE != CHAR and hash(BPE) != hash(CHAR) and BPE != "bpe"


def test_a_failed_save_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    CHAR.save(path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        BPE.save(path)
    assert load_tokenizer(path) == CHAR and len(list(tmp_path.iterdir())) == 1


def signed(kind, content):
    """A file that is whole and signed, around a content that may be nonsense."""

    class Signer(BPETokenizer):
        pass

    Signer.kinds["bpe"] = BPETokenizer
    Signer.kind = kind
    Signer.content = lambda self: content
    return Signer([]).to_json()


def bpe_file(merges, special_tokens=()):
    names = list(special_tokens) if isinstance(special_tokens, tuple) else special_tokens
    return signed("bpe", {"pretokenizer": "gpt2", "special_tokens": names, "merges": merges})


def edited(tokenizer, **changes):
    return json.dumps({**json.loads(tokenizer.to_json()), **changes})


BAD = {
    "empty": ("", "not JSON"),
    "cut short": (BPE.to_json()[:-20], "not JSON, or cut short"),
    "number": ("3", "of ours"),
    "other JSON": ('{"model": {"type": "BPE"}}', "of ours"),
    "deep": ("[" * 100_000, "not JSON"),
    "digits": ("1" * 10_000, "no tokenizer"),
    "version": (edited(BPE, version=99), "version 99; this release reads version 1"),
    "kind": (edited(BPE, kind="os.system"), "kind 'os.system'; known kinds are"),
    "kind type": (edited(BPE, kind=["bpe"]), "known kinds are"),
    "content type": (edited(BPE, content=[]), "not an object"),
    "sha": (edited(BPE, sha256="0" * 64), "does not match"),
    "edited": (BPE.to_json().replace("<|end|>", "<|eos|>"), "does not match"),
    "edited label": (BPE.to_json().replace('"th"', '"ht"').replace('"he"', '"eh"'), "does not match"),
    "char as bpe": (edited(CHAR, kind="bpe"), "does not match"),
    "extra key": (signed("bpe", {**BPE.content(), "run": "os.system"}), "must have the keys"),
    "no keys": (signed("bpe", {}), "got none"),
    "pretokenizer": (signed("bpe", {"pretokenizer": "(a+)+$", "special_tokens": [], "merges": []}), "one of gpt2"),
    "merge of the future": (bpe_file([[97, 256, "?"]]), "0..255"),
    "negative": (bpe_file([[-1, 97, "?"]]), "0..255"),
    "bool": (bpe_file([[True, 97, "?"]]), "0..255"),
    "float": (bpe_file([[97.0, 97, "?"]]), "0..255"),
    "twice": (bpe_file([[97, 97, ""]] * 2), "merged twice"),
    "row": (bpe_file([[97, 97]]), "a left id"),
    "row type": (bpe_file(["abc"]), "a left id"),
    "list": (bpe_file([], "ab"), "must be lists"),
    "special type": (bpe_file([], [1]), "non-empty strings"),
    "special twice": (bpe_file([], ["a", "a"]), "given twice"),
    "bomb": (
        bpe_file([[97, 97, ""]] + [[i, i, ""] for i in range(256, 300)]),
        "longer than 64 MB",
    ),
    "characters type": (signed("char", {"characters": ["a"]}), "one string"),
    "characters twice": (signed("char", {"characters": "aa"}), "distinct"),
    "no characters": (signed("char", {"characters": ""}), "at least one"),
    "surrogate": (signed("char", {"characters": "\ud800"}).replace("\ud800", "\\ud800"), "lone surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gives_one_line(name, tmp_path):
    text, reason = BAD[name]
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_tokenizer(path)
    message = str(caught.value)
    assert reason in message and message.startswith(str(path)) and "\n" not in message


def test_nested_files_give_one_line_at_any_depth():
    for depth in [*range(300, 1100), 10_000, 200_000]:
        text = BPETokenizer([]).to_json().replace('"merges": []', f'"merges": {"[" * depth}{"]" * depth}')
        with pytest.raises(ValueError, match=r"^the tokenizer is (damaged|no tokenizer)"):
            tokenizer_from_json(text)


def test_a_missing_or_binary_file_gives_one_line(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer file at"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(ValueError, match="no tokenizer file at"):
        load_tokenizer(tmp_path)
    (tmp_path / "b").write_bytes(b"\x80\x02cos\nsystem\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_tokenizer(tmp_path / "b")


@pytest.mark.parametrize("tokenizer", [BPE, CHAR], ids=lambda t: t.kind)
def test_bad_arguments_give_one_line(tokenizer):
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        tokenizer.encode(b"abc")
    with pytest.raises(ValueError, match=r"character 2 of the text is the lone surrogate U\+D83D"):
        tokenizer.encode("he\ud83d")
    with pytest.raises(IndexError, match=rf"id -1 at position 1 is outside 0..{tokenizer.vocab_size - 1}"):
        tokenizer.decode([0, -1])
    with pytest.raises(IndexError, match=f"id {tokenizer.vocab_size} at position 0"):
        tokenizer.token_text(tokenizer.vocab_size)
    with pytest.raises(TypeError, match="sequence of integers"):
        tokenizer.decode([0.5])
    with pytest.raises(TypeError, match="sequence of integers"):
        tokenizer.decode(3)
    assert tokenizer.decode([]) == "" and tokenizer.decode(np.array([0, 1], np.uint16)) == tokenizer.decode([0, 1])


def test_bad_training_arguments_give_one_line():
    with pytest.raises(ValueError, match=r"at least 257 .* got 256"):
        BPETokenizer.train("abc", 256, special_tokens=("<|end|>",))
    with pytest.raises(TypeError, match="vocab_size must be an integer"):
        BPETokenizer.train("abc", 300.0)
    with pytest.raises(ValueError, match="lone surrogate"):
        BPETokenizer.train("\udc80", 300)
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer.train("")
    with pytest.raises(ValueError, match='"strict" or "ignore"'):
        CHAR.encode("h", errors="replace")
