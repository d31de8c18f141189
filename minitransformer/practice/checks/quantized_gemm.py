"""Lesson 11: rows to 8 bits, two codes in a byte, an exact integer product, the blocks of a file."""

import numpy as np

from ...kernels.quantized_weight import QuantizedWeight
from . import Wrong, check, equal, forbid, frozen, parts

F32 = np.float32

forbid("11.1", "quantize_rows", "quantized_gemm")
forbid("11.3", "quantized_gemm")


def _rows(quantize_rows, x):
    """(codes, scales) of the answer, dtypes and shapes looked at."""
    x = frozen(np.asarray(x, F32))
    try:
        with np.errstate(divide="raise", invalid="raise"):
            codes, scales = parts("quantize_rows", quantize_rows(x), 2)
    except FloatingPointError as error:
        raise Wrong(f"a row of zeros has nothing to divide by: {error}\nx = {x.tolist()}") from None
    for name, got, dtype, shape in (("codes", codes, np.int8, x.shape), ("scales", scales, F32, x.shape[:-1])):
        if getattr(got, "dtype", None) != dtype or got.shape != shape:
            kind = f"{got.dtype} {got.shape}" if hasattr(got, "dtype") else type(got).__name__
            raise Wrong(f"{name} must be {np.dtype(dtype)} {shape}, got {kind}")
    return x, codes, scales


@check("11.1", "three numbers, on paper")
def _(quantize_rows):
    x, codes, scales = _rows(quantize_rows, [127, -50, 26.4])
    equal("codes", codes, np.array([127, -50, 26]), {"x": x}, exact=True)
    equal("scales", scales, F32(1), {"x": x})


@check("11.1", "rounded to the nearest, by the largest magnitude, row by row")
def _(quantize_rows):
    x, codes, scales = _rows(quantize_rows, [[-254, 3.5, 4.5, -3.5], [63.5, 0.2, -0.3, 20], [1, 127, -126.6, 0.6]])
    equal("codes", codes, np.array([[-127, 2, 2, -2], [127, 0, -1, 40], [1, 127, -127, 1]]), {"x": x}, exact=True)
    equal("scales", scales, np.array([2, 0.5, 1], F32), {"x": x})


@check("11.1", "rows of zeros, one row, no rows")
def _(quantize_rows):
    for x in (np.zeros((2, 3)), [[0, 0, 0, 0], [1, 2, 3, 127]], np.zeros((0, 5)), [0.0], np.zeros((2, 1, 3))):
        x, codes, scales = _rows(quantize_rows, x)
        equal("scales", scales, np.abs(x).max(-1) / F32(127), {"x": x})
        equal("codes", codes, np.rint(x).astype(int), {"x": x}, exact=True)


@check("11.1", "no number is off by more than half a step, any size, any axes")
def _(quantize_rows):
    rng = np.random.default_rng(0)
    for size in (1e-20, 1e-3, 1, 1e20):
        x, codes, scales = _rows(quantize_rows, size * rng.standard_normal((3, 2, 50)))
        equal("scales", scales, np.abs(x).max(-1) / F32(127), {"x": x})
        steps = np.abs(x.astype(float) / scales[..., None] - codes)
        if steps.max() > 0.5001 or np.abs(codes.astype(int)).max() > 127:
            raise Wrong(f"a number is off by {steps.max():.3f} steps; the nearest code is off by 0.5 at most")


# ---------------------------------------------------------------- 11.2 pack_int4


