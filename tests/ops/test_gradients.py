"""Every op × kernel set × dtype: is its backward the derivative of its forward?"""

import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.function import OPS
from minitransformer.gradient_check import _tensors, check_ops, gradcheck
from minitransformer.ops.samples import SAMPLES
from minitransformer.random import Generator

KERNEL_SETS = [name for name, reason in kernels.available("cpu").items() if not reason]


def test_every_op_has_samples_and_every_sample_an_op():
    ours = {name for name, op in OPS.items() if op.__module__.startswith("minitransformer.")}
    assert ours == set(SAMPLES)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_gradient(op, kernel_set):
    rows = list(check_ops([op], [kernel_set]))
    assert len(rows) == 2
    for row in rows:
        if row.passed is None:
            assert row.method.startswith("not run: ") and kernel_set != "numpy"
        else:
            assert row.passed, row.detail


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_half_precision_is_storage_for_the_numpy_kernels(op, dtype):
    (row,) = check_ops([op], ["numpy"], [dtype])
    assert row.passed, row.detail


def test_strided_samples_reach_the_op_strided():
    for dtype in (np.float64, np.float32):
        for sample in SAMPLES["Exp"](Generator(0)):
            (x,) = _tensors(sample, np.dtype(dtype))
            assert x.dtype == dtype and (x.data == sample.inputs[0].astype(dtype)).all()
            assert x.data.flags.forc == ("strided" not in sample.note)


def test_a_check_that_would_prove_nothing_does_not_pass():
    assert not gradcheck(lambda x: x[:0], np.ones(3), raise_on_failure=False)
    with pytest.raises(ValueError, match="no float tensor"):
        gradcheck(lambda x: x > 0, np.ones(3))


def test_an_op_without_samples_is_refused():
    from minitransformer.function import Function

    class Unsampled(Function):
        def forward(self, x):
            return x + 1

        def backward(self, dy):
            return dy

    try:
        with pytest.raises(ValueError, match="op Unsampled has no samples"):
            list(check_ops(["Unsampled"]))
    finally:
        del OPS["Unsampled"]


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("softmax", ["Softmax"]),
        ("Softmax", ["Softmax"]),
        ("cross_entropy", ["CrossEntropy", "SoftCrossEntropy"]),
        ("scaled_dot_product_attention", ["Attention"]),
        ("normalization", ["LayerNorm", "RMSNorm"]),
        ("stack", ["Concatenate"]),
        ("sum", ["Sum"]),
    ],
)
def test_ops_are_found_by_class_function_and_file(name, ops):
    assert [row.op for row in check_ops([name], ["numpy"], ["float64"])] == ops


def test_an_unknown_op_is_refused_with_a_guess():
    with pytest.raises(ValueError, match="no op named 'sofmax'; did you mean softmax"):
        list(check_ops(["sofmax"]))


@pytest.mark.skipif("native" not in KERNEL_SETS, reason=f"native kernels: {kernels.native.REASON}")
@pytest.mark.parametrize("op", ["Tanh", "Add", "Reshape", "Sum"])
def test_an_op_without_kernels_does_not_pass_for_a_kernel_set(op):
    (row,) = check_ops([op], ["native"], ["float64"])
    assert row.passed is None and row.method == "not run: no kernel, plain array expressions"
