"""Folders of config.json and safetensors: what was saved is loaded, and one that lies is refused with one line."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import minitransformer as mt
from minitransformer import Generator
from minitransformer.data import BPETokenizer, WordPieceTokenizer
from minitransformer.data.tokenizers import bpe_from_tokenizer_json
from minitransformer.data.tokenizers.byte_letters import to_letters
from minitransformer.models import BERT, GPT, BERTConfig, GPTConfig, Llama, LlamaConfig
from minitransformer.weights import SafetensorsError, load_folder, open_safetensors, save_folder

TOKENIZER = WordPieceTokenizer.train("the cat sat on the mat", 30)
MODELS = {
    "bert": BERT(BERTConfig(40, 12, 2, 2, 8, 12), Generator(1)),
    "bare bert": BERT(BERTConfig(40, 12, 2, 2, 8, 12, masked_head=False, next_head=False), Generator(1)),
    "gpt2": GPT(GPTConfig(40, 12, 2, 2, 8), Generator(2)),
    "llama": Llama(LlamaConfig(40, 12, 2, 4, 2, 16, 12, tied=False), Generator(3)),
    "tied llama": Llama(LlamaConfig(40, 12, 2, 4, 2, 16, 12), Generator(3)),
}


def saved(folder, name="bert", **changes):
    """A folder with a model, its config.json changed; None takes a field out."""
    save_folder(MODELS[name], folder, TOKENIZER)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def arrays_of(folder):
    tensors = open_safetensors(folder)
    return {name: tensors.array(name) for name in tensors.shapes}


@pytest.mark.parametrize("name", MODELS)
def test_what_was_saved_is_loaded(name, tmp_path):
    model, tokenizer = mt.load(saved(tmp_path / "a folder", name))
    state = MODELS[name].state_dict()
    assert type(model) is type(MODELS[name]) and model.config == MODELS[name].config and not model.training
    assert tokenizer == TOKENIZER
    assert all(np.array_equal(state[key], value) for key, value in model.state_dict().items())
    assert mt.load(tmp_path / "a folder" / "model.safetensors")[0].config == model.config


def test_a_byte_pair_tokenizer_is_kept_too(tmp_path):
    tokenizer = BPETokenizer([])
    save_folder(GPT(GPTConfig(256, 12, 1, 2, 8)), tmp_path, tokenizer)
    assert load_folder(tmp_path)[1] == tokenizer


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16])
def test_other_floats_become_float32(dtype, tmp_path):
    saved(tmp_path)
    halves = {name: array.astype(dtype) for name, array in arrays_of(tmp_path).items()}
    save_file(halves, tmp_path / "model.safetensors")
    model, _ = load_folder(tmp_path)
    table = model.token_embedding.weight.numpy()
    assert table.dtype == np.float32
    assert np.array_equal(table, halves["bert.embeddings.word_embeddings.weight"].astype(np.float32))


def sharded(folder, **index):
    """The folder's tensors in two files; `index` changes where the index says that they are."""
    arrays = arrays_of(folder)
    (folder / "model.safetensors").unlink()
    places = {}
    for number in range(2):
        file = f"model-{number}.safetensors"
        part = dict(list(arrays.items())[number::2])
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    places = {name: place for name, place in (places | index).items() if place}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return folder


