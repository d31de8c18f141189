"""The CUDA choice of the k largest, and indices that nobody has looked at."""

import ml_dtypes
import numpy as np
import pytest

from minitransformer import kernels

pytestmark = pytest.mark.usefixtures("emulator")
topk, definition = (k.ROUTINES["topk_activation"] for k in (kernels.cuda, kernels.numpy))


@pytest.mark.parametrize("by", ["value", "magnitude"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda t: t.__name__)
def test_numbers_that_differ_in_one_byte_of_the_key_only(dtype, by):
    """Neighbouring numbers of both signs, of every exponent, with ties: each pass of the selection has to decide."""
    rng = np.random.default_rng(0)
    integer = np.dtype(f"u{np.dtype(dtype).itemsize}")
    for row in range(3):
        bits = rng.integers(0, np.iinfo(integer).max, 97, dtype=integer, endpoint=True)
        near = bits[0] + rng.integers(0, 3, 97).astype(integer) * integer.type(256 ** (row % integer.itemsize))
        x = np.concatenate([bits, near, near]).view(dtype)
        for k in (1, 50, 150, 290, 291):
            for got, want in zip(topk(x[None], k, by), definition(x[None], k, by), strict=True):
                assert got.tobytes() == want.tobytes(), (row, k)


def test_an_index_that_is_no_row_is_never_followed():
    x, a, weight = np.ones((2, 5), np.float32), np.ones((2, 3), np.float32), np.ones((7, 5), np.float32)
    linear, total = (kernels.cuda.ROUTINES[name] for name in ("gathered_linear", "gathered_sum"))
    indices = np.array([[0, 6, 7], [2, -1, 2**40]])
    expected = [[False, False, True], [False, True, True]]
    assert (np.isnan(linear(x, weight, indices)) == expected).all()
    assert np.isnan(total(a, weight, indices)).all()
    indices[0, 2] = 6
    assert np.array_equal(np.isnan(total(a, weight, indices)), [[False] * 5, [True] * 5])
