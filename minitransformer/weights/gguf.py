"""GGUF: metadata and tensors in one file that is mapped into memory, not read.

    file = open_gguf("model.gguf")
    file.metadata["llama.block_count"]          # numbers, booleans, str, arrays of numbers, lists of str
    file.tensors["token_embd.weight"]           # type, shape, where it lies
    file.weight("blk.0.attn_q.weight")          # its blocks as they are: a QuantizedWeight, nothing is copied
    file.array("output_norm.weight")            # its numbers in float32

    "GGUF"  version u32  tensors u64  entries u64
    entry:  key string, type u32, value                 string: length u64, UTF-8; array: type u32, length u64, elements
    tensor: name string, axes u32, sizes u64 each (fastest first), type u32, offset u64
    padding to the alignment (general.alignment, or 32), then the data, from which the offsets count

A file may lie. Every count is held against the bytes that are left before anything is made of it, in Python's integers,
which do not overflow: so what is allocated is bounded by the size of the file.
Source: ggml's docs/gguf.md; the malformed files of llama.cpp's tests/test-gguf.cpp.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..kernels.quantized_weight import QuantizedWeight

__all__ = ["GGUF", "GGUFError", "GGUFTensor", "open_gguf"]


class GGUFError(ValueError):
    """A file that is no GGUF, or lies; the message is one line: the file, the field, what is wrong."""


# id -> (name, weights in a block, bytes of a block). Those that are not read are here for their sizes and their names.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
READ = {"F16": "float16", "BF16": "bfloat16", "Q8_0": "q8_0", "Q4_0": "q4_0", "Q4_1": "q4_1"}  # and F32

BOOL, STRING, ARRAY = 7, 8, 9  # types of metadata, beside the numbers
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", BOOL: "u1", 10: "<u8", 11: "<i8",
           12: "<f8"}  # fmt: skip
LEAST_ENTRY, LEAST_TENSOR = 8 + 1 + 4 + 1, 8 + 1 + 4 + 8 + 4 + 8  # bytes: what no entry and no tensor can be below
LONGEST_KEY = 65535


@dataclass(frozen=True)
class GGUFTensor:
    """name; type, e.g. "Q4_1"; shape, rows first (the file writes it the other way round); where its bytes lie."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, repr=False)
class GGUF:
    """An open file: `metadata` by key, `tensors` by name, and their bytes, which stay on disk until they are used."""

    path: Path
    version: int
    metadata: dict
    tensors: dict[str, GGUFTensor]
    data: np.ndarray

    def bytes(self, name: str) -> np.ndarray:
        """A tensor's bytes, a view of the mapped file."""
        tensor = self._tensor(name)
        return self.data[tensor.start : tensor.start + tensor.nbytes]

    def weight(self, name: str) -> QuantizedWeight:
        """A tensor (N, K) of type F16, BF16, Q8_0, Q4_0 or Q4_1 as it lies in the file."""
        tensor = self._tensor(name)
        if tensor.type not in READ:
            raise self._unreadable(tensor, READ)
        if len(tensor.shape) != 2:
            raise GGUFError(f"{self.path}: tensor {name!r} must have two axes, its shape is {tensor.shape}")
        return QuantizedWeight.from_gguf(self.bytes(name), READ[tensor.type], tensor.shape)

    def array(self, name: str) -> np.ndarray:
        """A tensor's numbers in float32; a view of the file where they lie in it so."""
        tensor = self._tensor(name)
        if tensor.type == "F32":
            return self.bytes(name).view("<f4").reshape(tensor.shape)
        if tensor.type not in READ:
            raise self._unreadable(tensor, ["F32", *READ])
        rows = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        weight = QuantizedWeight.from_gguf(self.bytes(name), READ[tensor.type], rows)
        return weight.dequantize().reshape(tensor.shape)

    def _tensor(self, name):
        if name not in self.tensors:
            raise GGUFError(f"{self.path}: tensor {name!r} is missing")
        return self.tensors[name]

    def _unreadable(self, tensor, types):
        known = ", ".join(types)
        return GGUFError(f"{self.path}: tensor {tensor.name!r} is of type {tensor.type}; read are {known}")

    def __repr__(self):
        return f"GGUF({str(self.path)!r}, {len(self.metadata)} entries, {len(self.tensors)} tensors)"


def open_gguf(path) -> GGUF:
    """Map a file and check all that it says of itself. Raises GGUFError for a file that is no GGUF of version 2 or 3,
    is cut short, or lies; OSError where it cannot be read.

    The map is copy-on-write: arrays are writable, the file never changes.
    """
    path = Path(path)
    size = os.stat(path).st_size
    if not path.is_file() or size < 24:
        raise GGUFError(f"{path}: no GGUF file: it has {size} bytes, the header alone has 24")
    data = np.memmap(path, np.uint8, mode="c").view(np.ndarray)
    cursor = _Cursor(path, data)
    version, tensors, entries = cursor.header()
    metadata = {}
    for index in range(cursor.count("the number of metadata entries", entries, LEAST_ENTRY)):
        key = cursor.string(f"the key of entry {index}", LONGEST_KEY)
        if key in metadata:
            raise cursor.error(f"metadata {key!r}", "is given twice")
        metadata[key] = cursor.value(f"metadata {key!r}")
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise cursor.error("metadata 'general.alignment'", f"must be a power of two up to 2**20, got {alignment!r}")
    described = [cursor.tensor(i) for i in range(cursor.count("the number of tensors", tensors, LEAST_TENSOR))]
    return GGUF(path, version, metadata, _placed(cursor, described, alignment), data)


