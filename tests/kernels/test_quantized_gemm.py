"""Weights in few bits: every code, every byte, exact sums at the extremes, and what bad input leads to."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import kernels
from minitransformer.kernels import Unsupported, native, quantized_gemm
from minitransformer.kernels.numpy import quantized_gemm as definition
from minitransformer.kernels.quantized_weight import FORMATS, HALVES, QuantizedWeight

from .cases import CASES
from .tolerance import compare

F32 = np.float32
KINDS = [(format, group) for format, (_, groups, _) in FORMATS.items() for group in groups or (None,)]
INTEGERS = [(format, group) for format, group in KINDS if format not in HALVES]


def weight_of(format, group=None, N=37, K=256, seed=0):
    w = np.random.default_rng(seed).standard_normal((N, K)).astype(F32)
    return QuantizedWeight.quantize(w, format, group)


# ---------------------------------------------------------------- packing


@pytest.mark.parametrize(("format", "group"), KINDS)
def test_packing_is_a_bijection_over_all_bytes_at_every_place(format, group):
    """256 rows, in which every byte of a block takes every value once: into panels and back, nothing is lost."""
    for N, K in ((256, 128), (259, 256)):
        size = weight_of(format, group, 1, K).data.size
        rows = (np.arange(N)[:, None] + 37 * np.arange(size)).astype(np.uint8)
        if format == "int4_zero":
            zeros = QuantizedWeight(format, (1, K), np.zeros(size, np.uint8), group)
            zeros.view()["zero"] = 255
            rows[:, zeros.data == 255] &= 15
        weight = QuantizedWeight(format, (N, K), rows.reshape(-1), group)
        packed = weight.panels()
        fresh = QuantizedWeight(format, (N, K), packed.data, group, "panels")  # knows nothing of `weight`
        assert np.array_equal(fresh.rows().data, weight.data)
        assert packed.data.size >= weight.data.size and not np.array_equal(packed.data[: size * N], weight.data)
        if format not in HALVES:
            assert np.array_equal(fresh.decode()[0], weight.decode()[0])


@pytest.mark.parametrize("zero", range(16))
def test_all_codes_mean_what_the_table_says(zero):
    """By hand: byte j of 16 holds code j in its low half and code j + 16 in its high half."""
    low, high = np.arange(16, dtype=np.uint8), np.arange(16, dtype=np.uint8)[::-1]
    scale = np.array([0.5], np.float16).view(np.uint8)
    minimum = np.array([-3.25], np.float16).view(np.uint8)
    codes = np.concatenate([low, high]).astype(F32)
    for format, head, expected in (
        ("q4_0", [scale], 0.5 * (codes - 8)),
        ("int4", [scale], 0.5 * (codes - 8)),
        ("int4_zero", [scale, [zero]], 0.5 * (codes - zero)),
        ("q4_1", [scale, minimum], 0.5 * codes - 3.25),
    ):
        data = np.concatenate([*head, low | high << 4]).astype(np.uint8)
        assert np.array_equal(QuantizedWeight(format, (1, 32), data).dequantize()[0], expected), format


def test_all_8_bit_codes_mean_what_the_table_says():
    codes = np.arange(-128, 128, dtype=np.int8)
    blocks = np.zeros(8, [("d", "<f2"), ("q", "i1", 32)])
    blocks["d"], blocks["q"] = 0.25, codes.reshape(8, 32)
    assert np.array_equal(QuantizedWeight.from_gguf(blocks, "q8_0", (1, 256)).dequantize()[0], 0.25 * codes)
    data = np.concatenate([np.array([0.25], F32).view(np.uint8), codes.view(np.uint8)])
    assert np.array_equal(QuantizedWeight("int8", (1, 256), data).dequantize()[0], 0.25 * codes)


@pytest.mark.parametrize(("format", "group"), KINDS)
def test_quantising_errs_by_half_a_step_at_most(format, group):
    w = np.random.default_rng(3).standard_normal((40, 256)).astype(F32) + F32(0.2)
    weight = QuantizedWeight.quantize(w, format, group)
    if format in HALVES:
        assert np.array_equal(weight.dequantize(), w.astype(HALVES[format]).astype(F32))
        return
    _, scales, _ = weight.decode()
    step = np.repeat(np.abs(scales), weight.group, axis=1)
    error = np.abs(weight.dequantize() - w) / step
    # What is not a code: +8 of the symmetric 4-bit formats, ends moved by the rounding of zero-point and scale.
    assert error.max() < (1.01 if FORMATS[format][0] == 4 else 0.501)
    assert np.quantile(error, 0.95) < 0.501
    assert np.array_equal(QuantizedWeight.quantize(np.zeros((3, 256)), format, group).dequantize(), np.zeros((3, 256)))


def test_gguf_blocks_are_read_where_they_lie(tmp_path):
    weight = weight_of("q4_1")
    path = tmp_path / "blocks"
    weight.data.tofile(path)
    mapped = np.memmap(path, np.uint8, "r")
    read = QuantizedWeight.from_gguf(mapped, "q4_1", weight.shape)
    assert np.shares_memory(read.data, mapped) and not read.data.flags.writeable
    x = np.random.default_rng(0).standard_normal((3, 256)).astype(F32)
    for inputs in ("float", "int8"):
        assert np.array_equal(quantized_gemm(x, read, inputs=inputs), quantized_gemm(x, weight, inputs=inputs))
    with pytest.raises(TypeError, match="data must be contiguous bytes"):
        QuantizedWeight.from_gguf(mapped[::2], "q4_1", weight.shape)


# ---------------------------------------------------------------- exact integers


def extremes(gemm):
    """-128, -127 and 127 against ±127, all of one sign too: where a saturating instruction would go wrong."""
    rng = np.random.default_rng(5)
    for format, group in INTEGERS:
        bits, (N, K) = FORMATS[format][0], (35, 512)
        weight = QuantizedWeight.quantize(np.zeros((N, K)), format, group)
        blocks = weight.view()
        blocks["scale"] = 1
        if format == "int4_zero":
            blocks["zero"] = rng.integers(0, 16, blocks["zero"].shape)
        if format == "q4_1":
            blocks["minimum"] = rng.integers(-3, 4, blocks["minimum"].shape)
        ends = np.array([-128, -127, 127, -1] if bits == 8 else [0x00, 0xFF, 0xF0, 0x0F])
        blocks["codes"] = rng.choice(ends, blocks["codes"].shape).astype(blocks["codes"].dtype)
        blocks["codes"][0], blocks["codes"][1] = ends[0], ends[1 if bits == 4 else 2]
        w = weight.dequantize(np.float64).astype(np.int64)
        assert len(np.unique(w)) > 1
        for M in (1, 2, 7, 16, 40):
            x = rng.choice([-127, 127, 126, 0], (M, K))
            x[0] = 127
            if M > 1:
                x[1] = -127
            exact = (x.astype(np.int64) @ w.T).astype(F32)
            for held in (weight, weight.panels()):
                y = gemm(x.astype(F32), held, None, None, "int8", 1.0)
                assert np.array_equal(y, exact), (format, group, M, held.layout)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16"])
def test_integer_sums_are_exact_at_the_extremes(isa, implementations):
    implementations("native")
    if isa not in native._extension.isas():
        pytest.skip(f"this CPU does not run {isa}")
    program = f"from {__name__} import *; extremes(native.ROUTINES['quantized_gemm']); print(native.isa())"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MINITRANSFORMER_ISA": isa},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == isa


def test_the_longest_sum_that_fits_32_bits_and_the_next(implementations):
    K = 2**17
    weight = QuantizedWeight("int8", (1, K), np.full(4 + K, 128, np.uint8))  # all -128
    weight.view()["scale"] = 1
    x = np.full((1, K), 127, F32)
    for gemm in (implementations("native")["quantized_gemm"], definition.quantized_gemm):
        assert gemm(x, weight, None, None, "int8", 1.0) == F32(-128 * 127 * K)
    longer = QuantizedWeight.quantize(np.ones((1, K + 1), F32), "int8")
    with pytest.raises(Unsupported, match="32 bits"):
        implementations("native")["quantized_gemm"](np.ones((1, K + 1), F32), longer, None, None, "int8")
    assert quantized_gemm(np.ones((1, K + 1), F32), longer, inputs="int8") == pytest.approx(K + 1, rel=1e-6)


@pytest.mark.parametrize(("format", "group"), KINDS)
def test_neither_the_layout_nor_the_other_rows_change_a_bit(format, group, implementations):
    gemm, weight = implementations("native")["quantized_gemm"], weight_of(format, group)
    x = np.random.default_rng(1).standard_normal((50, 256)).astype(F32)
    for inputs in ("float",) if format in HALVES else ("float", "int8"):
        whole = gemm(x, weight, inputs=inputs)
        assert np.array_equal(gemm(x, weight.panels(), inputs=inputs), whole)
        for rows in (slice(0, 1), slice(7, 9), slice(30, 46), slice(49, 50)):
            assert np.array_equal(gemm(x[rows], weight.panels(), inputs=inputs), whole[rows])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(KINDS), st.integers(0, 40), st.integers(0, 70), st.integers(0, 5), st.booleans(),
    st.sampled_from(["float", "int8"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_shape_agrees_with_the_definition(kind, M, N, K, in_panels, inputs, seed):
    if kernels.available()["native"]:
        pytest.skip(kernels.available()["native"])
    (format, group), rng = kind, np.random.default_rng(seed)
    K = K * (group or 19)
    weight = QuantizedWeight.quantize(rng.standard_normal((N, K)).astype(F32), format, group)
    inputs = "float" if format in HALVES else inputs
    x = rng.standard_normal((M, K)).astype(F32)
    with kernels.use("native", strict=True):
        y = quantized_gemm(x, weight.panels() if in_panels else weight, inputs=inputs)
    expected = definition.quantized_gemm(x.astype(np.float64), weight, inputs=inputs)
    size = np.abs(x).astype(np.float64) @ np.abs(weight.dequantize(np.float64)).T
    if format == "q4_1":  # two terms, which may cancel
        size += 15 * np.abs(x).sum(-1, keepdims=True)
    elif inputs == "int8":  # x is rounded by up to half a step
        size *= 2
    assert y.shape == (M, N) and (np.abs(y - expected) <= 3 * 2**-23 * max(K, 1) ** 0.5 * size).all()


# ---------------------------------------------------------------- planted bugs


def _with(weight, change):
    """The same weight, but decoded by somebody who makes a mistake."""
    wrong = QuantizedWeight(weight.format, weight.shape, weight.data, weight.group, weight.layout)
    vars(wrong)["decode"] = lambda: change(*weight.decode())
    return wrong


def _other_scale(integers, scales, minima):
    return integers, np.roll(scales, 1, axis=1), minima


def _swapped(weight):
    if FORMATS[weight.format][0] != 4:
        return weight
    blocks = QuantizedWeight(weight.format, weight.shape, weight.rows().data.copy(), weight.group)
    blocks.view()["codes"] = blocks.view()["codes"] >> 4 | blocks.view()["codes"] << 4
    return blocks


def _saturating(codes, weight, wide):
    """Pairs of products added up in 16 bits, as vpmaddubsw does, which wants one side unsigned: codes + 128."""
    if FORMATS[weight.format][0] != 8:
        return _exact(codes, weight, wide)
    integers, scales, _ = weight.decode()
    _, groups, group = integers.shape
    x = codes.reshape(*codes.shape[:-1], 1, groups, group).astype(int)
    products = x * (integers.astype(int) + 128)
    odd = products[..., 1::2] if group % 2 == 0 else np.append(products[..., 1::2], 0 * products[..., :1], -1)
    sums = (products[..., ::2] + odd).clip(-(2**15), 2**15 - 1).sum(-1) - 128 * x.sum(-1)
    return (sums * scales).sum(-1).astype(wide)


_exact = definition._integer_product
MISTAKES = {
    "the zero-point forgotten": lambda w: _with(w, lambda i, s, m: (i + np.int8(8), s, m)),
    "the scale of the next group": lambda w: _with(w, _other_scale),
    "the halves of a byte swapped": _swapped,
    "the sign": lambda w: _with(w, lambda i, s, m: (-i, s, m)),
    "the minimum forgotten": lambda w: _with(w, lambda i, s, m: (i, s, None)),
}


def _rejected(implementation):
    generator = CASES["quantized_gemm"](np.random.default_rng(11), np.dtype(F32))
    return any(compare("quantized_gemm", implementation, case, np.dtype(F32)) > 1 for case in generator)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_reading_of_the_weight_is_rejected(mistake):
    def implementation(x, weight, *args, **options):
        if weight.format not in HALVES:
            weight = MISTAKES[mistake](weight)
        return definition.quantized_gemm(x, weight, *args, **options)

    assert _rejected(implementation)


def test_a_static_scale_that_is_ignored_is_rejected():
    def dynamic(x, weight, bias, **options):
        return definition.quantized_gemm(x, weight, bias, **options | {"input_scale": None})

    assert _rejected(dynamic) and not _rejected(definition.quantized_gemm)


def test_a_saturating_sum_is_rejected():
    """By the cases, and by the extremes alone."""

    def saturating(*args, **options):
        with mock.patch.object(definition, "_integer_product", _saturating):
            return definition.quantized_gemm(*args, **options)

    assert _rejected(saturating)
    extremes(definition.quantized_gemm)
    with pytest.raises(AssertionError, match="int8"):
        extremes(saturating)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("kernel_set", ["numpy", "native"])
def test_nan_and_infinity_stay_in_their_row(kernel_set, implementations):
    routines = implementations(kernel_set)
    x = np.random.default_rng(0).standard_normal((30, 256)).astype(F32)
    x[3, 5], x[9, 200], x[10, 0] = np.nan, np.inf, -np.inf
    codes, scales = routines["quantize_rows"](x)
    assert not codes[[3, 9, 10]].any() and np.isnan(scales[[3, 9, 10]]).all() and np.isfinite(scales[:3]).all()
    for options in ({}, {"input_scale": 0.1}, {"activation": "relu"}):
        y = routines["quantized_gemm"](x, weight_of("q4_1"), inputs="int8", **options)
        assert np.isnan(y[[3, 9, 10]]).all() and np.isfinite(np.delete(y, [3, 9, 10], 0)).all()


def test_a_corrupted_weight_names_itself():
    weight = weight_of("q4_0")
    make, N, K = QuantizedWeight, *weight.shape
    for data in (weight.data[:-1], np.append(weight.data, np.uint8(0)), weight.data[:0]):
        with pytest.raises(ValueError, match=rf"data must have {weight.data.size} bytes .* got {data.size}"):
            make("q4_0", (N, K), data)
        with pytest.raises(ValueError, match="data must have"):
            make.from_gguf(data.tobytes(), "q4_0", (N, K))
    for data in (weight.data.view(np.int8), weight.data[None], b"abc", None):
        with pytest.raises(TypeError, match="data must be an array of uint8"):
            make("q4_0", (N, K), data)
    with pytest.raises(ValueError, match="data must be contiguous"):
        make("q4_0", (N, K), np.repeat(weight.data, 2)[::2])
    with pytest.raises(ValueError, match="zero-point above 15"):
        make("int4_zero", (1, 32), np.full(19, 16, np.uint8))
    for shape in ((2**62, 2**62), (2**40, 2**40), (2**63, 32)):
        with pytest.raises(ValueError, match="data must have"):
            make("q4_0", shape, weight.data)
        with pytest.raises(ValueError, match="data must have"):
            make("float16", shape, weight.data, layout="panels")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": "q5_0"}, ValueError, "format must be one of"),
        ({"shape": (-1, 32)}, ValueError, "shape must not be negative"),
        ({"shape": (2.0, 32)}, TypeError, "shape must be two integers"),
        ({"shape": (32,)}, TypeError, "shape must be two integers"),
        ({"shape": (1, 33)}, ValueError, "group 32 does not divide K = 33"),
        ({"group": 64}, ValueError, "group 64 does not divide K = 32"),
        ({"group": 48}, ValueError, "group of int4 must be one of"),
        ({"group": 0}, ValueError, "group of int4 must be one of"),
        ({"format": "int8", "group": 16}, ValueError, "int8 has one group a row"),
        ({"format": ["int4"]}, ValueError, "format must be one of"),
        ({"group": 32.0}, TypeError, r"group must be an integer, got 32\.0"),
        ({"layout": "columns"}, ValueError, "layout must be"),
    ],
)
def test_a_wrong_description_names_itself(change, error, words):
    right = {"format": "int4", "shape": (1, 32), "data": np.zeros(18, np.uint8), "group": 32}
    QuantizedWeight(**right)
    with pytest.raises(error, match=words):
        QuantizedWeight(**right | change)


def test_what_cannot_be_quantised_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        QuantizedWeight.quantize(np.array([[np.nan] * 32]), "int4")
    for format in ("int4", "int4_zero", "q4_1", "float16"):
        with pytest.raises(ValueError, match="too large"):
            QuantizedWeight.quantize(np.full((1, 32), 1e30), format)
    for format, number, dtype in (
        ("int8", 1e300, "float64"),
        ("int4", 1e300, "float64"),
        ("bfloat16", 3.4e38, "float32"),
    ):
        end = {"int8": r"scales end at 3\.4028e\+38 \(float32\)", "int4": r"scales end at 65504 \(float16\)"}
        with pytest.raises(ValueError, match=end.get(format, r"numbers end at 3\.3895e\+38 \(bfloat16\)")):
            QuantizedWeight.quantize(np.full((1, 32), number, dtype), format)
    for weight in (np.ones(32), np.ones((1, 32), int), np.ones((1, 32), [("w", "f4")])):
        with pytest.raises(TypeError, match="weight must be a float array"):
            QuantizedWeight.quantize(weight, "int8")


X, TINY = np.ones((2, 256), F32), np.finfo(F32).tiny
BAD = [
    ((X[:, :5], weight_of("q4_0")), {}, ValueError, "x"),
    ((X, weight_of("q4_0"), np.ones(3, F32)), {}, ValueError, "bias must have shape"),
    ((X, weight_of("q4_0"), np.ones(37)), {}, TypeError, "bias"),
    ((X, weight_of("q4_0")), {"activation": "tanh"}, ValueError, "activation must be"),
    ((X, weight_of("q4_0")), {"inputs": "int4"}, ValueError, "inputs must be"),
    ((X, weight_of("float16")), {"inputs": "int8"}, ValueError, 'takes inputs="float"'),
    ((X, weight_of("q4_0")), {"inputs": "int8", "input_scale": 0.0}, ValueError, "input_scale must be positive"),
    ((X, weight_of("q4_0")), {"inputs": "int8", "input_scale": np.nan}, ValueError, "input_scale must be positive"),
    ((X, np.ones((3, 256), F32)), {}, TypeError, "weight must be a QuantizedWeight"),
    ((np.ones((), F32), weight_of("q4_0")), {}, ValueError, "x must have"),
]


@pytest.mark.parametrize(("args", "kwargs", "error", "words"), BAD)
@pytest.mark.parametrize("through", ["contract", "extension"])
def test_a_wrong_call_names_the_argument(through, args, kwargs, error, words, implementations):
    """Through the contract, and past it into the extension: an exception, never a wild read."""
    call = quantized_gemm if through == "contract" else implementations("native")["quantized_gemm"]
    with pytest.raises(error, match=words):
        call(*args, **kwargs)


def test_a_scale_whose_inverse_is_no_float32_is_refused():
    for scale in (1e-39, TINY / 2, 1e39, -1.0):
        with pytest.raises(ValueError, match=r"scale must be positive and finite, 2\*\*-126 at least"):
            kernels.quantize_rows(X, scale)
    assert kernels.quantize_rows(X * TINY, TINY)[0].all()
    with pytest.raises(TypeError, match="input_scale must be a number, got str"):
        quantized_gemm(X, weight_of("q4_0"), inputs="int8", input_scale="small")


def test_an_edited_weight_is_read_anew():
    """Nothing that was made of the bytes is kept."""
    for weight in (weight_of("q4_1"), weight_of("q4_1").panels()):
        before = weight.dequantize(), weight.rows().data, weight.panels().data
        weight.view()["scale"] *= 2
        after = weight.dequantize(), weight.rows().data.copy(), weight.panels().data.copy()
        assert not np.array_equal(before[0], after[0])
        for layout, data in (("rows", after[1]), ("panels", after[2])):
            assert np.array_equal(QuantizedWeight("q4_1", weight.shape, data, layout=layout).dequantize(), after[0])
        assert set(vars(weight)) == {"format", "shape", "data", "group", "layout"}


def test_the_extension_does_not_trust_a_weight(implementations):
    class Lie:
        format, layout, shape, group, data = "q4_0", "rows", (37, 256), 32, weight_of("q4_0").data

    gemm = implementations("native")["quantized_gemm"]
    assert np.array_equal(gemm(X, Lie), gemm(X, weight_of("q4_0")))
    lies = {"data": Lie.data[:-1], "shape": (37 * 2**30, 256), "group": 0, "layout": "x", "format": "q9"}
    lies |= {"shape ": (2**62, 256), "data ": Lie.data[::2], "group ": 64, "shape  ": (-37, -256)}
    for name, value in lies.items():
        with pytest.raises(ValueError, match="quantized_gemm: weight has"):
            gemm(X, type("Other", (Lie,), {name.strip(): value}))
    for name, value in {"data": None, "shape": 3, "group": "x", "format": 1}.items():
        with pytest.raises((TypeError, ValueError), match="quantized_gemm: weight"):
            gemm(X, type("Other", (Lie,), {name: value}))


def test_a_zero_point_that_python_refuses_spoils_its_own_row_only(implementations):
    gemm, weight = implementations("native")["quantized_gemm"], weight_of("int4_zero")
    x = np.random.default_rng(0).standard_normal((40, 256)).astype(F32)
    for held in (weight, weight.panels()):
        spoilt = QuantizedWeight(held.format, held.shape, held.data.copy(), held.group, held.layout)
        spoilt.view()["zero"].reshape(-1)[0] = 200  # the constructor has looked already
        for inputs in ("float", "int8"):
            for M in (3, 40):
                y, right = (gemm(x[:M], w, inputs=inputs) for w in (spoilt, held))
                assert np.array_equal(y[:, 1:], right[:, 1:])


def test_bfloat16_product_may_lose_what_lies_below_the_normal_numbers_and_no_more(implementations):
    """Processors with the instruction take such numbers for 0, the others do not."""
    rng, K, tiny = np.random.default_rng(0), 301, float(np.finfo(F32).tiny)
    a = rng.standard_normal((20, K)) * 2.0 ** np.arange(-135, -115)[:, None]  # rows below, across and above 2⁻¹²⁶
    b = rng.standard_normal((K, 20)) * 2.0**100
    for left, right in ((a, b), (b.T, a.T), (a, b * 2.0**-110)):
        left, right = left.astype(F32), right.astype(F32)
        # float64 holds the rounded numbers, their products and, but for 2⁻⁵² of it, the sum
        x, y = (m.astype(ml_dtypes.bfloat16).astype(np.float64) for m in (left, right))
        lost = np.where(abs(x) < tiny, abs(x), 0) @ abs(y) + abs(x) @ np.where(abs(y) < tiny, abs(y), 0) + 2 * K * tiny
        allowed = K * np.finfo(F32).eps * (abs(x) @ abs(y)) + lost
        assert (abs(implementations("native")["matmul_bfloat16"](left, right) - x @ y) <= allowed).all()


def test_bfloat16_product_rounds_its_inputs_and_nothing_else(implementations):
    """1 + 2⁻⁸ lies halfway between two bfloat16 and goes to the even one; sums are kept in float32."""
    a = np.array([[1 + 2**-8, 1 + 2**-7, 1 + 3 * 2**-8, 1.0]], F32)
    for routines in (implementations("native"), kernels.numpy.ROUTINES):
        c = routines["matmul_bfloat16"](a, np.diag(np.array([1, 1, 1, 2**-16], F32)))
        assert np.array_equal(c, np.array([[1, 1 + 2**-7, 1 + 2**-6, 2**-16]], F32))
        ones = np.ones((1, 300), F32)
        assert routines["matmul_bfloat16"](ones, ones.T)[0, 0] == 300  # bfloat16 ends at 256 + 2
