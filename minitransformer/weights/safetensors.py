"""safetensors: named arrays in one file, or in several that an index lists.

    tensors = open_safetensors("model.safetensors")             # or "model.safetensors.index.json", or their folder
    tensors.shapes["embeddings.word_embeddings.weight"]         # (30522, 384), before anything is read
    tensors.array("embeddings.word_embeddings.weight")          # float32
    write_safetensors("model.safetensors", {"weight": array})

The library parses the header and holds it against the file: lengths, offsets, overlaps. Checked here is what it cannot
know: that an index tells the truth, that types are read, that numbers are numbers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

__all__ = ["SafetensorsError", "Tensors", "open_safetensors", "write_safetensors"]

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
READ = {"F64", "F32", "F16", "BF16"}
MAX_JSON_BYTES = 1 << 26


class SafetensorsError(ValueError):
    """A file that is missing, damaged or lies; the message is one line: the file, the field, what is wrong."""


class Tensors:
    """The tensors of one or several files: `shapes` and `types` by name; `array(name)` reads one."""

    def __init__(self, path: Path, files: dict):
        self.path, self.shapes, self.types, self._files = path, {}, {}, {}
        for file, opened in files.items():
            for name in opened.keys():
                if name in self._files:
                    raise SafetensorsError(f"{file}: tensor {name!r} is in {self._files[name][0].name} too")
                part = opened.get_slice(name)
                self.shapes[name], self.types[name] = tuple(part.get_shape()), part.get_dtype()
                self._files[name] = file, opened

    def array(self, name: str) -> np.ndarray:
        """A tensor in float32. Raises SafetensorsError for one of a type that is not read, or with NaN or infinity."""
        file, opened = self._files[name]
        if self.types[name] not in READ:
            known = ", ".join(sorted(READ))
            raise SafetensorsError(f"{file}: tensor {name!r} must be one of {known}, got {self.types[name]}")
        array = opened.get_tensor(name).astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise SafetensorsError(f"{file}: tensor {name!r} holds NaN or infinity")
        return array


def open_safetensors(path) -> Tensors:
    """The tensors of a file, an index, or a folder that has either. Raises SafetensorsError, in one line."""
    path = Path(path)
    if path.is_dir():
        path = path / (FILE if (path / FILE).exists() or not (path / INDEX).exists() else INDEX)
    if path.suffix != ".json":
        return Tensors(path, {path: _opened(path)})
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise SafetensorsError(f"{path}: 'weight_map' must give a file for each tensor")
    files = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise SafetensorsError(f"{path}: 'weight_map' must name .safetensors files beside it, got {file!r}")
        files[path.parent / file] = _opened(path.parent / file)
    tensors = Tensors(path, files)
    for name, file in places.items():
        if name not in tensors.shapes or tensors._files[name][0].name != file:
            raise SafetensorsError(f"{path.parent / file}: tensor {name!r} is missing, which {path.name} puts there")
    if extra := sorted(set(tensors.shapes) - set(places)):
        raise SafetensorsError(f"{path}: 'weight_map' lacks tensor {extra[0]!r}, which its files have")
    return tensors


def write_safetensors(path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a file, whole or not at all."""
    from safetensors.numpy import save

    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        data = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata={"format": "pt"})
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict:
    """An object in a JSON file. Raises SafetensorsError for a file that holds none."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SafetensorsError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MB")
        value = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SafetensorsError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, SafetensorsError):
            raise
        raise SafetensorsError(f"{path}: not JSON in UTF-8, or cut short") from None
    if not isinstance(value, dict):
        raise SafetensorsError(f"{path}: must hold an object, got {type(value).__name__}")
    return value


def _opened(path):
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SafetensorsError(f"{path}: no such file")
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        reason = " ".join(str(error).split()).removeprefix("Error while deserializing header: ")
        raise SafetensorsError(f"{path}: its header is damaged, or it was cut short: {reason}") from None
    except OSError as error:
        raise SafetensorsError(f"{path}: {error.strerror or error}") from None