def test_several_files_and_an_index(tmp_path):
    model, _ = load_folder(sharded(saved(tmp_path)))
    assert np.array_equal(model.pooler.weight.numpy(), MODELS["bert"].pooler.weight.numpy())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../other.safetensors", r"index.json: 'weight_map' must name .safetensors files beside it, got '../other"),
        ("model-9.safetensors", "model-9.safetensors: no such file"),
        ("pickle.bin", "must name .safetensors files beside it"),
        ("model-1.safetensors", "tensor 'bert.pooler.dense.bias' is missing, which model.safetensors.index.json puts"),
        ("", r"'weight_map' lacks tensor 'bert.pooler.dense.bias'"),
    ],
)
def test_an_index_that_lies(tmp_path, place, message):
    folder = saved(tmp_path)
    first = list(arrays_of(folder)).index("bert.pooler.dense.bias") % 2 == 0
    place = place if first or place != "model-1.safetensors" else "model-0.safetensors"
    with pytest.raises(SafetensorsError, match=message) as caught:
        load_folder(sharded(folder, **{"bert.pooler.dense.bias": place}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", {"model_type": "t5"}, "'model_type' must be one of bert, gpt2, llama, got 't5'"),
        ("bert", {"hidden_size": None}, "'hidden_size' is missing"),
        ("bert", {"hidden_size": -8}, "'hidden_size' must be a positive integer, got -8"),
        ("bert", {"hidden_size": 8.0}, "'hidden_size' must be a positive integer, got 8.0"),
        (
            "bert",
            {"hidden_size": 10},
            r"tensor 'bert.embeddings.word_embeddings.weight' must be \(40, 10\), got \(40, 8",
        ),
        ("bert", {"hidden_size": 2**31}, "no tensor here has its width, 2147483648"),
        ("bert", {"num_hidden_layers": 10**9}, "1000000000 layers need more than the"),
        ("bert", {"num_hidden_layers": 3}, "tensor 'bert.encoder.layer.2.attention.self.query.weight' is missing"),
        ("bert", {"num_hidden_layers": 1}, "tensor 'bert.encoder.layer.1.* has no place in a model"),
        ("bert", {"num_attention_heads": 3}, "3 heads do not divide the width 8"),
        ("bert", {"hidden_act": "relu"}, "'hidden_act' must be 'gelu' to be read, got 'relu'"),
        ("bert", {"is_decoder": True}, "'is_decoder' must be False to be read, got True"),
        ("bert", {"layer_norm_eps": "x"}, "'layer_norm_eps' must be a positive number, got 'x'"),
        ("bert", {"vocab_size": 12}, "'vocab_size' is 12, the tokenizer has"),
        ("gpt2", {"n_inner": 9}, "'n_inner' must be 32 to be read, got 9"),
        ("gpt2", {"layer_norm_epsilon": 1e-6}, "'layer_norm_epsilon' must be 1e-05 to be read"),
        ("llama", {"rope_scaling": {"factor": 2}}, "'rope_scaling' must be None to be read"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "'rope_parameters.rope_type' must be 'default'"),
        ("llama", {"rope_parameters": 3}, "'rope_parameters' must be an object, got 3"),
        ("llama", {"num_key_value_heads": 3}, "3 key/value heads do not divide 4 heads"),
        ("llama", {"tie_word_embeddings": True}, "tensor 'lm_head.weight' has no place in a model"),
        ("tied llama", {"tie_word_embeddings": False}, "tensor 'lm_head.weight' is missing"),
    ],
)
def test_a_config_that_lies(tmp_path, name, changes, message):
    with pytest.raises(SafetensorsError, match=message) as caught:
        load_folder(saved(tmp_path, name, **changes))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_tensors_that_lie(tmp_path):
    whole = arrays_of(saved(tmp_path))
    name = "bert.encoder.layer.1.attention.self.key.weight"
    broken = {
        "is missing": {key: value for key, value in whole.items() if key != name},
        r"must be \(8, 8\), got \(8, 7\)": whole | {name: whole[name][:, :7]},
        "holds NaN or infinity": whole | {name: np.where(whole[name] == whole[name].max(), np.nan, whole[name])},
        "must be one of BF16, F16, F32, F64, got I32": whole | {name: whole[name].astype(np.int32)},
    }
    for message, arrays in broken.items():
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, tmp_path / "model.safetensors")
        with pytest.raises(SafetensorsError, match=f"model.safetensors: tensor '{name}' {message}"):
            load_folder(tmp_path)


