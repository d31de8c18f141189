"""A byte-level BPE whose ids stand in an order of its own, as in the files of others."""

import numpy as np
import pytest

from minitransformer.data import BPETokenizer, ChatML, tokenizer_from_json
from minitransformer.data.tokenizers.byte_letters import from_letters, to_letters
from minitransformer.data.tokenizers.pretokenize import pretokenize

TEXT = "the theatre, the other thesis; 12 345 naïve 你好 🪐\n\n  end"


def shuffled():
    """A tokenizer of ours, and the same with its ids permuted and two special tokens among them."""
    plain = BPETokenizer.train(TEXT * 5, 300)
    order = np.random.default_rng(0).permutation(plain.vocab_size)
    tokens = [to_letters(plain.token_bytes(int(id))) for id in order]
    merges = [" ".join(to_letters(plain.token_bytes(id)) for id in pair) for pair in plain.merges]
    tokens = [tokens[0], "<|im_start|>", *tokens[1:], "<|im_end|>"]
    return plain, BPETokenizer.from_letters(tokens, merges, [1, len(tokens) - 1])


def test_the_same_tokens_under_other_ids():
    plain, other = shuffled()
    for text in (TEXT, "", "<|im_start|>", "\x00\xff"):
        a, b = plain.encode(text), other.encode(text)
        assert [plain.token_bytes(id) for id in a] == [other.token_bytes(id) for id in b]
        assert other.decode(b) == text and not set(b) & set(other.special_ids.values())
    assert plain.encode(TEXT) != other.encode(TEXT)


def test_saved_and_read_again(tmp_path):
    _, other = shuffled()
    again = tokenizer_from_json(other.to_json())
    assert again == other and again.encode(TEXT) == other.encode(TEXT) and again.special_ids == other.special_ids


def test_a_vocabulary_may_lack_bytes():
    tokens = [chr(byte) for byte in range(0x21, 0x7F)]
    tokenizer = BPETokenizer.from_letters(tokens, [], [])
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"
    with pytest.raises(ValueError, match=r"the text has 'é' \(U\+00E9\), of which .* not know every byte"):
        tokenizer.encode("café")
    assert tokenizer.decode(tokenizer.encode("ca fé", errors="ignore")) == "caf"
    with pytest.raises(ValueError, match="errors must be"):
        tokenizer.encode("a", errors="replace")


@pytest.mark.parametrize(
    ("merges", "said"),
    [(["a"], "merge 0 must be two"), (["a b", "a é"], "merge 1 must be two"), (["b a"], "no token"),
     (["a b", "a b"], "merged twice")],
)  # fmt: skip
def test_merges_that_do_not_fit(merges, said):
    with pytest.raises(ValueError, match=said):
        BPETokenizer.from_letters(["a", "b", "ab"], merges, [])


def test_letters_are_one_to_one():
    every = bytes(range(256))
    assert from_letters(to_letters(every)) == every and len(set(to_letters(every))) == 256
    assert to_letters(b" the\n") == "\u0120the\u010a" and to_letters(every).isprintable()
    with pytest.raises(ValueError, match="stands for no byte"):
        from_letters("a b")


def test_digits_are_pieces_of_their_own():
    text = "  in 2024: 3.14\t½ x  5"
    assert list(pretokenize(text, rule="smollm")) == [
        " ", " in", " ", "2", "0", "2", "4", ":", " ", "3", ".", "1", "4", "\t", "½", " x", "  ", "5",
    ]  # fmt: skip
    assert list(pretokenize(text, rule="gpt2")) == [
        " ",
        " in",
        " 2024",
        ":",
        " 3",
        ".",
        "14",
        "\t",
        "½",
        " x",
        " ",
        " 5",
    ]


def test_chatml():
    _, tokenizer = shuffled()
    start, end = tokenizer.special_ids["<|im_start|>"], tokenizer.special_ids["<|im_end|>"]
    template = ChatML.of(tokenizer, system="be kind")
    newline = tokenizer.encode("\n")

    def message(role, content):
        return [start, *tokenizer.encode(f"{role}\n{content}"), end, *newline]

    said = [{"role": "user", "content": "<|im_end|>"}]
    expected = message("system", "be kind") + message("user", "<|im_end|>")
    assert template.render(tokenizer, said, reply=False) == expected
    assert template.render(tokenizer, said) == [*expected, start, *tokenizer.encode("assistant\n")]
    own = [{"role": "system", "content": "be brief"}, *said]
    assert template.render(tokenizer, own, reply=False) == message("system", "be brief") + message("user", "<|im_end|>")
    with pytest.raises(ValueError, match="role of a message"):
        template.message(tokenizer, "robot", "x")
    with pytest.raises(ValueError, match="needs the special tokens"):
        ChatML.of(BPETokenizer.train("ab", 256))
