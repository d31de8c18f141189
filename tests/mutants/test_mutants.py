"""A check that cannot fail is a defect: every planted bug must be rejected."""

import math
import types

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import kernels
from minitransformer.gradient_check import check_ops
from minitransformer.ops.samples import SAMPLES

from .planted import ANYWHERE, PARTICULAR, mutant, with_gradients

SHARED = mt.Generator(0)


def rejected(op, dtype="float64"):
    (row,) = check_ops([op], ["numpy"], [dtype])
    return row.passed is False


@pytest.mark.parametrize("change", ANYWHERE)
@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_a_mistake_in_any_backward_is_rejected(op, change):
    with mutant(op, backward=with_gradients(op, ANYWHERE[change])):
        assert rejected(op), f"{change} in {op} went through"


@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_a_mistake_in_float32_alone_is_rejected(op):
    """The float32 rows compare with the float64 backward, so they must catch what only float32 gets wrong."""
    with mutant(op, backward=with_gradients(op, lambda g: g * 1.001 if g.dtype == np.float32 else g)):
        assert rejected(op, "float32") and not rejected(op, "float64")


@pytest.mark.parametrize(("op", "what", "methods"), PARTICULAR, ids=[f"{op}: {what}" for op, what, _ in PARTICULAR])
def test_a_typical_mistake_is_rejected(op, what, methods):
    with mutant(op, **methods):
        assert rejected(op), f"{what} went through"


def kernel_module(**routines):
    module = types.ModuleType("mine")
    for name, function in routines.items():
        setattr(module, name, function)
    return module


def test_a_correct_kernel_of_ones_own_passes():
    module = kernel_module(softmax=lambda x, axis: np.exp(x - x.max(axis, keepdims=True)) / np.exp(
        x - x.max(axis, keepdims=True)).sum(axis, keepdims=True))  # fmt: skip
    rows = list(check_ops(["Softmax"], [module]))
    assert [row.passed for row in rows] == [True, True] and rows[0].kernels == "mine"


def softmax_without_maximum(x, axis):
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def causal_by_one_too_many(q, k, v, *, scale, causal=False, mask=None, **_):
    s = scale * q @ k.mT
    if causal:
        i, j = np.indices(s.shape[-2:])
        s = np.where(j > i + k.shape[2] - q.shape[2] + 1, -math.inf, s)  # one future token too many
    if mask is not None:
        s = s + mask
    lse = np.log(np.exp(s).sum(-1))
    return (np.exp(s - lse[..., None]) @ v).astype(q.dtype), lse.astype(q.dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("op", "routines"),
    [
        ("Softmax", {"softmax": softmax_without_maximum}),
        ("Softmax", {"softmax_backward": lambda dy, y, axis: dy * 0}),
        ("Attention", {"attention_forward": causal_by_one_too_many}),
        ("LayerNorm", {"layer_norm_backward": lambda dy, x, w, mean, rstd: _layer_norm_unweighted(dy, x, mean, rstd)}),
        ("RMSNorm", {"rms_norm_forward": lambda x, w, eps: (x * w, np.ones(x.shape[:-1], x.dtype))}),
        ("MatMul", {"matmul": lambda a, b: a @ b + a.dtype.type(1e-4)}),
        ("SiLU", {"silu_backward": lambda dy, x: dy / (1 + np.exp(-x))}),
        ("Embedding", {"embedding_backward": lambda dy, i, rows: np.zeros((rows, dy.shape[-1]), dy.dtype)}),
    ],
)
def test_a_wrong_kernel_of_ones_own_is_rejected(op, routines):
    rows = list(check_ops([op], [kernel_module(**routines)]))
    assert any(row.passed is False for row in rows), [row.detail for row in rows]


def _layer_norm_unweighted(dy, x, mean, rstd):
    return kernels.layer_norm_backward(dy, x, np.ones(x.shape[-1], x.dtype), mean, rstd)


def test_a_kernel_set_without_the_routine_counts_as_not_run():
    module = kernel_module(softmax=lambda x, axis: x)
    (row, _) = check_ops(["GELU"], [module])
    assert row.passed is None and row.method.startswith("not run")


# ---------------------------------------------------------------- gradcheck on people's own functions


def test_a_sum_as_cotangent_would_be_fooled_and_gradcheck_is_not():
    """Σ softmax is constant: its gradient is 0, as a backward that returns zeros would say."""
    with mutant("Softmax", backward=with_gradients("Softmax", ANYWHERE["a zero gradient"])):
        assert not mt.gradcheck(lambda x: mt.softmax(x), np.array([[0.3, -1.0, 2.0]]), raise_on_failure=False)
        with pytest.raises(mt.gradient_check.GradientError, match="proves nothing"):
            mt.gradcheck(lambda x: mt.softmax(x).sum(), np.array([[0.3, -1.0, 2.0]]))


def test_large_functions_are_checked_along_a_direction():
    x = mt.Generator(0).normal((40, 40), dtype=np.float64)
    result = mt.gradcheck(lambda t: mt.tanh(t @ t), x)
    assert "direction" in result.method
    with mutant("Tanh", backward=with_gradients("Tanh", ANYWHERE["a factor of 1.001"])):
        assert not mt.gradcheck(lambda t: mt.tanh(t @ t), x, raise_on_failure=False)
    with mutant("Tanh", backward=with_gradients("Tanh", ANYWHERE["a zero gradient"])):
        assert not mt.gradcheck(lambda t: mt.tanh(t @ t), x, raise_on_failure=False)


def test_the_message_shows_input_got_expected_and_index():
    with mutant("Exp", backward=with_gradients("Exp", ANYWHERE["one entry missing"])):
        with pytest.raises(mt.gradient_check.GradientError, match=r"input 0 at index \(1, 2\): got 0, expected 20\.08"):
            mt.gradcheck(mt.exp, np.array([[0.0, 1.0, 2.0], [-1.0, 0.5, 3.0]]))


@pytest.mark.parametrize(
    ("function", "inputs", "error", "message"),
    [
        (mt.exp, [mt.tensor([1.0], requires_grad=True)], TypeError, "float64"),
        (mt.exp, [mt.tensor([1.0])], ValueError, "no input requires a gradient"),
        (lambda x: mt.dropout(x, 0.5, SHARED), [np.ones(30)], ValueError, "two runs differ"),
    ],
)
def test_gradcheck_refuses_what_it_cannot_judge(function, inputs, error, message):
    with pytest.raises(error, match=message):
        mt.gradcheck(function, *inputs)


def test_a_function_that_is_not_finite_fails():
    with np.errstate(divide="ignore"):
        assert not mt.gradcheck(mt.log, np.array([0.0, 1.0]), raise_on_failure=False)
