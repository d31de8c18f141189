"""From a file to a model that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..data.tokenizers import BPETokenizer, ChatML
from ..kernels.quantized_weight import QuantizedWeight
from ..nn import Embedding, Linear, Module, Parameter, QuantizedEmbedding, QuantizedLinear, RMSNorm
from .download import obtain
from .gguf import GGUF, GGUFError, open_gguf
from .hugging_face import load_folder
from .llama import llama_from_gguf

__all__ = ["load", "tokenizer_from_gguf"]

ARCHITECTURES = {"llama": llama_from_gguf}
PRETOKENIZERS = {"gpt-2": "gpt2", "smollm": "smollm"}  # GGUF's names
# What a ChatML template written in Jinja says to the model where nobody says anything else.
SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}]*?)<\|im_end\|>")
CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type: tokens that stand for themselves


def load(source, inputs: str = "float"):
    """(model, tokenizer) of a GGUF file, a Hugging Face folder (see `load_folder`), or a name of the catalogue,
    which is fetched at the first time.

    Weights in few bits stay so and are laid out for the kernels; norms are float32. inputs: "float", the exact numbers
    of the file; "int8" rounds the activations to 8 bits before each product, which is much faster and a little worse.
    `tokenizer.chat` is the chat template, or None where the file has none. Raises GGUFError for a file that lies, holds
    NaN or lacks a tensor, ValueError for an architecture that is not read or a name that is not known.
    """
    if inputs not in ("float", "int8"):
        raise ValueError(f'load: inputs must be "float" or "int8", got {inputs!r}')
    path = Path(source)
    if not path.exists():
        path = obtain(str(source))
    if path.is_dir() or path.suffix == ".safetensors":
        return load_folder(path if path.is_dir() else path.parent)
    file = open_gguf(path)
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise GGUFError(f"{path}: metadata 'general.architecture' must be one of {known}, got {architecture!r}")
    tokenizer = tokenizer_from_gguf(file)
    model, names = ARCHITECTURES[architecture](file)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise GGUFError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the table {model.config.vocab_size} rows"
        )
    modules = dict(model.named_modules())
    for layer, tensors in names.items():
        parent, _, attribute = layer.rpartition(".")
        setattr(modules[parent], attribute, _filled(file, modules[layer], tensors, inputs))
    return model.eval(), tokenizer


def _filled(file: GGUF, layer: Module, tensors: list[str], inputs: str) -> Module:
    """The layer with the tensors of a file: itself, or one with a quantised weight in its place."""
    shape = layer.weight.shape
    found = [file.tensors[name].shape for name in tensors]
    if (sum(s[0] for s in found), *found[0][1:]) != shape or any(s[1:] != shape[1:] for s in found):
        shapes = " and ".join(map(str, found))
        raise GGUFError(f"{file.path}: tensor {', '.join(map(repr, tensors))} must make {shape}, got {shapes}")
    types = {file.tensors[name].type for name in tensors}
    if isinstance(layer, RMSNorm) or len(types) > 1 or types == {"F32"}:
        weight = np.concatenate([file.array(name) for name in tensors])
        if not np.isfinite(weight).all():
            raise GGUFError(f"{file.path}: tensor {', '.join(map(repr, tensors))} holds NaN or infinity")
        layer.weight = Parameter(weight)
        return layer
    weights = [file.weight(name) for name in tensors]
    for name, weight in zip(tensors, weights):
        _check_finite(file, name, weight)
    weight = weights[0] if len(weights) == 1 else QuantizedWeight.stack(weights)
    if types & {"F16", "BF16"}:
        inputs = "float"
    if isinstance(layer, Embedding):
        return QuantizedEmbedding(weight, inputs)
    assert isinstance(layer, Linear)
    return QuantizedLinear(weight.panels(), inputs=inputs)


def _check_finite(file, name, weight):
    """Codes are always numbers; what can be none are scales, minima, and float16 and bfloat16 themselves."""
    blocks = weight.view()
    exponent = 0x7F80 if weight.format == "bfloat16" else 0x7C00  # all ones: infinity or NaN
    for field in {"scale", "minimum", "values"} & set(blocks.dtype.names):
        if ((blocks[field].view("<u2") & exponent) == exponent).any():
            raise GGUFError(f"{file.path}: tensor {name!r} holds NaN or infinity")


def tokenizer_from_gguf(file: GGUF) -> BPETokenizer:
    """The byte-level BPE that a GGUF carries. Raises GGUFError for another kind of tokenizer, or a damaged one."""
    get = file.metadata.get
    if get("tokenizer.ggml.model") != "gpt2" or get("tokenizer.ggml.pre") not in PRETOKENIZERS:
        kind = f"{get('tokenizer.ggml.model')!r} with {get('tokenizer.ggml.pre')!r}"
        known = " or ".join(f"'gpt2' with {name!r}" for name in PRETOKENIZERS)
        raise GGUFError(f"{file.path}: the tokenizer ('tokenizer.ggml.model', '.pre') must be {known}, got {kind}")
    tokens, merges, types = (get(f"tokenizer.ggml.{key}") for key in ("tokens", "merges", "token_type"))
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise GGUFError(f"{file.path}: metadata 'tokenizer.ggml.tokens' and '.merges' must be lists of strings")
    if not isinstance(types, np.ndarray) or len(types) != len(tokens):
        raise GGUFError(f"{file.path}: metadata 'tokenizer.ggml.token_type' must have one number for each token")
    special = np.flatnonzero(np.isin(types, (CONTROL, USER_DEFINED))).tolist()
    try:
        tokenizer = BPETokenizer.from_letters(tokens, merges, special, PRETOKENIZERS[get("tokenizer.ggml.pre")])
    except ValueError as error:
        raise GGUFError(f"{file.path}: its tokenizer is damaged: {error}") from None
    template = get("tokenizer.chat_template")
    if isinstance(template, str) and "<|im_start|>" in template and "<|im_start|>" in tokenizer.special_ids:
        system = SYSTEM.search(template)
        tokenizer.chat = ChatML.of(tokenizer, system and system[1])
    return tokenizer
