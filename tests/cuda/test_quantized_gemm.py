"""The CUDA products with weights in few bits: exact integers, and no byte read beyond what is there."""

import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels import Unsupported, device
from minitransformer.kernels.cuda import standin
from minitransformer.kernels.quantized_weight import FORMATS, HALVES, QuantizedWeight

pytestmark = pytest.mark.usefixtures("emulator")
gemm, quantize_rows = (kernels.cuda.ROUTINES[name] for name in ("quantized_gemm", "quantize_rows"))
INTEGERS = [(format, group) for format, (_, groups, _) in FORMATS.items() if format not in HALVES
            for group in groups or (None,)]  # fmt: skip


def extremes(rng, format, group, N, K):
    """Codes at the ends of their range, scales of 1."""
    weight = QuantizedWeight.quantize(np.zeros((N, K), np.float32), format, group)
    blocks = weight.view()
    blocks["scale"] = 1
    if format == "int4_zero":
        blocks["zero"] = rng.integers(0, 16, blocks["zero"].shape)
    if format == "q4_1":
        blocks["minimum"] = rng.integers(-3, 4, blocks["minimum"].shape)
    ends = np.array([-128, -127, 127, -1] if FORMATS[format][0] == 8 else [0x00, 0xFF, 0xF0, 0x0F])
    blocks["codes"] = rng.choice(ends, blocks["codes"].shape).astype(blocks["codes"].dtype)
    return weight


@pytest.mark.parametrize(("format", "group"), INTEGERS)
def test_integer_sums_are_exact_at_the_extremes(format, group):
    rng = np.random.default_rng(5)
    weight = extremes(rng, format, group, 70, 256)
    w = weight.dequantize(np.float64).astype(np.int64)
    for M in (1, 7, 9, 66):
        x = rng.choice([-127, 127, 126, 0], (M, 256))
        x[0] = 127
        y = gemm(x.astype(np.float32), weight, None, None, "int8", 1.0)
        assert np.array_equal(y, (x @ w.T).astype(np.float32)), M


def test_a_row_of_int8_that_is_no_multiple_of_anything_ends_where_it_ends():
    """Behind its last code lies the next row's scale."""
    rng = np.random.default_rng(6)
    for K in (1, 2, 3, 5, 31, 33, 127):
        weight = extremes(rng, "int8", None, 5, K)
        w = weight.dequantize(np.float64).astype(np.int64)
        for M in (2, 10):
            x = rng.integers(-127, 128, (M, K))
            for inputs in ("int8", "float"):
                scale = 1.0 if inputs == "int8" else None
                assert np.array_equal(gemm(x.astype(np.float32), weight, None, None, inputs, scale), x @ w.T), (K, M)


def test_rows_of_codes_are_the_definitions_bit_for_bit():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((9, 1300)).astype(np.float32) * np.logspace(-44, 37, 9, dtype=np.float32)[:, None]
    x[3, 5], x[4, 6] = np.nan, -np.inf
    for scale in (None, 0.01, 1e-40):
        for got, want in zip(quantize_rows(x, scale), kernels.numpy.ROUTINES["quantize_rows"](x, scale), strict=True):
            assert np.array_equal(got, want, equal_nan=got.dtype.kind == "f") and got.dtype == want.dtype


def test_a_weights_bytes_go_to_a_device_once():
    weight = QuantizedWeight.quantize(np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32), "q4_0")
    x = device("cuda-emulated").put(np.ones((2, 64), np.float32))
    with standin.counting() as counts:
        first = kernels.quantized_gemm(x, weight)
        assert counts.to_device == 1
        again = kernels.quantized_gemm(x, weight.panels())
        kernels.quantized_gemm(x, weight)
        assert (counts.to_device, counts.from_device) == (2, 0)  # the panels are a weight of their own
    assert np.array_equal(first.get(), again.get())
    assert np.allclose(first.get(), np.ones((2, 64)) @ weight.dequantize().T, atol=1e-4)


def test_a_row_whose_sum_might_not_fit_an_int_is_refused_with_a_reason():
    weight = QuantizedWeight("int8", (1, 140_000), np.zeros(140_004, np.uint8))
    with pytest.raises(Unsupported, match="K = 140000"):
        gemm(np.ones((1, 140_000), np.float32), weight, inputs="int8")
