"""From a GGUF to a model that runs, on a file with everything that a real one has."""

import tracemalloc

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.models import Llama, LlamaConfig
from minitransformer.nn import QuantizedEmbedding, QuantizedLinear
from minitransformer.weights import GGUFError, load

from . import gguf_file as made
from . import tiny_llama

IDS = np.random.default_rng(1).integers(0, 266, (2, 30))


def plain(numbers, tied=True) -> Llama:
    """The same model of ordinary layers, filled by hand."""
    t = tiny_llama
    model = Llama(
        LlamaConfig(
            len(t.tokens()), t.CONTEXT, t.LAYERS, t.HEADS, t.GROUPS, t.WIDTH, t.HIDDEN,
            rope_base=100.0, rope_interleaved=True, tied=tied, eps=float(np.float32(1e-5)),
        )
    )  # fmt: skip
    state = {"token_embedding.weight": numbers["token_embd.weight"], "norm.weight": numbers["output_norm.weight"]}
    if not tied:
        state["output.weight"] = numbers["output.weight"]
    for i in range(t.LAYERS):
        block = {name.split(".")[2]: w for name, w in numbers.items() if name.startswith(f"blk.{i}.")}
        state |= {
            f"blocks.{i}.attention_norm.weight": block["attn_norm"],
            f"blocks.{i}.attention.qkv.weight": np.concatenate([block[f"attn_{part}"] for part in "qkv"]),
            f"blocks.{i}.attention.output.weight": block["attn_output"],
            f"blocks.{i}.feed_forward_norm.weight": block["ffn_norm"],
            **{f"blocks.{i}.feed_forward.{part}.weight": block[f"ffn_{part}"] for part in ("gate", "up", "down")},
        }
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("format", ["q4_1", "q4_0", "q8_0", "float16", "bfloat16", "float32"])
def test_logits_are_those_of_the_numbers_in_the_file(tmp_path, format, tied):
    model, _ = load(tiny_llama.write(tmp_path / "m.gguf", format, tied))
    expected = plain(tiny_llama.weights(format, tied)[1], tied)
    with model.evaluating(), expected.evaluating():
        a, b = model(IDS).numpy(), expected(IDS).numpy()
    assert np.abs(b).max() > 1
    np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())
    quantised = [m for m in model.modules() if isinstance(m, (QuantizedLinear, QuantizedEmbedding))]
    assert bool(quantised) is (format != "float32")


def test_weights_of_several_types(tmp_path):
    """Queries in one format, keys in another: what cannot be one matrix in few bits is one in float32."""
    formats = {"blk.0.attn_k.weight": "q8_0", "token_embd.weight": "q8_0", "blk.1.attn_q.weight": "float32"}
    model, _ = load(tiny_llama.write(tmp_path / "m.gguf", formats=formats))
    expected = plain(tiny_llama.weights(formats=formats)[1])
    with model.evaluating(), expected.evaluating():
        a, b = model(IDS).numpy(), expected(IDS).numpy()
    np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())
    assert isinstance(model.blocks[1].attention.output, QuantizedLinear)


def test_rounded_activations_are_near(tmp_path):
    path = tiny_llama.write(tmp_path / "m.gguf")
    (exact, _), (fast, _) = mt.load(path), mt.load(path, inputs="int8")
    with exact.evaluating(), fast.evaluating():
        a, b = exact(IDS).numpy(), fast(IDS).numpy()
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()


def test_cached_decoding_is_the_full_forward(tmp_path):
    model, _ = load(tiny_llama.write(tmp_path / "m.gguf"))
    cache, parts = model.new_cache(2), []
    with model.evaluating():
        full = model(IDS).numpy()
        for start, stop in ((0, 11), (11, 12), (12, 29), (29, 30)):
            parts.append(model(IDS[:, start:stop], cache).numpy())
    np.testing.assert_allclose(np.concatenate(parts, 1), full, atol=1e-5 * np.abs(full).max())


def test_the_tokenizer(tmp_path):
    _, tokenizer = load(tiny_llama.write(tmp_path / "m.gguf"))
    tokens = tiny_llama.tokens()
    assert tokenizer.encode(" the user") == [tokens.index("Ġthe"), tokens.index("Ġ"), tokens.index("user")]
    text = "naïve 你好 <|im_end|> 12 the\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and not set(ids) & set(tokenizer.special_ids.values())
    assert tokenizer.special_ids == {name: id for id, name in enumerate(tiny_llama.SPECIAL)}
    assert tokenizer.chat.system == "Be kind"
    _, silent = load(tiny_llama.write(tmp_path / "n.gguf", without=["tokenizer.chat_template"]))
    assert silent.chat is None


