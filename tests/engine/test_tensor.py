"""The tensor as someone knows it who comes from NumPy or PyTorch: iteration, operators, integers, edits, threads."""

import threading

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.function import OPS, Function


def leaf(values, dtype="float32"):
    return mt.tensor(np.asarray(values, dtype), requires_grad=True)


# ---------------------------------------------------------------- behaves like an array


def test_iteration_ends_and_keeps_gradients():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    first, second = x
    (first * second).backward(np.array([10.0, 100.0]))
    assert x.grad.tolist() == [[30.0, 400.0], [10.0, 200.0]]
    assert 3 in mt.tensor([1, 2, 3]) and 5 not in mt.tensor([1, 2, 3])
    with pytest.raises(TypeError, match="without axes"):
        iter(mt.tensor(1.0))


def test_operators_with_an_array_on_the_left_ask_the_tensor():
    x, a = leaf([[1.0, 2.0], [3.0, 5.0]]), np.array([[2.0, 4.0], [6.0, 8.0]], np.float32)
    for found, expected in (
        (a + x, a + x.data), (a - x, a - x.data), (a * x, a * x.data), (a / x, a / x.data), (a**x, a**x.data),
        (a @ x, a @ x.data), (np.float64(3) - x, 3 - x.data), (abs(-x), x.data),
    ):  # fmt: skip
        assert found.requires_grad and found.dtype == np.float32
        np.testing.assert_allclose(found.data, expected, rtol=1e-6)
    assert (a > x).tolist() == (a > x.data).tolist()
    mask, array = mt.tensor([True, False]), np.array([True, True])
    assert (array & mask).tolist() == [True, False] and (array | mask).tolist() == [True, True]
    assert (mask ^ array).tolist() == (array ^ mask).tolist() == [False, True]


def test_a_single_number_takes_a_format():
    assert f"{mt.tensor(2.5):.2f}" == "2.50" and f"{mt.tensor([3]):>3}" == "  3"
    assert f"{mt.tensor(2.5)}" == "tensor(2.5)"


def test_sizes_and_axes_may_be_numpy_integers():
    n, x = np.int64(2), mt.ones(2, 3)
    assert mt.zeros(n).shape == (2,) and mt.ones(6).reshape(np.int64(-1)).shape == (6,)
    assert x.sum(axis=n - 1).tolist() == [3.0, 3.0] and x.flip(n - 1).shape == (2, 3)
    assert [part.shape for part in x.split(n, axis=1)] == [(2, 2), (2, 1)]


def test_integers_and_masks_add_up_as_in_numpy():
    mask, bytes_ = np.array([[True, False, True]]), np.full((1, 3), 200, np.uint8)
    for array in (mask, bytes_, np.array([[1, 2, 5]])):
        x = mt.tensor(array)
        assert x.sum().item() == array.sum() and x.cumsum(1).tolist() == array.cumsum(1).tolist()
        assert x.mean().item() == array.mean()
        assert x.var().item() == pytest.approx(array.var(ddof=1))
    x = mt.tensor([0, 3])
    np.testing.assert_allclose(mt.sigmoid(x).data, 1 / (1 + np.exp(-x.data)))
    np.testing.assert_allclose(mt.logsumexp(x).data, np.log(np.exp(x.data).sum()))
    assert mt.mse_loss(x, mt.tensor([1, 3])).item() == 0.5
    assert x.clamp(min=1).tolist() == [1, 3] and x.clamp(0.5, 1.5).tolist() == [0.5, 1.5]


def test_integers_beside_floats_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r'an input is int64: convert it with \.to\("float32"\)'):
        leaf([1.0]) * mt.tensor([2])


def test_lists_index_as_in_numpy():
    x = np.arange(6.0).reshape(2, 3)
    nested = [[True, False, True], [False, True, False]]
    assert mt.tensor(x)[nested].tolist() == x[nested].tolist()
    assert mt.tensor(x)[[1, 0]].tolist() == x[[1, 0]].tolist() and mt.tensor(x)[[]].shape == (0, 3)
    with pytest.raises(TypeError, match="integers or booleans"):
        mt.tensor(x)[[0.7]]


# ---------------------------------------------------------------- gradients that nothing may lose or share


@pytest.mark.parametrize("edit", [
    lambda x, w: x.__setitem__(0, w), lambda x, w: x.add_(w), lambda x, w: x.mul_(w), lambda x, w: x.copy_(w),
])  # fmt: skip
def test_an_edit_that_would_lose_a_gradient_is_refused(edit):
    x, w = mt.zeros(2), leaf(3.0)
    with pytest.raises(RuntimeError, match="no gradient would reach the value"):
        edit(x, w * 2.0)
    assert x.tolist() == [0.0, 0.0]
    edit(x, (w * 2.0).detach())
    with mt.no_grad():
        edit(x, w)


def test_a_tensor_of_a_tensor_has_the_same_memory_and_counter():
    x, w = mt.tensor([1.0, 2.0]), leaf([1.0, 1.0])
    y = (mt.Tensor(x) * w).sum()
    x.zero_()
    with pytest.raises(RuntimeError, match="edited in place"):
        y.backward()


def test_one_array_returned_for_two_inputs_is_not_shared():
    class Twice(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, dy):
            gradient = dy * 2
            return gradient, gradient

    del OPS["Twice"]
    a, b = leaf([1.0]), leaf([1.0])
    Twice.apply(a, b).backward()
    a.grad += 100
    assert b.grad.tolist() == [2.0]


def test_retained_gradients_share_no_memory():
    x, cotangent = leaf([1.0, 2.0]), np.ones(2, np.float32)
    a, b = x * 1.0, x * 2.0
    total = a + b
    for t in (a, b, total):
        t.retain_grad()
    total.backward(cotangent)
    a.grad *= 100
    assert b.grad.tolist() == total.grad.tolist() == cotangent.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kernel_set", [name for name, why in mt.kernels.available("cpu").items() if not why])
@pytest.mark.parametrize("function", [mt.gelu, mt.silu, mt.exp, lambda x: mt.dropout(x, 0.0, mt.Generator(0)) * 2.0])
def test_cotangents_of_a_single_number_stay_arrays(function, kernel_set):
    """Two that are added give a NumPy scalar, which kernels do not take and hooks do not expect."""
    with mt.kernels.use(kernel_set):
        found = []
        for value in (0.7, [0.7]):
            x, seen = leaf(value), []
            y = function(x)
            y.register_hook(seen.append)
            y.register_hook(lambda g: g * 3)
            (y + y).backward()
            assert type(seen[0]) is np.ndarray
            found.append(float(x.grad.item()))
        assert found[0] == found[1]


@pytest.mark.parametrize("decorator", [mt.no_grad(), mt.kernels.use("numpy")])
def test_a_decorated_function_serves_two_threads_at_once(decorator):
    inside, modes = threading.Barrier(2, timeout=10), []

    def state():
        return mt.is_grad_enabled() if isinstance(decorator, mt.no_grad) else mt.kernels.current()

    @decorator
    def function(first):
        inside.wait()
        if not first:
            other.join(10)  # the first to enter leaves first, so a stack that both share would be popped wrongly
        modes.append(state())

    def run(first):
        function(first)
        modes.append(state())

    outside = state()
    with decorator:
        within = state()
    other = threading.Thread(target=run, args=(True,))
    other.start()
    run(False)
    assert modes == [within, outside, within, outside]