def _packed(pack_int4, codes):
    """The answer beside a loop over the codes, one at a time."""
    codes = frozen(np.asarray(codes))
    got = pack_int4(codes)
    if getattr(got, "dtype", None) != np.uint8:
        raise Wrong(f"bytes must be an array of uint8, got {getattr(got, 'dtype', type(got).__name__)}")
    expected = np.zeros((codes.shape[0], codes.shape[1] // 2), np.uint8)
    for n, k in np.ndindex(codes.shape):
        expected[n, 16 * (k // 32) + k % 16] |= int(codes[n, k]) << (4 if k % 32 >= 16 else 0)
    equal("bytes", got, expected, {"codes": codes}, exact=True)


@check("11.2", "one block: 0 to 15, then 15 to 0")
def _(pack_int4):
    _packed(pack_int4, [[*range(16), *range(15, -1, -1)]])


@check("11.2", "two blocks, two rows, no rows")
def _(pack_int4):
    rng = np.random.default_rng(1)
    for shape in ((1, 64), (2, 32), (3, 96), (0, 32)):
        _packed(pack_int4, rng.integers(0, 16, shape))


@check("11.2", "a bijection: all 256 pairs, in every byte of a block")
def _(pack_int4):
    pairs = np.arange(256)
    _packed(
        pack_int4, np.concatenate([np.repeat(pairs[:, None] % 16, 16, 1), np.repeat(pairs[:, None] // 16, 16, 1)], 1)
    )


@check("11.2", "what the package reads from it")
def _(pack_int4):
    codes = np.random.default_rng(2).integers(0, 16, (4, 64)).astype(np.uint8)
    blocks = np.zeros((4, 2), [("d", "<f2"), ("codes", "u1", 16)])
    blocks["d"], blocks["codes"] = 0.5, np.asarray(pack_int4(frozen(codes))).reshape(4, 2, 16)
    read = QuantizedWeight.from_gguf(blocks.tobytes(), "q4_0", (4, 64)).dequantize()
    equal("weights that the package reads", read, (0.5 * (codes - 8.0)).astype(F32), {"codes": codes}, exact=True)


# ---------------------------------------------------------------- 11.3 integer_product


def _product(integer_product, q, s, c, d, exact=True):
    """Against Python's integers. With powers of two for scales and small sums, float32 holds all of it exactly."""
    q, c = (frozen(np.asarray(codes, np.int8)) for codes in (q, c))
    s, d = (frozen(np.asarray(scales, F32)) for scales in (s, d))
    width, y = q.shape[1] // d.shape[1], np.zeros((len(q), len(c)))
    for m, n in np.ndindex(y.shape):
        for g in range(d.shape[1]):
            codes = zip(q[m, g * width : (g + 1) * width].tolist(), c[n, g * width : (g + 1) * width].tolist())
            y[m, n] += sum(a * b for a, b in codes) * float(d[n, g]) * float(s[m])
    equal("y", integer_product(q, s, c, d), y.astype(F32), {"q": q, "s": s, "c": c, "d": d},
          terms=d.shape[1], condition=1e2, exact=exact)  # fmt: skip


@check("11.3", "three numbers, on paper: 12,979")
def _(integer_product):
    _product(integer_product, [[127, 50, -25]], [1], [[127, -50, 26]], [[1]])


@check("11.3", "two rows, two columns, two groups")
def _(integer_product):
    _product(
        integer_product, [[1, 2, 3, 4], [-1, 0, 5, 1]], [2, 0.5], [[1, 1, 2, 2], [3, -1, 0, 4]], [[1, 4], [0.25, 8]]
    )


@check("11.3", "all codes at the extremes: nothing may overflow")
def _(integer_product):
    for a, b in ((127, 127), (-128, 127), (-128, -128)):
        _product(integer_product, np.full((1, 512), a), [1], np.full((2, 512), b), [[1], [2]])


@check("11.3", "many shapes, exactly")
def _(integer_product):
    rng = np.random.default_rng(3)
    for M, N, K, G in ((1, 1, 1, 1), (2, 3, 8, 4), (5, 4, 96, 3), (3, 7, 64, 2), (0, 2, 4, 1)):
        q, c = rng.integers(-128, 128, (M, K)), rng.integers(-128, 128, (N, K))
        _product(integer_product, q, 2.0 ** rng.integers(-3, 4, M), c, 2.0 ** rng.integers(-2, 3, (N, G)))


@check("11.3", "the codes and scales of real matrices")
def _(integer_product):
    rng = np.random.default_rng(4)
    q, c = rng.integers(-127, 128, (4, 64)), rng.integers(-8, 8, (6, 64))
    _product(integer_product, q, rng.uniform(0.001, 0.1, 4), c, rng.uniform(0.01, 1, (6, 2)), exact=False)


# ---------------------------------------------------------------- 11.4 decode_q4_1


def _decoded(decode_q4_1, d, b, codes):
    d, b, codes = np.asarray(d, np.float16), np.asarray(b, np.float16), np.asarray(codes)
    data = b"".join(
        d[n].tobytes() + b[n].tobytes() + bytes(int(codes[n, j]) | int(codes[n, j + 16]) << 4 for j in range(16))
        for n in range(len(d))
    )
    expected = d.astype(F32)[:, None] * codes.astype(F32) + b.astype(F32)[:, None]
    equal("weights", decode_q4_1(data), expected.reshape(-1), {"data": data.hex(" ")}, exact=True)


@check("11.4", "one block: 0 to 15, then 15 to 0")
def _(decode_q4_1):
    _decoded(decode_q4_1, [0.25], [-2], [[*range(16), *range(15, -1, -1)]])


@check("11.4", "blocks of their own scales and minima, to the last bit")
def _(decode_q4_1):
    rng = np.random.default_rng(5)
    for blocks in (1, 2, 7):
        codes = rng.integers(0, 16, (blocks, 32))
        _decoded(decode_q4_1, 2.0 ** rng.integers(-6, 3, blocks) * 1.25, rng.integers(-40, 40, blocks) / 8, codes)


@check("11.4", "what the package wrote")
def _(decode_q4_1):
    w = np.random.default_rng(6).standard_normal((3, 64)).astype(F32)
    weight = QuantizedWeight.quantize(w, "q4_1")
    equal("weights", decode_q4_1(weight.data.tobytes()), weight.dequantize().reshape(-1), {"w": w}, terms=2)


@check("11.4", "a file that was cut off is refused")
def _(decode_q4_1):
    try:
        got = decode_q4_1(bytes(50))
    except ValueError:
        return
    raise Wrong(f"50 bytes are two blocks and a half: ValueError expected, got {got!r}")
