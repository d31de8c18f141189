"""The GGUF reader: what it reads is what was written, and a file that lies is refused before anything is made of it."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.kernels.quantized_weight import QuantizedWeight
from minitransformer.weights import GGUFError, open_gguf

from . import gguf_file as made

TYPE_IDS = {"float16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 8, "bfloat16": 30}


@pytest.fixture
def opened(tmp_path):
    def call(data):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return open_gguf(path)

    return call


def test_metadata_of_every_kind(tmp_path):
    metadata = {
        "a.string": "naïve 你好", "an.int": 7, "a.float": 0.5, "a.bool": True, "none": "",
        "words": ["", "one", "两"], "numbers": [1, 2, 3], "flags": [True, False], "nothing": [],
    }  # fmt: skip
    found = open_gguf(made.write(tmp_path / "m.gguf", metadata, {})).metadata
    assert list(found) == list(metadata)
    for key, expected in metadata.items():
        np.testing.assert_array_equal(found[key], expected)
        assert isinstance(found[key], (type(expected), np.ndarray)), key


@pytest.mark.parametrize("format", TYPE_IDS)
def test_blocks_are_read_as_they_are(tmp_path, format):
    w = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    weight = QuantizedWeight.quantize(w, format)
    tensors = {
        "norm": made.float32(w[0]),
        "weight": (TYPE_IDS[format], w.shape, weight.data.tobytes()),
        "cube": made.float32(w.reshape(5, 8, 8)),
    }
    file = open_gguf(made.write(tmp_path / "m.gguf", {"general.alignment": 64}, tensors, alignment=64))
    assert file.weight("weight").format == format and file.weight("weight").shape == w.shape
    np.testing.assert_array_equal(file.weight("weight").data, weight.data)
    np.testing.assert_array_equal(file.array("weight"), weight.dequantize())
    np.testing.assert_array_equal(file.array("norm"), w[0])
    np.testing.assert_array_equal(file.array("cube"), w.reshape(5, 8, 8))
    assert np.shares_memory(file.array("norm"), file.data), "F32 is a view of the map"
    assert np.shares_memory(file.weight("weight").data, file.data), "so are blocks"


def test_the_file_never_changes(tmp_path):
    path = made.write(tmp_path / "m.gguf", {}, {"w": made.float32(np.ones(4))})
    before = path.read_bytes()
    open_gguf(path).array("w")[:] = 5
    assert path.read_bytes() == before


F32 = made.float32(np.ones((2, 4)))[2]
INFO = made.tensor_info("w", (2, 4), 0, 0)
HUGE = 2**63 - 1
LIES = {
    "empty": (b"", "0 bytes"),
    "header only in part": (b"GGUF\3\0\0\0", "8 bytes"),
    "magic": (made.file_of([], [], magic=b"GGML"), "b'GGML'"),
    "version 0": (made.file_of([], [], version=0), "must be 2 or 3, got 0"),
    "version 1": (made.file_of([], [], version=1), "must be 2 or 3, got 1"),
    "a future version": (made.file_of([], [], version=4), "got 4"),
    "big-endian": (made.file_of([], [], version=3 << 24), "big-endian"),
    "tensors -1": (made.file_of([], [], tensors=-1), "the number of tensors"),
    "tensors huge": (made.file_of([], [], tensors=HUGE), "the number of tensors"),
    "entries -1": (made.file_of([], [], count=-1), "the number of metadata entries"),
    "43 bytes with endless entries": (made.file_of([made.entry("k", 1)], [], count=2**40)[:43], "number of metadata"),
    "one entry more than there are": (made.file_of([made.entry("k" * 30, 1)], [], count=2), "entry 1"),
    "key length -1": (made.file_of([struct.pack("<q", -1) + bytes(40)], []), "key of entry 0"),
    "key empty": (made.file_of([made.entry("", 1)], []), "key of entry 0"),
    "key no UTF-8": (made.file_of([made.entry(b"\xff\xfe", 1)], []), "UTF-8"),
    "key twice": (made.file_of([made.entry("k", 1), made.entry("k", 2)], []), "'k' is given twice"),
    "value of unknown type": (made.file_of([made.entry("k", raw=(13, bytes(8)))], []), "number 13"),
    "string that lies": (made.file_of([made.entry("k", raw=(8, struct.pack("<Q", HUGE)))], []), "cut short"),
    "string no UTF-8": (made.file_of([made.entry("k", b"\xc3(")], []), "'k' is no UTF-8"),
    "bool 2": (made.file_of([made.entry("k", raw=(7, b"\2"))], []), "boolean"),
    "array of unknown type": (made.file_of([made.entry("k", raw=(9, struct.pack("<IQ", 77, 1) + bytes(9)))], []), "77"),
    "array of arrays": (made.file_of([made.entry("k", raw=(9, struct.pack("<IQ", 9, 1) + bytes(20)))], []), "number 9"),
    "array too long": (made.file_of([made.entry("k", raw=(9, struct.pack("<IQ", 10, 2**61)))], []), "cut short"),
    "strings too many": (made.file_of([made.entry("k", raw=(9, struct.pack("<IQ", 8, 2**61)))], []), "cut short"),
    "alignment 0": (made.file_of([made.entry("general.alignment", 0)], []), "general.alignment"),
    "alignment 48": (made.file_of([made.entry("general.alignment", 48)], []), "general.alignment"),
    "alignment a string": (made.file_of([made.entry("general.alignment", "32")], []), "general.alignment"),
    "tensor name empty": (made.file_of([], [made.tensor_info("", (2,), 0, 0)], F32), "name of tensor 0"),
    "tensor name lies": (made.file_of([], [struct.pack("<Q", HUGE) + bytes(40)], F32), "name of tensor 0"),
    "no axes": (made.file_of([], [made.tensor_info("w", (), 0, 0) + bytes(9)], F32), "1 to 4 axes, got 0"),
    "five axes": (made.file_of([], [made.tensor_info("w", (1,) * 5, 0, 0)], F32), "got 5"),
    "axes -1": (made.file_of([], [made.tensor_info("w", (2, 4), 0, 0, axes=2**32 - 1)], F32), "axes"),
    "size -1": (made.file_of([], [made.tensor_info("w", (2, -1), 0, 0)], F32), "positive sizes"),
    "size 0": (made.file_of([], [made.tensor_info("w", (2, 0), 0, 0)], F32), "positive sizes"),
    "product overflows": (made.file_of([], [made.tensor_info("w", (2**62, 4), 0, 0)], F32), "the file ends at"),
    "2^42 + 1": (made.file_of([], [made.tensor_info("w", (2**42 + 1,), 0, 0)], F32), "the file ends at"),
    "type unknown": (made.file_of([], [made.tensor_info("w", (2, 4), 4, 0)], F32), "number 4"),
    "blocks do not fit": (made.file_of([], [made.tensor_info("w", (2, 4), 3, 0)], F32), "blocks of 32"),
    "offset odd": (made.file_of([], [made.tensor_info("w", (2, 2), 0, 8)], F32), "multiple of the alignment"),
    "offset outside": (made.file_of([], [made.tensor_info("w", (2, 4), 0, 32)], F32), "the file ends at"),
    "offset -32": (made.file_of([], [made.tensor_info("w", (2, 4), 0, 2**64 - 32)], F32), "the file ends at"),
    "data cut": (made.file_of([], [INFO], F32[:-1]), "the file ends at"),
    "tensor twice": (made.file_of([], [INFO, made.tensor_info("w", (2, 4), 0, 32)], 2 * F32), "'w' is given twice"),
    "tensors overlap": (made.file_of([], [INFO, made.tensor_info("v", (2, 4), 0, 0)], 2 * F32), "overlaps"),
    "tensors overlap in part": (
        made.file_of([], [made.tensor_info("a", (16,), 0, 0), made.tensor_info("b", (8,), 0, 32)], 2 * F32), "overlaps",
    ),
    "two sizes whose sum overflows": (
        made.file_of([], [made.tensor_info(n, (0x7FFFFFFFFFFFFFC0,), 24, 0) for n in "ab"], F32), "the file ends at",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_in_one_line(opened, lie):
    data, said = LIES[lie]
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError) as caught:
            opened(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20, "nothing large was made of what the file says"
    finally:
        tracemalloc.stop()
    assert said in str(caught.value) and "model.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_missing_or_not_read_is_named(tmp_path):
    tensors = {"k": (12, (1, 256), bytes(144)), "v": made.float32(np.ones(3))}
    file = open_gguf(made.write(tmp_path / "m.gguf", {}, tensors))
    with pytest.raises(GGUFError, match="'q' is missing"):
        file.weight("q")
    with pytest.raises(GGUFError, match="of type Q4_K"):
        file.weight("k")
    with pytest.raises(GGUFError, match="of type Q4_K"):
        file.array("k")
    with pytest.raises(GGUFError, match="of type F32"):
        file.weight("v")
    with pytest.raises(GGUFError, match="no GGUF file"):
        open_gguf(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_gguf(tmp_path / "none.gguf")


HONEST = made.file_of(
    [made.entry("general.alignment", 32), made.entry("words", ["a", "bc"]), made.entry("numbers", [1, 2, 3])],
    [INFO, made.tensor_info("q", (1, 32), 3, 32)], F32 + bytes(range(20)),
)  # fmt: skip
TELLING = [b"\xff", b"\0", b"\x7f" + b"\xff" * 7, b"\xff" * 8, b"\1" + b"\0" * 7]  # -1, 0, the largest, 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    """Whatever bytes change: a file, or a GGUFError, and tensors that lie inside; never another exception."""
    damaged = bytearray(HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(HONEST) - 9))
        raw = data.draw(st.sampled_from(TELLING) | st.binary(min_size=1, max_size=8))
        damaged[at : at + len(raw)] = raw
    damaged = bytes(damaged[: data.draw(st.integers(0, len(HONEST)))] if data.draw(st.booleans()) else damaged)
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(damaged)
    try:
        file = open_gguf(path)
    except GGUFError as error:
        assert "damaged.gguf" in str(error)
        return
    for tensor in file.tensors.values():
        assert len(file.bytes(tensor.name)) == tensor.nbytes
