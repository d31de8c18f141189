"""Philox against the known answers that its authors publish with the Random123 library (philox 4×32-10)."""

import numpy as np
import pytest

from minitransformer.kernels.numpy.random import philox, random_bits

ONES = 0xFFFFFFFF
KNOWN = [  # counter, key, answer
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    words = philox([np.array([word], np.uint64) for word in counter], key)
    assert tuple(int(word[0]) for word in words) == answer


@pytest.mark.parametrize("kernel_set", ["numpy", "native"])
def test_first_known_answer_through_the_routine(kernel_set, implementations):
    bits = implementations(kernel_set)["random_bits"](0, 0, 4)
    assert bits.dtype == np.uint32
    assert tuple(map(int, bits)) == KNOWN[0][2]


@pytest.mark.parametrize("kernel_set", ["numpy", "native"])
def test_any_part_of_the_stream_stands_by_itself(kernel_set, implementations):
    draw = implementations(kernel_set)["random_bits"]
    whole = draw(99, 2**64 - 20, 400)  # over the end of the counter, which wraps round
    for start in (0, 1, 19, 20, 57):
        part = draw(99, (2**64 - 20 + start) % 2**64, 37)
        assert np.array_equal(part, whole[4 * start : 4 * start + 37])


def test_native_is_numpy_bit_for_bit(implementations):
    native = implementations("native")["random_bits"]
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 63, 64, 65, 100_003):
        key, offset = (int(k) for k in rng.integers(0, 2**64, 2, dtype=np.uint64))
        assert np.array_equal(native(key, offset, count), random_bits(key, offset, count))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_the_same_in_both(dtype, implementations):
    x = np.random.default_rng(1).standard_normal((37, 211)).astype(dtype)
    for p in (0.1, 0.5, 1 / 3, 2**-32, 1 - 2**-33):
        numpy, native = (implementations(which)["dropout"](x, p, 2**63 + 5, 11) for which in ("numpy", "native"))
        assert np.array_equal(numpy, native)


def test_bits_are_balanced_and_keys_differ():
    bits = random_bits(3, 0, 1 << 16)
    ones = np.unpackbits(bits.view(np.uint8)).reshape(-1, 32).sum(axis=0).astype(int)
    assert np.all(np.abs(ones - 2**15) < 6 * 2**7)  # σ = √(2¹⁶)/2 = 2⁷
    assert np.mean(bits == random_bits(4, 0, 1 << 16)) < 1e-3
