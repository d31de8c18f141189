"""What the engine does for every op: order, accumulation, freeing, hooks, versions, dtypes, shapes."""

import gc
import weakref

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.function import OPS, ElementWise, Function


def leaf(values, dtype="float32"):
    return mt.tensor(np.asarray(values, dtype), requires_grad=True)


# ---------------------------------------------------------------- order and accumulation


def test_a_chain_of_100_000_ops_does_not_recurse():
    x = leaf([1.0, 2.0])
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward(np.array([3.0, 5.0]))
    assert y.tolist() == [100_001.0, 100_002.0] and x.grad.tolist() == [3.0, 5.0]
    del y
    gc.collect()  # freeing the chain must not recurse either


def test_several_uses_add_up():
    x = leaf([2.0, 3.0])
    y = x * x + x * x * x + x
    y.backward(np.array([1.0, 10.0]))
    assert x.grad.tolist() == [2 * 2 + 3 * 4 + 1, 10 * (2 * 3 + 3 * 9 + 1)]


@pytest.mark.parametrize("uses", range(1, 6))
def test_a_single_number_adds_up_too(uses):
    """NumPy's sums of 0-d arrays are scalars, which cannot be added into."""
    x = leaf(2.0)
    middle = x * 1.0
    total = middle * 3.0
    for _ in range(uses):
        total = total + middle
    total.backward()
    assert isinstance(x.grad, np.ndarray) and x.grad == 3 + uses


def test_a_diamond_waits_for_both_sides():
    """d/dx of (x²)·sin-like longer path: the shared node must run once, after both cotangents arrived."""
    runs = []

    class Spy(ElementWise):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            runs.append(dy.copy())
            return dy

    del OPS["Spy"]
    x = leaf([3.0])
    shared = Spy.apply(x)
    longer = mt.exp(mt.neg(mt.neg(mt.log(shared))))
    (shared + longer * 4.0).backward()
    assert len(runs) == 1 and runs[0] == pytest.approx([5.0])
    assert x.grad == pytest.approx([5.0])


def test_backward_adds_to_grad_until_it_is_cleared():
    x = leaf([1.0])
    (x * 2.0).backward()
    (x * 2.0).backward()
    assert x.grad.tolist() == [4.0]
    x.grad = None
    (x * 2.0).backward()
    assert x.grad.tolist() == [2.0]


def test_gradients_of_different_leaves_never_share_memory():
    a, b, cotangent = leaf([1.0, 2.0]), leaf([3.0, 4.0]), np.array([1.0, 1.0], np.float32)
    (a + b).backward(cotangent)
    a.grad *= 100
    assert b.grad.tolist() == [1.0, 1.0] and cotangent.tolist() == [1.0, 1.0]


def test_a_gradient_handed_to_two_paths_is_not_changed_by_adding():
    x, y = leaf([1.0]), leaf([1.0])
    s = x + y  # both get the same array dy
    t = s + x  # x's second contribution is added to something of its own
    t.backward()
    assert x.grad.tolist() == [2.0] and y.grad.tolist() == [1.0]


def test_an_unused_output_counts_as_zero():
    x = leaf([[1.0, 2.0, 3.0]])
    _, middle, _ = mt.split(x, 1, axis=1)
    middle.backward(np.array([[7.0]]))
    assert x.grad.tolist() == [[0.0, 7.0, 0.0]]


def test_broadcast_axes_are_summed():
    a, b = leaf(np.ones((2, 1, 3))), leaf(np.ones((4, 1)))
    (a * b).backward(np.ones((2, 4, 3)))
    assert (a.grad == 4).all() and (b.grad == 6).all()


# ---------------------------------------------------------------- freeing


