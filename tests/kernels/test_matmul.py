"""What the matrix product promises beyond its values: which bits, which memory, which errors."""

import numpy as np
import pytest

from minitransformer.kernels import native
from minitransformer.kernels.numpy import matmul as definition

from .cases import CASES
from .tolerance import compare

pytestmark = pytest.mark.skipif(native.ROUTINES is None, reason=f"native kernels: {native.REASON}")
DTYPES = [np.float32, np.float64]


def _operands(dtype, M=150, K=777, N=133):
    rng = np.random.default_rng(0)
    return rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_does_not_depend_on_its_neighbours_or_on_the_layout(dtype):
    """One row alone, as in decoding, has the bits of that row among all, as in training; so has one column."""
    a, b = _operands(dtype)
    matmul = native.ROUTINES["matmul"]
    c = matmul(a, b)
    for rows in (slice(0, 1), slice(7, 8), slice(3, 20), slice(149, 150)):
        np.testing.assert_array_equal(matmul(a[rows], b), c[rows])
        np.testing.assert_array_equal(matmul(a[rows], np.asfortranarray(b)), c[rows])
    for columns in (slice(0, 1), slice(5, 6), slice(30, 70)):
        np.testing.assert_array_equal(matmul(a, b[:, columns]), c[:, columns])
    np.testing.assert_array_equal(matmul(np.asfortranarray(a), np.asfortranarray(b)), c)
    np.testing.assert_array_equal(matmul(np.stack([a, a]), np.stack([b, b])), np.stack([c, c]))
    np.testing.assert_array_equal(native.ROUTINES["linear"](a, np.ascontiguousarray(b.T)), c)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_an_activation_in_the_product_gives_the_bits_of_one_after_it(activation, dtype):
    a, b = _operands(dtype, 40, 777, 83)
    run, weight, bias = native.ROUTINES, np.ascontiguousarray(b.T), b[0].copy()
    after = {
        "relu": lambda y: np.maximum(y, 0),
        "gelu": lambda y: run["gelu"](y, "none"),
        "gelu_tanh": lambda y: run["gelu"](y, "tanh"),
        "silu": run["silu"],
    }[activation]
    for rows in (slice(0, 40), slice(3, 4), slice(5, 18)):
        expected = after(run["linear"](a[rows], weight, bias))
        np.testing.assert_array_equal(run["linear"](a[rows], weight, bias, activation), expected)


def _without_activation(x, weight, bias=None, activation=None):
    return definition.linear(x, weight, bias)


def _bias_after_activation(x, weight, bias=None, activation=None):
    y = definition.linear(x, weight, None, activation)
    return y if bias is None else y + bias


def _the_other_gelu(x, weight, bias=None, activation=None):
    return definition.linear(x, weight, bias, {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}.get(activation, activation))


def _nan_becomes_zero(x, weight, bias=None, activation=None):
    y = definition.linear(x, weight, bias, activation)
    return np.where(np.isnan(y) & (activation == "relu"), np.float32(0), y)


@pytest.mark.parametrize(
    "wrong", [_without_activation, _bias_after_activation, _the_other_gelu, _nan_becomes_zero], ids=lambda f: f.__name__
)
def test_a_wrong_end_of_the_product_is_rejected(wrong):
    dtype = np.dtype(np.float32)
    cases = list(CASES["linear"](np.random.default_rng(0), dtype))
    assert all(compare("linear", definition.linear, case, dtype) <= 1 for case in cases)
    assert any(compare("linear", wrong, case, dtype) > 1 for case in cases)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_outside_the_operands_is_used(dtype):
    """Operands cut out of arrays full of NaN: one value read beyond a border and used would show."""
    a, b = _operands(dtype, 31, 50, 37)
    for margin in (1, 3):
        wide_a, wide_b = (np.full(np.add(x.shape, 2 * margin), np.nan, dtype) for x in (a, b))
        inner = (slice(margin, -margin), slice(margin, -margin))
        wide_a[inner], wide_b[inner] = a, b
        for cut_a in (wide_a[inner], wide_a.copy("F")[inner]):
            for cut_b in (wide_b[inner], wide_b.copy("F")[inner]):
                np.testing.assert_array_equal(native.ROUTINES["matmul"](cut_a, cut_b), native.ROUTINES["matmul"](a, b))


