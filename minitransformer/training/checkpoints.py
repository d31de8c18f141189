"""Checkpoints: files that are there whole or not at all, checked by SHA-256, read without running anything.

    folder/step-00000200.safetensors        every array: weights, optimiser moments, history
                                            its header: {"minitransformer": SHA-256 of the JSON, a space, the JSON}

The JSON holds everything that is no array (sizes, step, random states, tokenizer, …) and the SHA-256 of each array.
There is no index file that could disagree with the files: the newest checkpoint is the one with the highest step, the
best the one with the lowest `validation_loss`.

A write goes to a temporary file in the same folder, is flushed to the disk, and takes its name by `os.replace`; then
the folder is flushed too. Whatever stops it (a full disk, Ctrl-C, a power cut) leaves every earlier checkpoint as it
was. The files are safetensors and JSON, never pickle, which runs code as it loads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Checkpoint", "CheckpointError", "describe", "latest", "paths", "prune", "read", "write"]

FORMAT, VERSION = "minitransformer checkpoint", 1
_NAME = re.compile(r"step-(\d+)\.safetensors")
_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign or of other sizes; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: `info` (JSON's types) and `tensors`, {name: array}."""

    path: Path
    info: dict
    tensors: dict[str, np.ndarray]

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The tensors below a prefix, without it: part("model.") is a state dict."""
        return {name.removeprefix(prefix): array for name, array in self.tensors.items() if name.startswith(prefix)}


def paths(folder) -> list[Path]:
    """The checkpoint files of a folder, the oldest step first; [] when there are none."""
    found = [
        (int(match[1]), path)
        for path in Path(folder).glob("step-*.safetensors")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


# ---------------------------------------------------------------- writing


def write(folder, step: int, tensors: dict[str, np.ndarray], info: dict) -> Path:
    """Write a checkpoint, whole or not at all; returns its path.

    info: JSON's types; "step", "format", "version" and "sha256" are added. Raises OSError when the disk is full or the
    folder cannot be written; earlier checkpoints stay, and the message says so.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    digests = {name: _digest(array) for name, array in tensors.items()}
    text = json.dumps({**info, "step": step, "format": FORMAT, "version": VERSION, "sha256": digests}, allow_nan=False)
    data = save(tensors, metadata={"minitransformer": f"{hashlib.sha256(text.encode()).hexdigest()} {text}"})
    path = folder / f"step-{step:08d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".step-*.partial"):  # of a process that was killed in the middle of a write
            left_over.unlink()
        replace_file(path, data)
    except OSError as error:
        reason = f"cannot write the checkpoint {path}: {error.strerror or error}; earlier checkpoints are untouched"
        raise OSError(error.errno, reason) from error
    return path


def replace_file(path: Path, data: bytes) -> None:
    """Give `path` new content so that at every moment it holds the old bytes or the new, even across a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # without it the name may reach the disk before the bytes
        os.replace(partial, path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _flush_folder(folder):
    if os.name != "nt":  # Windows has no handle for a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def prune(folder, keep: int = 3, written: Path | None = None) -> None:
    """Delete all but the last `keep` checkpoints, the best one and `written`. Unreadable files are left alone."""
    described = []
    for path in paths(folder):
        with contextlib.suppress(CheckpointError):
            described.append((path, describe(path).get("validation_loss")))
    measured = [(loss, path) for path, loss in described if loss is not None]
    kept = {written} | {path for path, _ in described[-keep:]} | ({min(measured)[1]} if measured else set())
    for path, _ in described:
        if path not in kept:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- reading


def describe(path) -> dict:
    """The `info` of a checkpoint, read from its header alone. Raises CheckpointError, in one line."""
    with _opened(path) as file:
        return _info(Path(path), file.metadata())


def read(path) -> Checkpoint:
    """A checkpoint with every byte verified. Raises CheckpointError: missing, cut short, changed, foreign, too new."""
    path = Path(path)
    with _opened(path) as file:
        info = _info(path, file.metadata())
        names = set(file.keys())
        if names != set(info["sha256"]):
            raise CheckpointError(f"{path} is damaged: its arrays are not those that its header lists")
        tensors = {}
        for name in sorted(names):
            tensors[name] = file.get_tensor(name)
            if _digest(tensors[name]) != info["sha256"][name]:
                raise CheckpointError(f"{path} is damaged: the SHA-256 of {name!r} does not match")
    return Checkpoint(path, info, tensors)


def latest(folder) -> Checkpoint:
    """The newest good checkpoint of a folder. One that is damaged is passed over, with a warning that says so.

    Raises CheckpointError when there is none.
    """
    candidates = paths(folder)
    if not candidates:
        raise CheckpointError(f"no checkpoint in {folder}: train a model first, `minitransformer train`")
    faults = []
    for path in reversed(candidates):
        try:
            found = read(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            _log.warning("%s; going back to %s", fault, path.name)
        return found
    raise CheckpointError(f"no good checkpoint in {folder}: {faults[0]}")


@contextlib.contextmanager
def _opened(path):
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}: it must be a file that training wrote (step-….safetensors)")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no checkpoint, or was cut short: {_lower(str(error))}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None


def _lower(text):
    return text.removeprefix("Error while deserializing header: ").replace("\n", " ")


def _info(path, metadata):
    if not metadata or "minitransformer" not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but no checkpoint of minitransformer: only those can be loaded"
        )
    digest, _, text = metadata["minitransformer"].partition(" ")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged or was edited: its header does not match its SHA-256")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict) or info.get("format") != FORMAT or not isinstance(info.get("sha256"), dict):
        raise CheckpointError(f"{path} is no checkpoint of minitransformer")
    if info.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {info.get('version')!r}; this release reads version {VERSION}"
        )
    return info


def _digest(array) -> str:
    head = f"{array.dtype.name} {list(array.shape)} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()