def header(text: bytes, data=b"", length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        header(b"{}", length=2**63),
        header(b"{}", length=10**9),
        header(b"not JSON", b"12345678"),
        header(ONE, b"1234"),
        header(ONE, b"123456789012"),
        header(ONE.replace(b"[2]", b"[3]"), b"12345678"),
        header(ONE.replace(b"[2]", b"[4611686018427387904,4]"), b"12345678"),
        header(ONE.replace(b"[0,8]", b"[8,0]"), b"12345678"),
        header(ONE.replace(b"[0,8]", b"[-8,0]"), b"12345678"),
        header(ONE.replace(b"F32", b"X99"), b"12345678"),
        header(ONE[:-1] + b',"v":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}', b"123456789012"),
    ],
)
def test_headers_that_lie(tmp_path, data):
    path = saved(tmp_path) / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(SafetensorsError) as caught:
        load_folder(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_folder_of_a_model(tmp_path):
    with pytest.raises(SafetensorsError, match=r"config.json: no such file"):
        load_folder(tmp_path)
    for text in ("[]", "{", "\udcff"):
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(SafetensorsError, match=r"config.json: (not JSON|must hold an object)"):
            load_folder(tmp_path)
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SafetensorsError, match=r"model.safetensors: no such file"):
        load_folder(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="must be one of BERT, GPT, Llama, got Linear"):
        save_folder(mt.nn.Linear(2, 2, generator=Generator(0)), tmp_path)
    with pytest.raises(ValueError, match="rope_interleaved=True"):
        save_folder(Llama(LlamaConfig(40, 12, 1, 4, 2, 16, 12, rope_interleaved=True)), tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_gives_an_error_or_a_model(data, tmp_path):
    """Bytes changed, cut or added at random: a model of finite numbers, or one line that names the file."""
    folder = saved(tmp_path)
    path = folder / data.draw(st.sampled_from(["config.json", "model.safetensors"]))
    content = bytearray(path.read_bytes())
    near = min(len(content) - 1, 3000)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, near))
        piece = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b"9" * 12, b"-", b"null", b'"', b"[]"]))
        )
        content[at : at + data.draw(st.integers(0, 4))] = piece
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        model, _ = load_folder(folder)
    except SafetensorsError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
    else:
        assert all(np.isfinite(p.numpy()).all() for p in model.parameters())


BYTES = {to_letters(bytes([byte])): byte for byte in range(256)}
BPE_FILE = {
    "added_tokens": [{"id": 257, "content": "<|end|>"}],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    "model": {"type": "BPE", "vocab": BYTES | {"th": 256}, "merges": ["t h"]},
}


def test_a_byte_pair_tokenizer_of_theirs(tmp_path):
    path = tmp_path / "tokenizer.json"
    made = bpe_from_tokenizer_json(BPE_FILE, path)
    assert made.encode("the <|end|>")[0] == 256 and made.special_ids == {"<|end|>": 257}
    newer = BPE_FILE | {"model": BPE_FILE["model"] | {"merges": [["t", "h"]]}}
    assert bpe_from_tokenizer_json(newer, path) == made


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"type": "Unigram"}, "'model' must be of type BPE, got 'Unigram'"),
        ("model", {"vocab": []}, "model.vocab must be an object"),
        ("model", {"vocab": BYTES | {"th": 300}}, r"must give the ids 0\.\.257, each once"),
        ("model", {"merges": ["t h e"]}, "each of model.merges must be two tokens"),
        ("model", {"merges": [["t", 3]]}, "each of model.merges must be two tokens"),
        ("model", {"merges": ["h t"]}, "makes b'ht', which is no token"),
        ("model", {"end_of_word_suffix": "</w>"}, "model.end_of_word_suffix must be empty to be read"),
        ("pre_tokenizer", {"add_prefix_space": True}, "'pre_tokenizer' must be that of GPT-2 or SmolLM"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": 3}, "'pre_tokenizer' must be that of GPT-2 or SmolLM"),
        ("added_tokens", [3], "each of 'added_tokens' must be an object with content and id, got 3"),
        ("added_tokens", [{"id": 1, "content": "th"}], "the id of 'th' in 'added_tokens' must be 256, got 1"),
        ("normalizer", {"type": "NFC"}, "'normalizer' must be null"),
    ],
)
def test_a_byte_pair_tokenizer_that_lies(part, change, message):
    whole = BPE_FILE[part]
    changed = BPE_FILE | {part: whole | change if isinstance(whole, dict) and isinstance(change, dict) else change}
    with pytest.raises(ValueError, match=message) as caught:
        bpe_from_tokenizer_json(changed, "a/tokenizer.json")
    assert str(caught.value).startswith("a/tokenizer.json: ") and "\n" not in str(caught.value)