def test_unaligned_and_foreign_memory_is_read_correctly():
    a, b = _operands(np.float32, 5, 6, 7)
    expected = native.ROUTINES["matmul"](a, b)
    unaligned = np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(native.ROUTINES["matmul"](unaligned, b), expected)
    record = np.zeros(a.shape, np.dtype([("flag", "i1"), ("x", "f4"), ("y", "f4", 2)]))
    record["x"] = a
    np.testing.assert_array_equal(native.ROUTINES["matmul"](record["x"], b), expected)


def test_empty_views_of_any_strides_are_served():
    """NumPy calls an empty array C-contiguous whatever its strides, so no copy makes them dense: it used to hang."""
    run, weight = native.ROUTINES, np.ones((7, 6), np.float32)
    empty = np.zeros((0, 10, 12), np.float32)[:, ::2, ::2]
    assert run["linear"](empty, weight).shape == (0, 5, 7)
    assert run["matmul"](empty, weight.T).shape == (0, 5, 7)
    dx, dweight, dbias = run["linear_backward"](np.zeros((0, 10, 14), np.float32)[:, ::2, ::2], empty, weight)
    assert dx.shape == empty.shape and not dweight.any() and not dbias.any()


@pytest.mark.parametrize(
    ("routine", "arguments", "error", "message"),
    [
        ("matmul", ((2, 3), (4, 5)), ValueError, "a (2, 3) has 3 columns but b (4, 5) has 4 rows"),
        ("matmul", ((3,), (3, 5)), ValueError, "a must have at least 2 axes, got shape (3,)"),
        ("matmul", ((2, 4, 3), (5, 3, 5)), ValueError, "leading axes of (2, 4, 3) and (5, 3, 5) do not broadcast"),
        ("linear", ((2, 3), (5, 4)), ValueError, "x must have shape (2, 4), got (2, 3)"),
        ("linear", ((2, 3), (5, 3), (3,)), ValueError, "bias must have shape (5,), got (3,)"),
        ("linear", ((2, 3), (5, 3), (5,), "tanh"), ValueError, 'activation must be None, "relu", "gelu", "gelu_tanh"'),
        ("linear", ((), (5, 3)), ValueError, "x must have at least 1 axes, got shape ()"),
        ("linear_backward", ((2, 4), (2, 3), (5, 3)), ValueError, "dy must have shape (2, 5), got (2, 4)"),
        ("linear_backward", ((3, 5), (2, 3), (5, 3)), ValueError, "dy must have shape (2, 5), got (3, 5)"),
    ],
)
def test_the_extension_checks_for_itself(routine, arguments, error, message):
    """Past the contract's checks, too, a wrong call is an exception that names the argument and not a wild read."""
    with pytest.raises(error) as raised:
        native.ROUTINES[routine](*(np.ones(a, np.float32) if isinstance(a, tuple) else a for a in arguments))
    assert message in str(raised.value)


def test_two_dtypes_in_one_call_are_refused():
    with pytest.raises(TypeError, match="b is float64, but must be float32 like the first array"):
        native.ROUTINES["matmul"](np.ones((2, 2), np.float32), np.ones((2, 2)))
    with pytest.raises(TypeError, match="b is >f4"):
        native.ROUTINES["matmul"](np.ones((2, 2), np.float32), np.ones((2, 2), ">f4"))


def test_a_product_too_large_for_memory_is_an_exception():
    column = np.broadcast_to(np.float32(1), (2**33, 1))
    with pytest.raises((MemoryError, ValueError)):
        native.ROUTINES["matmul"](column, column.T)
