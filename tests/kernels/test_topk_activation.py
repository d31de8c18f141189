"""Exact properties of the choice, and what the border refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import kernels

from ..models.helpers import KERNEL_SETS


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_kept_is_what_a_sort_would_keep(kernel_set, data):
    width = data.draw(st.integers(1, 70), "width")
    values = st.floats(width=32, allow_nan=False) | st.integers(-2, 2).map(float)
    x = np.array(data.draw(st.lists(values, min_size=width, max_size=width), "x"), np.float32)
    k = data.draw(st.integers(1, width), "k")
    by = data.draw(st.sampled_from(["value", "magnitude"]), "by")
    with kernels.use(kernel_set):
        y, indices = kernels.topk_activation(x, k, by)
    key = np.abs(x) if by == "magnitude" else x
    expected = sorted(sorted(range(width), key=lambda i: (-key[i], i))[:k])
    assert indices.tolist() == expected and indices.dtype == np.int32
    assert np.array_equal(y, np.where(np.isin(np.arange(width), expected), x, np.float32(0)))


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_of_equal_values_the_first_are_kept_and_nan_beats_infinity(kernel_set):
    x = np.array([[3, -0.0, 3, 0.0, 3], [np.inf, 1, -np.nan, np.nan, 2]], np.float32)
    with kernels.use(kernel_set):
        assert kernels.topk_activation(x, 2)[1].tolist() == [[0, 2], [2, 3]]
        assert kernels.topk_activation(x, 4)[1].tolist() == [[0, 1, 2, 4], [0, 2, 3, 4]]


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_nothing_but_the_chosen_rows_is_used(kernel_set):
    """The other rows hold NaN."""
    rng = np.random.default_rng(0)
    weight, x, a = np.full((50, 40), np.nan, np.float32), *(rng.normal(size=(3, n)).astype(np.float32) for n in (40, 9))
    chosen = np.sort(rng.permutation(50)[:9])[None]
    weight[chosen[0]] = rng.normal(size=(9, 40))
    with kernels.use(kernel_set):
        assert np.isfinite(kernels.gathered_linear(x, weight, chosen)).all()
        assert np.isfinite(kernels.gathered_sum(a, weight, chosen)).all()


X = np.ones((2, 5), np.float32)
W = np.ones((7, 5), np.float32)
I = np.zeros((2, 3), np.int64)  # noqa: E741
REFUSED = [
    ("topk_activation", (X, 0), ValueError, r"k must lie in 1\.\.5"),
    ("topk_activation", (X, 6), ValueError, r"k must lie in 1\.\.5"),
    ("topk_activation", (X, 2.0), TypeError, "k must be an integer|incompatible"),
    ("topk_activation", (X.astype(np.int32), 2), (TypeError, kernels.Unsupported), "float"),
    ("topk_activation", (np.ones((3, 0), np.float32), 1), ValueError, r"1\.\.0"),
    ("topk_activation", (X, 2, "size"), ValueError, "by must be"),
    ("gathered_linear", (X, W, I + 7), IndexError, "7"),
    ("gathered_linear", (X, W, I - 1), IndexError, "-1"),
    ("gathered_linear", (X, W, I * 1.0), TypeError, "indices must be an integer array"),
    ("gathered_linear", (X, W, I[0]), ValueError, "indices must have 2 axes"),
    ("gathered_linear", (X[:, :4], W, I), ValueError, r"x must have shape \(2, 5\)"),
    ("gathered_linear", (X, W, np.zeros((3, 3), int)), ValueError, r"indices must have shape \(2, 3\)"),
    ("gathered_linear", (X, W.astype(float), I), TypeError, "weight is float64"),
    ("gathered_sum", (X, W, I), ValueError, r"a must have shape \(2, 3\)"),
]


@pytest.mark.parametrize(("routine", "arguments", "error", "message"), REFUSED)
def test_bad_input_is_one_clear_line_at_the_contract_and_at_the_border(routine, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(kernels, routine)(*arguments)
    if not kernels.available()["native"]:
        with pytest.raises(error, match=message):
            kernels.native.ROUTINES[routine](*arguments)