def test_a_second_backward_says_why_and_retain_graph_allows_it():
    x = leaf([1.0])
    y = mt.exp(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == pytest.approx([2 * np.e])
    with pytest.raises(RuntimeError, match=r"Exp: backward\(\) ran through this graph before.*retain_graph=True"):
        y.backward()


def test_saved_arrays_are_freed_by_backward():
    class Big(np.ndarray):  # plain arrays take no weak references
        pass

    x = leaf(np.ones(10))
    y = mt.exp(x)
    y.data = y.data.view(Big)
    saved = weakref.ref(y.data)
    y.node.save(y.data)
    z = y * 2.0
    y = None
    assert saved() is not None
    z.backward(np.ones(10))
    gc.collect()
    assert saved() is None


def test_an_activation_that_no_backward_needs_dies_during_forward():
    x = leaf(np.ones(4))
    middle = x + 1.0
    watch = weakref.ref(middle)
    y = middle + 1.0  # Add saves nothing
    del middle
    assert watch() is None
    y.backward(np.ones(4))
    assert (x.grad == 1).all()


def test_no_grad_records_nothing():
    x = leaf([1.0])
    with mt.no_grad():
        y = x * 2.0
        with mt.enable_grad():
            z = x * 3.0
    assert not y.requires_grad and y.node is None and z.requires_grad

    @mt.no_grad()
    def f(n):
        return mt.is_grad_enabled() if n == 0 else f(n - 1)

    assert f(3) is False and mt.is_grad_enabled()
    with pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        y.backward()


def test_detach_cuts_and_shares_memory():
    x = leaf([1.0, 2.0])
    y = (x * 2.0).detach()
    assert not y.requires_grad
    z = x.detach()
    with mt.no_grad():
        z[0] = 9.0
    assert x.tolist() == [9.0, 2.0]


# ---------------------------------------------------------------- hooks


def test_hooks_see_and_change_complete_gradients():
    x = leaf([1.0, 2.0])
    y = x * 3.0
    seen = []
    remove = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    (y + y).backward(np.ones(2))
    assert seen == [[2.0, 2.0]] and x.grad.tolist() == [61.0, 61.0]
    remove()
    z = y * 1.0
    with pytest.raises(RuntimeError, match="freed"):
        z.backward(np.ones(2))
    assert seen == [[2.0, 2.0]]


def test_a_hook_may_not_change_the_shape():
    y = leaf([1.0, 2.0]) * 1.0
    y.register_hook(lambda g: g[:1])
    with pytest.raises(RuntimeError, match="gradient hook returned"):
        y.backward(np.ones(2))


def test_retain_grad_keeps_the_middle():
    x = leaf([2.0])
    y = x * x
    y.retain_grad()
    (y * 3.0).backward()
    assert y.grad.tolist() == [3.0] and x.grad.tolist() == [12.0]


# ---------------------------------------------------------------- edits in place


@pytest.mark.parametrize("edit", [
    lambda t: t.__setitem__(0, 5.0), lambda t: t.add_(1.0), lambda t: t.mul_(2.0), lambda t: t.zero_(),
    lambda t: t.copy_(np.zeros(3)), lambda t: t.detach().zero_(), lambda t: t[1:].zero_(),
    lambda t: t.reshape(3, 1).zero_(),
])  # fmt: skip
def test_an_edit_of_a_saved_array_is_caught_through_any_view(edit):
    x, w = mt.tensor([1.0, 2.0, 3.0]), leaf([1.0, 1.0, 1.0])
    y = (x * w).sum()
    edit(x)
    with pytest.raises(RuntimeError, match="Multiply: an array saved for backward was edited in place"):
        y.backward()


def test_an_edit_of_an_array_that_was_not_saved_is_fine():
    x, w = mt.tensor([1.0, 2.0, 3.0]), leaf([1.0, 1.0, 1.0])
    y = (x + w).sum()
    x.zero_()
    y.backward()
    assert w.grad.tolist() == [1.0, 1.0, 1.0]


def test_edits_through_data_are_not_checked():
    x, w = mt.tensor([1.0, 2.0]), leaf([1.0, 1.0])
    y = (x * w).sum()
    x.data[0] = 7.0
    y.backward()
    assert w.grad.tolist() == [7.0, 2.0]


def test_a_parameter_is_edited_under_no_grad_only():
    w = leaf([1.0])
    with pytest.raises(RuntimeError, match=r"under no_grad\(\)"):
        w.add_(1.0)
    with mt.no_grad():
        w.add_(np.ones(1, np.float32), alpha=-0.5)
    assert w.tolist() == [0.5] and w.requires_grad
    with pytest.raises(RuntimeError, match="with a history"):
        (w * 2.0).zero_()


# ---------------------------------------------------------------- dtypes and shapes


def test_numbers_take_the_dtype_of_the_tensor_beside_them():
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        x = leaf([1.0, 2.0], "float32").to(dtype)
        for y in (x * 2, 2.0 / x, x / np.sqrt(64), x**2, x + np.float64(1), -x, abs(1) - x, mt.maximum(x, 0)):
            assert y.dtype == x.dtype


def test_numbers_beside_a_mask_are_float32_and_integers_follow_numpy():
    mask = leaf([1.0, -1.0]) > 0
    assert mt.where(mask, 1.0, 0.0).dtype == np.float32 and mt.where(mask, 2, 3).dtype == np.int64
    assert (mt.tensor([1, 2]) / mt.tensor([2, 4])).dtype == np.float64


def test_two_float_dtypes_are_refused_by_name():
    with pytest.raises(TypeError, match=r"Add: input 1 is float64 but another is float32; convert one with \.to\(\)"):
        leaf([1.0]) + leaf([1.0], "float64")
    with pytest.raises(TypeError, match="Linear: input 1 is float64"):
        mt.linear(leaf([[1.0]]), leaf([[1.0]], "float64"))


def make(name, forward, backward=None):
    op = type(name, (Function,), {"forward": forward, "backward": backward or (lambda self, dy: dy)})
    del OPS[name]
    return op


def test_an_op_that_changes_a_dtype_is_named():
    op = make("Widen", lambda self, x: x / np.sqrt(np.float64(64)))
    with pytest.raises(TypeError, match=r"Widen.forward turned float32 into float64"):
        op.apply(leaf([1.0]))


@pytest.mark.parametrize(("backward", "message"), [
    (lambda self, dy: dy[:1], r"WrongOp.backward: gradient 0 has shape \(1,\), its input has \(2,\)"),
    (lambda self, dy: dy.astype(np.float64), "WrongOp.backward: gradient 0 is float64, its input is float32"),
    (lambda self, dy: (dy, dy), "WrongOp.backward returned 2 gradients for 1 inputs"),
])  # fmt: skip
def test_a_wrong_gradient_names_the_op(backward, message):
    op = make("WrongOp", lambda self, x: x * 2, backward)
    with pytest.raises(RuntimeError, match=message):
        op.apply(leaf([1.0, 2.0])).backward(np.ones(2))


def test_what_nobody_needs_is_not_computed():
    asked = []

    def backward(self, dy):
        asked.append(self.needs)
        return dy, None

    op = make("Pair", lambda self, a, b: a + b, backward)
    op.apply(leaf([1.0]), mt.tensor([2.0])).backward()
    assert asked == [(True, False)]


def test_backward_needs_a_fitting_cotangent():
    y = leaf([1.0, 2.0]) * 2.0
    with pytest.raises(ValueError, match="needs its cotangent"):
        y.backward()
    with pytest.raises(ValueError, match=r"cotangent has shape \(3,\)"):
        y.backward(np.ones(3))


def test_backward_runs_on_the_kernels_that_forward_used():
    x = leaf([[1.0, 2.0, 3.0]])
    with mt.kernels.use("numpy"):
        y = mt.softmax(x)
        used = mt.kernels.current()
    seen = []
    original = mt.kernels.softmax_backward
    mt.kernels.softmax_backward = lambda *a: (seen.append(mt.kernels.current()), original(*a))[1]
    try:
        y.backward(np.ones((1, 3)))
    finally:
        mt.kernels.softmax_backward = original
    assert seen == [used]


# ---------------------------------------------------------------- recomputation


def test_checkpoint_gives_the_same_bits_and_reaches_closed_over_parameters():
    g = mt.Generator(5)
    w = leaf(g.normal((8, 8)))
    data = g.normal((4, 8))

    def body(x, generator):
        return mt.dropout(mt.gelu(mt.matmul(x, w)), 0.4, generator)

    def gradients(run):
        x, generator = leaf(data), mt.Generator(9)
        w.grad = None
        y = run(x, generator)
        after = generator.offset
        y.backward(np.linspace(-1, 1, 32).reshape(4, 8))
        assert generator.offset == after
        return y.data, x.grad, w.grad

    plain = gradients(body)
    recomputed = gradients(lambda x, generator: mt.checkpoint(lambda t: body(t, generator), x))
    for a, b in zip(plain, recomputed, strict=True):
        assert (a == b).all()


def test_checkpoint_reaches_parameters_when_no_input_requires_a_gradient():
    w = leaf([2.0])
    mt.checkpoint(lambda x: x * w, mt.tensor([3.0])).backward()
    assert w.grad.tolist() == [3.0]


def test_checkpoints_nest_and_return_several_outputs():
    w = leaf([2.0])
    x = leaf([3.0])

    def inner(t):
        return mt.checkpoint(lambda u: u * w, t)

    a, b = mt.checkpoint(lambda t: (inner(t), inner(t) * t), x)
    (a * 10.0 + b).backward()
    assert x.grad.tolist() == [10 * 2 + 2 * 2 * 3] and w.grad.tolist() == [10 * 3 + 9]


# ---------------------------------------------------------------- the tensor itself


def test_defaults_and_conversions():
    assert mt.tensor([1.0, 2.0]).dtype == np.float32 and mt.tensor([1, 2]).dtype == np.int64
    assert mt.tensor(np.ones(2)).dtype == np.float64 and mt.tensor(1.5).shape == ()
    assert (
        mt.zeros(2, 3).shape == (2, 3) and mt.ones((2,)).tolist() == [1.0, 1.0] and mt.arange(3).tolist() == [0, 1, 2]
    )
    array = np.ones(3, np.float32)
    assert mt.as_tensor(array).data is array and mt.tensor(array).data is not array
    with pytest.raises(TypeError, match="does not turn into an array by itself"):
        np.asarray(mt.tensor([1.0]))
    with pytest.raises(TypeError, match="a tensor holds numbers"):
        mt.tensor(["a"])
    with pytest.raises(TypeError, match="only float tensors"):
        mt.tensor([1], requires_grad=True)
    with pytest.raises(TypeError, match="not a dtype"):
        mt.tensor([1.0], dtype="float31")
    with pytest.raises(ValueError, match="no device named 'cuda:9'; known are cpu, cuda, cuda-emulated"):
        mt.tensor([1.0]).to("cuda:9")


def test_repr_says_where_it_came_from():
    x = leaf([1.0])
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(mt.exp(x * 0.0)) == "tensor([1.], made by Exp)"


def test_comparisons_are_masks_without_a_gradient():
    x = leaf([1.0, 3.0])
    mask = (x > 2.0) | (x == 1.0)
    assert mask.dtype == bool and mask.tolist() == [True, True] and not mask.requires_grad
    assert (~(x >= 3.0)).tolist() == [True, False]
    y = mt.where(x > 2.0, x * 10.0, x)
    y.backward(np.ones(2))
    assert x.grad.tolist() == [1.0, 10.0]