SPOILT = np.ones((tiny_llama.WIDTH, tiny_llama.HIDDEN // 32, 20), np.uint8)
SPOILT[3, 1, :2] = [0, 0x7E]  # a NaN in float16
NAN_NORM = made.float32(np.where(np.arange(64) == 5, np.nan, 1.0))
LIES = {
    "architecture": ({"entries": {"general.architecture": "mamba"}}, "'general.architecture' must be one of llama"),
    "a key missing": ({"without": ["llama.block_count"]}, "'llama.block_count' is missing"),
    "a key a string": ({"entries": {"llama.block_count": "2"}}, "'llama.block_count' must be a positive int"),
    "no layers": ({"entries": {"llama.block_count": 0}}, "'llama.block_count' must be a positive int"),
    "more layers": ({"entries": {"llama.block_count": 3}}, "'llama.block_count' is 3, too many for 20 tensors"),
    "2**31 layers": ({"entries": {"llama.block_count": 2**31}}, "'llama.block_count' is 2147483648, too many for 20"),
    "heads do not divide": ({"entries": {"llama.attention.head_count": 5}}, "heads of an even width"),
    "another head width": ({"entries": {"llama.rope.dimension_count": 8}}, "'llama.rope.dimension_count' must be"),
    "scaled positions": ({"entries": {"llama.rope.scaling.type": "yarn"}}, "'llama.rope.scaling.type' asks for"),
    "experts": ({"entries": {"llama.expert_count": 8}}, "'llama.expert_count' asks for"),
    "eps NaN": ({"entries": {"llama.attention.layer_norm_rms_epsilon": float("nan")}}, "layer_norm_rms_epsilon' must"),
    "a tensor missing": ({"without": ["blk.1.ffn_up.weight"]}, "'blk.1.ffn_up.weight' is missing"),
    "no table": ({"without": ["token_embd.weight"]}, "'token_embd.weight' is missing"),
    "another shape": (
        {"change": {"blk.0.attn_output.weight": (8, (64, 32), bytes(64 * 34))}}, "must make (64, 64), got (64, 32)",
    ),
    "a type that is not read": (
        {"change": {"blk.0.attn_output.weight": (20, (64, 64), bytes(128 * 18))}}, "is of type IQ4_NL",
    ),
    "NaN in a norm": ({"change": {"blk.0.ffn_norm.weight": NAN_NORM}}, "'blk.0.ffn_norm.weight' holds NaN"),
    "NaN in a scale": (
        {"change": {"blk.0.ffn_down.weight": (3, (64, 96), SPOILT.tobytes())}}, "'blk.0.ffn_down.weight' holds NaN",
    ),
    "another tokenizer": ({"entries": {"tokenizer.ggml.model": "llama"}}, "'tokenizer.ggml.model'"),
    "another rule": ({"entries": {"tokenizer.ggml.pre": "qwen2"}}, "got 'gpt2' with 'qwen2'"),
    "no merges": ({"without": ["tokenizer.ggml.merges"]}, "must be lists of strings"),
    "a merge of three": ({"entries": {"tokenizer.ggml.merges": ["a b c"]}}, "merge 0 must be two tokens"),
    "a merge that makes nothing": ({"entries": {"tokenizer.ggml.merges": ["a b"]}}, "no token of the vocabulary"),
    "types too few": ({"entries": {"tokenizer.ggml.token_type": [1, 2]}}, "one number for each token"),
    "a token too few": (
        {"entries": {"tokenizer.ggml.tokens": tiny_llama.tokens()[:-1], "tokenizer.ggml.merges": tiny_llama.MERGES[:-1],
                     "tokenizer.ggml.token_type": [3] * 3 + [1] * 262}}, "has 265 tokens, the table 266 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path, lie):
    options, said = LIES[lie]
    path = tiny_llama.write(tmp_path / "model.gguf", **options)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, GGUFError) is ("model.gguf" in str(caught.value))


def test_names_and_options():
    with pytest.raises(ValueError, match="no file and no model named 'smolm2'; did you mean 'smollm2'"):
        load("smolm2")
    with pytest.raises(ValueError, match='inputs must be "float" or "int8"'):
        load("smollm2", inputs="int4")
