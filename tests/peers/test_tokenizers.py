"""Our byte-level BPE beside the `tokenizers` library, with the same vocabulary and merges: the same ids."""

import inspect
import pydoc_data.topics
import random
import unicodedata

import numpy as np
import pytest

from minitransformer.data import BPETokenizer
from minitransformer.data.tokenizers.byte_letters import to_letters
from minitransformer.weights import CATALOGUE, open_gguf
from minitransformer.weights.download import kept
from minitransformer.weights.load import tokenizer_from_gguf

tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed in this environment")
pytestmark = pytest.mark.peers

ENGLISH = "".join(pydoc_data.topics.topics.values())
CHINESE = (
    "大型语言模型是如何工作的？它把文本切成词元，然后逐个预测下一个词元。\n\n"
    "「你好，世界！」３个、１２３４五六七 々〆ヵヶ한국어 텍스트도\u3000있다。"
)
EMOJI = (
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 ☃️ e\u0301 ａｂｃ ²³½ Ⅷ ①②  10 000,5 €\u00a0 \u2028x\u2029 "
    "\x1c\x1d\x1e\x1f\x85 'S 'LL don't I'd we've\r\n\r\n\t\tend  "
)


def reference(tokens, merges, rule):
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={token: id for id, token in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]
        )
    )
    bytes_of = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [tokenizers.pre_tokenizers.Digits(individual_digits=True)] if rule == "smollm" else []
    library.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*digits, bytes_of])
    return library


def random_text(seed, length):
    """Code points that this Python's Unicode has assigned; older ones, which every library knows, by age of blocks."""
    draw = random.Random(seed)
    ranges = [(0, 0x80), (0x80, 0x250), (0x370, 0x530), (0x600, 0x700), (0x900, 0xE80), (0x2000, 0x2C00),
              (0x3000, 0x3100), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x1F300, 0x1F650), (0x20000, 0x2A6D7)]  # fmt: skip
    text = []
    while len(text) < length:
        char = chr(draw.randrange(*draw.choice(ranges)))
        if unicodedata.category(char) not in ("Cn", "Cs", "Co"):
            text.append(char if draw.random() < 0.8 else draw.choice(" \n\t  0'"))
    return "".join(text)


def agree(mine, library, texts):
    for text in texts:
        ours, theirs = mine.encode(text, errors="ignore"), library.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            at = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), len(theirs))
            pytest.fail(
                f"ids differ at {at}: {mine.token_strings(ours[at - 2 : at + 3])} {ours[at:][:3]} {theirs[at:][:3]}"
            )


TEXTS = {
    "documentation": [ENGLISH],
    "code": [inspect.getsource(inspect), inspect.getsource(BPETokenizer)],
    "Chinese": [CHINESE, CHINESE * 20],
    "emoji and odd characters": [EMOJI, EMOJI * 3],
    "random": [random_text(seed, 3000) for seed in range(40)],
    "short": ["", " ", "\n", "  5", "5  ", "a  5b", "'", "1'2", " '5", "\u00a05", "  \u00a0  x"],
}


@pytest.mark.parametrize("of", TEXTS)
@pytest.mark.parametrize("rule", ["gpt2", "smollm"])
def test_a_vocabulary_of_ours(rule, of):
    learned = BPETokenizer.train(ENGLISH[:150_000] + 20 * (CHINESE + EMOJI), 1500)
    tokens = [to_letters(learned.token_bytes(id)) for id in range(learned.vocab_size)]
    merges = [f"{tokens[left]} {tokens[right]}" for left, right in learned.merges]
    mine = BPETokenizer.from_letters(tokens, merges, [], rule)
    agree(mine, reference(tokens, merges, rule), TEXTS[of])


@pytest.fixture(scope="module")
def smollm2():
    path = kept(CATALOGUE["smollm2"])
    if path is None:
        pytest.skip("SmolLM2 is not here: `minitransformer models smollm2` gets it")
    return open_gguf(path)


@pytest.mark.parametrize("of", TEXTS)
def test_the_vocabulary_of_smollm2(smollm2, of):
    metadata = smollm2.metadata
    library = reference(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"], "smollm")
    agree(tokenizer_from_gguf(smollm2), library, TEXTS[of])


def test_the_chat_template_of_smollm2(smollm2):
    """Ours by hand beside the one in the file, rendered by Jinja and cut at the special tokens."""
    jinja2 = pytest.importorskip("jinja2")
    tokenizer = tokenizer_from_gguf(smollm2)
    template = jinja2.Environment().from_string(smollm2.metadata["tokenizer.chat_template"])
    library = reference(smollm2.metadata["tokenizer.ggml.tokens"], smollm2.metadata["tokenizer.ggml.merges"], "smollm")
    library.add_special_tokens(list(tokenizer.special_ids))
    user = {"role": "user", "content": "\n Hello, 你好! "}
    for messages in (
        [user],
        [{"role": "system", "content": "Be brief."}, user, {"role": "assistant", "content": "Yes?\n"}, user],
    ):
        for reply in (True, False):
            text = template.render(messages=messages, add_generation_prompt=reply)
            expected = library.encode(text, add_special_tokens=False).ids
            assert tokenizer.chat.render(tokenizer, messages, reply) == expected


def test_a_decoded_id_is_what_the_library_says(smollm2):
    metadata = smollm2.metadata
    library = reference(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"], "smollm")
    library.decoder = tokenizers.decoders.ByteLevel()
    mine = tokenizer_from_gguf(smollm2)
    ids = np.random.default_rng(0).integers(17, mine.vocab_size, 500).tolist()
    assert mine.decode(ids) == library.decode(ids)
