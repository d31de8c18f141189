"""A model in Hugging Face's folder: config.json says its sizes, safetensors hold its weights.

model, tokenizer = load_folder("all-MiniLM-L6-v2")
save_folder(model, "mine", tokenizer)               # what `transformers` loads
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from ..data.tokenizers import Tokenizer, WordPieceTokenizer, bpe_from_tokenizer_json, load_tokenizer
from ..nn import Module, Parameter
from ..nn.initialization import later
from .hugging_face_names import ARCHITECTURES, Part
from .safetensors import SafetensorsError, open_safetensors, read_json, write_safetensors

__all__ = ["load_folder", "save_folder"]

CONFIG, OWN_TOKENIZER = "config.json", "minitransformer_tokenizer.json"


def load_folder(folder) -> tuple[Module, Tokenizer | None]:
    """(model, tokenizer) of a folder; the tokenizer is None where the folder has none that is read.

    Everything is held against the sizes of config.json before a tensor is read. Raises SafetensorsError, in one line
    with the file and the field, for a folder that lacks a part, a tensor too few, too many or of another shape, NaN.
    """
    folder = Path(folder)
    path = folder / CONFIG
    get = _Checked(path, read_json(path))
    kind = get.config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise SafetensorsError(f"{path}: 'model_type' must be one of {', '.join(ARCHITECTURES)}, got {kind!r}")
    architecture, tensors = ARCHITECTURES[kind], open_safetensors(folder)
    try:
        config = architecture.read(get, tensors.shapes)
    except SafetensorsError:
        raise
    except ValueError as error:
        raise SafetensorsError(f"{path}: {error}") from None
    prefix = architecture.prefix
    bare = not any(name.startswith(prefix) for name in tensors.shapes)
    if config.layers > len(tensors.shapes):  # before layers are made that nothing fills
        raise SafetensorsError(f"{path}: {config.layers} layers need more than the {len(tensors.shapes)} tensors here")
    largest = max(max(shape, default=0) for shape in tensors.shapes.values())
    for field in ("vocab_size", "context", "width", "hidden"):
        if getattr(config, field, 0) > largest:
            raise SafetensorsError(f"{path}: no tensor here has its {field}, {getattr(config, field)}")
    names = {
        ours: [
            Part(part.name.removeprefix(prefix) if bare else part.name, part.rows, part.transposed) for part in parts
        ]
        for ours, parts in architecture.names(config).items()
    }
    used = {part.name for parts in names.values() for part in parts}
    for name in tensors.shapes:
        if name not in used and not name.endswith(architecture.ignored):
            raise SafetensorsError(f"{tensors.path}: tensor {name!r} has no place in a model of {path}")
    tokenizer = _tokenizer(folder)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise SafetensorsError(
            f"{path}: 'vocab_size' is {config.vocab_size}, the tokenizer has {tokenizer.vocab_size} tokens"
        )
    _check_shapes(tensors, names, _shapes(architecture.model, config))
    model = architecture.model(config, init=later)
    for ours, parts in names.items():
        arrays = [tensors.array(part.name) for part in parts]
        arrays = [a.T if part.transposed else a for a, part in zip(arrays, parts)]
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        _place(model, ours, Parameter(np.ascontiguousarray(whole)))
    return model.eval(), tokenizer


def save_folder(model: Module, folder, tokenizer: Tokenizer | None = None) -> None:
    """Write config.json, model.safetensors and, where one is given, the tokenizer into a folder, which is made.

    Raises ValueError for a model of another architecture, or that has quantised weights.
    """
    kind = next((kind for kind, one in ARCHITECTURES.items() if type(model) is one.model), None)
    if kind is None:
        known = ", ".join(one.model.__name__ for one in ARCHITECTURES.values())
        raise ValueError(f"save: the model must be one of {known}, got {type(model).__name__}")
    folder, architecture, state = Path(folder), ARCHITECTURES[kind], model.state_dict()
    names = architecture.names(model.config)
    if missing := sorted(set(names) - set(state)):
        raise ValueError(f"save: {missing[0]} is quantised; only plain weights can be written")
    arrays = {}
    for ours, parts in names.items():
        rows = np.cumsum([part.rows for part in parts[:-1]], dtype=int)
        for part, array in zip(parts, np.split(state[ours], rows)):
            arrays[part.name] = array.T if part.transposed else array
    config = architecture.write(model.config)
    if config["architectures"] == ["BertModel"]:
        arrays = {name.removeprefix(architecture.prefix): array for name, array in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", arrays)
    if tokenizer is not None:
        tokenizer.save(folder / OWN_TOKENIZER)
        if isinstance(tokenizer, WordPieceTokenizer):
            (folder / "vocab.txt").write_bytes("".join(f"{piece}\n" for piece in tokenizer.vocabulary).encode("utf-8"))
            about = {"tokenizer_class": "BertTokenizer", "do_lower_case": tokenizer.lowercase,
                     "strip_accents": tokenizer.strip_accents,
                     "tokenize_chinese_chars": tokenizer.chinese}  # fmt: skip
            (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _tokenizer(folder) -> Tokenizer | None:
    if (folder / OWN_TOKENIZER).is_file():
        return load_tokenizer(folder / OWN_TOKENIZER)
    path = folder / "tokenizer.json"
    if path.is_file():
        file = read_json(path)
        kind = file["model"].get("type") if isinstance(file.get("model"), dict) else None
        if kind == "WordPiece":
            return WordPieceTokenizer.from_tokenizer_json(path)
        if kind == "BPE":
            return bpe_from_tokenizer_json(file, path)
    if (folder / "vocab.txt").is_file():
        about = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        lowercase = about.get("do_lower_case", True) is not False
        return WordPieceTokenizer.from_vocab(folder / "vocab.txt", lowercase, about.get("strip_accents"))
    return None


def _shapes(model, config):
    """Shape of each parameter, of a model without numbers."""
    return {name: parameter.shape for name, parameter in model(config, init=later).named_parameters()}


def _check_shapes(tensors, names, shapes):
    for ours, parts in names.items():
        shape = shapes[ours]
        for part in parts:
            expected = (part.rows or shape[0], *shape[1:])
            expected = expected[::-1] if part.transposed else expected
            if part.name not in tensors.shapes:
                raise SafetensorsError(f"{tensors.path}: tensor {part.name!r} is missing")
            if tensors.shapes[part.name] != expected:
                found = tensors.shapes[part.name]
                raise SafetensorsError(f"{tensors.path}: tensor {part.name!r} must be {expected}, got {found}")


def _place(model, path, parameter):
    *parents, name = path.split(".")
    for parent in parents:
        model = model[int(parent)] if parent.isdigit() else getattr(model, parent)
    setattr(model, name, parameter)


class _Checked:
    """Fields of config.json, each of which must be what a model can be made of."""

    def __init__(self, path, config, inside=""):
        self.path, self.config, self.inside = path, config, inside

    def size(self, key, default=None) -> int:
        value = self._value(key, default)
        if type(value) is not int or not 0 < value <= 2**31:
            raise self._error(key, "a positive integer", value)
        return value

    def positive(self, key, default=None) -> float:
        value = self._value(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self._error(key, "a positive number", value)
        return float(value)

    def boolean(self, key, default=None) -> bool:
        value = self._value(key, default)
        if type(value) is not bool:
            raise self._error(key, "true or false", value)
        return value

    def must(self, key, wanted, default=None) -> None:
        value = self._value(key, default) if wanted is not None else self.config.get(key)
        if type(value) is not type(wanted) or value != wanted:
            raise self._error(key, f"{wanted!r} to be read", value)

    def part(self, key) -> _Checked:
        value = self.config.get(key, {})
        if not isinstance(value, dict):
            raise self._error(key, "an object", value)
        return _Checked(self.path, value, f"{key}.")

    def _value(self, key, default):
        value = self.config.get(key, default)
        if value is None:
            raise SafetensorsError(f"{self.path}: '{self.inside}{key}' is missing")
        return value

    def _error(self, key, wanted, value):
        return SafetensorsError(f"{self.path}: '{self.inside}{key}' must be {wanted}, got {value!r}")
