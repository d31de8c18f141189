"""wmma against NumPy: a GPU's products are exact, and so are ours; of small integers the sums are, too."""

import ml_dtypes
import numpy as np
import pytest

from minitransformer.kernels.cuda import emulator

BF16 = ml_dtypes.bfloat16


def aligned(array):
    copy = emulator.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


@pytest.mark.parametrize(
    ("kernel", "M", "N", "dtype", "total", "a_rows", "b_rows"),
    [
        ("bf16_rows_rows", 16, 16, BF16, np.float32, True, True),
        ("bf16_rows_columns", 16, 16, BF16, np.float32, True, False),
        ("half_columns_rows", 32, 8, np.float16, np.float32, False, True),
        ("half_half", 8, 32, np.float16, np.float16, True, True),
        ("bytes", 16, 16, np.int8, np.int32, True, False),
    ],
)
@pytest.mark.parametrize("integers", [True, False])
def test_products(launch, kernel, M, N, dtype, total, a_rows, b_rows, integers):
    rng = np.random.default_rng(8)
    draw = (lambda *s: rng.integers(-8, 8, s)) if integers or dtype == np.int8 else (lambda *s: rng.standard_normal(s))
    a, b, c = draw(M, 16).astype(dtype), draw(16, N).astype(dtype), draw(M, N).astype(total)
    d = aligned(np.zeros((N, M), total))
    args = [aligned(m) for m in (a if a_rows else a.T, b if b_rows else b.T, c)]
    launch("tensor_cores.cu", kernel, (1,), (32,), (*args, d))
    exact = 2 * (a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64))
    if integers or dtype == np.int8:
        assert (d.T == exact).all()
    else:
        size = 2 * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + np.abs(c).astype(np.float64))
        assert (np.abs(d.T - exact) <= 17 * np.finfo(total).eps * size).all()


def test_mistakes_are_reported(module):
    kernels, a, d = module("tensor_cores.cu"), aligned(np.zeros((32, 16), np.float16)), np.zeros(32, np.float32)
    with pytest.raises(emulator.KernelError, match=r"deadlock: .*load_matrix_sync"):
        kernels.get_function("one_lane_missing")((1,), (32,), (a, d))
    for offset, ld, message in ((8, 16, "not a multiple of 32 bytes"), (0, 12, "12 elements from row to row")):
        with pytest.raises(emulator.KernelError, match=message):
            kernels.get_function("misaligned")((1,), (32,), (a, d, np.int32(offset), np.int32(ld)))
    kernels.get_function("misaligned")((1,), (32,), (a, d, np.int32(16), np.int32(24)))