def _placed(cursor, described, alignment):
    """The tensors by name, each where it says it lies, after the checks that it can and that no other lies there."""
    start = -(-cursor.position // alignment) * alignment
    placed = {}
    for name, type_id, shape, offset in described:
        field = f"tensor {name!r}"
        if name in placed:
            raise cursor.error(field, "is given twice")
        if type_id not in TYPES:
            raise cursor.error(field, f"is of a type that is not known, number {type_id}")
        type_name, block, block_bytes = TYPES[type_id]
        if shape[-1] % block:
            raise cursor.error(field, f"has rows of {shape[-1]}, which blocks of {block} ({type_name}) do not divide")
        nbytes = math.prod(shape) // block * block_bytes
        if offset % alignment:
            raise cursor.error(field, f"begins at offset {offset}, which is no multiple of the alignment {alignment}")
        if start + offset + nbytes > cursor.size:
            raise cursor.error(
                field, f"needs bytes {start + offset} to {start + offset + nbytes}, the file ends at {cursor.size}"
            )
        placed[name] = GGUFTensor(name, type_name, shape, start + offset, nbytes)
    last = None
    for tensor in sorted(placed.values(), key=lambda tensor: tensor.start):
        if last is not None and tensor.start < last.start + last.nbytes:
            raise cursor.error(f"tensor {tensor.name!r}", f"overlaps with {last.name!r}")
        last = tensor
    return placed


class _Cursor:
    """A place in the bytes of a file. Whatever it reads is checked first against what is left."""

    def __init__(self, path, data):
        self.path, self.bytes, self.size, self.position = path, memoryview(data), len(data), 0

    def error(self, field, what):
        return GGUFError(f"{self.path}: {field} {what}")

    def take(self, field, count):
        """Where `count` bytes begin, and move behind them."""
        if count > self.size - self.position:
            raise self.error(
                field, f"needs {count} bytes at {self.position}, {self.size - self.position} are left: it is cut short"
            )
        self.position += count
        return self.position - count

    def unpack(self, field, format):
        return struct.unpack_from(format, self.bytes, self.take(field, struct.calcsize(format)))[0]

    def header(self):
        magic = self.unpack("the header", "4s")
        if magic != b"GGUF":
            raise self.error("the header", f"begins with {magic!r}, a GGUF file with b'GGUF'")
        version = self.unpack("the version", "<I")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
            hint = ": this file is big-endian" if swapped else ""
            raise self.error("the version", f"must be 2 or 3, got {version}{hint}")
        return version, self.unpack("the number of tensors", "<Q"), self.unpack("the number of entries", "<Q")

    def count(self, field, count, least):
        """A count of things that take at least so many bytes each. (A negative one reads as a huge one.)"""
        if count * least > self.size - self.position:
            raise self.error(
                field, f"is {count}, which {self.size - self.position} bytes cannot hold: it is wrong or cut short"
            )
        return count

    def string(self, field, most=None):
        length = self.unpack(f"the length of {field}", "<Q")
        if most is not None and not 0 < length <= most:
            raise self.error(field, f"must have 1 to {most} bytes, got {length}")
        start = self.take(field, length)
        try:
            return str(self.bytes[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(field, f"is no UTF-8 text ({error.reason} at byte {start + error.start})") from None

    def value(self, field):
        kind = self.unpack(f"the type of {field}", "<I")
        if kind == STRING:
            return self.string(field)
        if kind == ARRAY:
            return self.array(field)
        return self.numbers(field, kind, 1)[0].item()

    def array(self, field):
        """A list of str, or an array of numbers. Arrays of arrays are no part of what is read."""
        kind = self.unpack(f"the type of the elements of {field}", "<I")
        length = self.unpack(f"the length of {field}", "<Q")
        if kind == STRING:
            return [self.string(field) for _ in range(self.count(f"the length of {field}", length, 8))]
        return self.numbers(field, kind, length)

    def numbers(self, field, kind, count):
        if kind not in NUMBERS:
            raise self.error(field, f"is of a type that is not known, number {kind}")
        dtype = np.dtype(NUMBERS[kind])
        start = self.take(field, count * dtype.itemsize)
        numbers = np.frombuffer(self.bytes, dtype, count, start)
        if kind != BOOL:
            return numbers
        if numbers.max(initial=0) > 1:
            raise self.error(field, f"must be 0 or 1 as a boolean, got {numbers.max()}")
        return numbers.view(np.bool_)

    def tensor(self, index):
        """(name, type's number, shape, offset) of what the file says of a tensor."""
        name = self.string(f"the name of tensor {index}", LONGEST_KEY)
        field = f"tensor {name!r}"
        axes = self.unpack(f"the number of axes of {field}", "<I")
        if not 1 <= axes <= 4:
            raise self.error(field, f"must have 1 to 4 axes, got {axes}")
        sizes = [self.unpack(f"the shape of {field}", "<q") for _ in range(axes)]
        if min(sizes) < 1:
            raise self.error(field, f"must have positive sizes, got {sizes}")
        type_id = self.unpack(f"the type of {field}", "<I")
        return name, type_id, tuple(sizes[::-1]), self.unpack(f"the offset of {field}", "<Q")
