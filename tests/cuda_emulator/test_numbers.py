"""half and bfloat16 against NumPy's, bit for bit; vectors; intrinsics."""

import math

import ml_dtypes
import numpy as np


def floats():
    """Every exponent, ties and their neighbours, and what is special."""
    bits = np.random.default_rng(4).integers(0, 2**32, 20000, dtype=np.uint32)
    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        ties = (every_half[:-1].astype(float) + every_half[1:]).astype(np.float32) / 2
    special = np.float32(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 2**-24, 2**-25, 2**-26, 3.4e38, 1e-45]
    )
    values = [bits.view(np.float32), every_half, ties, np.nextafter(ties, np.float32(np.inf)), special]
    return np.concatenate([*values, (np.arange(2**16, dtype=np.uint32) << 16 | 0x8000).view(np.float32)])


def same(a, b):
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def test_conversions(module):
    x = floats()
    n = x.size
    h, b = np.zeros(n, np.float16), np.zeros(n, ml_dtypes.bfloat16)
    from_h, from_b = np.zeros((2, n), np.float32)
    module("numbers.cu").get_function("convert")((-(-n // 256),), (256,), (x, h, b, from_h, from_b, np.int32(n)))
    with np.errstate(over="ignore", invalid="ignore"):
        assert same(h, x.astype(np.float16)).all() and same(b, x.astype(ml_dtypes.bfloat16)).all()
    assert same(from_h, h.astype(np.float32)).all() and same(from_b, b.astype(np.float32)).all()


def test_half_arithmetic(launch):
    x, y = np.random.default_rng(5).standard_normal((2, 200)).astype(np.float16)
    z = np.zeros((6, 200), np.float16)
    launch("numbers.cu", "half_arithmetic", (1,), (200,), (x, y, z))
    fma = (x.astype(float) * y + x).astype(np.float32).astype(np.float16)
    assert (z == np.stack([x + y, x * y, fma, x + np.float16(1), y + np.float16(1), np.minimum(x, y)])).all()


def test_vectors_and_dp4a(launch):
    rng = np.random.default_rng(6)
    x, u = rng.standard_normal((32, 4)).astype(np.float32), rng.integers(0, 256, (32, 4)).astype(np.uint8)
    y, dots = np.zeros_like(x), np.zeros(32, np.int32)
    launch("numbers.cu", "vectors", (1,), (32,), (x, y, u, dots))
    assert (y == np.stack([x[:, 0] + x[:, 1], x[:, 2], x[:, 1], x[:, 0]], 1)).all()
    assert (dots == 1000 + u.view(np.int8).astype(int) @ [3, 2, -1, 1]).all()


def test_integers(launch):
    x = np.random.default_rng(7).integers(-(2**31), 2**31, 500).astype(np.int32)
    special = np.float32([np.nan, np.inf, -np.inf, 2.5, 3.5, -2.5, 3e9, -3e9]).view(np.int32)
    x = np.concatenate([x, np.int32([0, 1, -1, -(2**31)]), special])
    y = np.zeros((8, x.size), np.int32)
    launch("numbers.cu", "integers", (1,), (x.size,), (x, y))
    u = [int(v) & 0xFFFFFFFF for v in x]
    as_floats = np.nan_to_num(x.view(np.float32), posinf=3e38, neginf=-3e38).tolist()
    expected = [
        [v.bit_count() for v in u],
        [32 - v.bit_length() for v in u],
        [(v & -v).bit_length() for v in u],
        [int(f"{v:032b}"[::-1], 2) for v in u],
        [min(max(round(f), -(2**31)), 2**31 - 1) for f in as_floats],
        [v * 0x9E3779B9 >> 32 for v in u],
        [int(v) * -12345 >> 32 for v in x],
        [0x11 | (v & 0xFF) << 8 | (v >> 16 & 0xFF) << 16 | 0x44000000 for v in u],  # bytes 4, 0, 2, 7 of the two
    ]
    assert (y.view(np.uint32) == np.array([[e & 0xFFFFFFFF for e in row] for row in expected], np.uint32)).all()


def test_functions_are_overloaded_for_floats(launch):
    x = np.random.default_rng(8).uniform(0.1, 3, 100).astype(np.float32)
    y, sizes = np.zeros((9, 100), np.float32), np.zeros(9, np.int32)
    launch("numbers.cu", "overloads", (1,), (100,), (x, y, sizes))
    d = x.astype(float)
    erf = np.vectorize(math.erf)(d)
    expected = [d, np.exp(d), np.log(d), np.sqrt(d), d**d, np.floor(d), np.tanh(d), erf, 1 / np.sqrt(d)]
    assert (sizes == 4).all()
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(np.float32).eps, atol=0)
