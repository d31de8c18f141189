"""What the native row-wise kernels promise beyond the right numbers: the same bits always, and no wild reads."""

import numpy as np
import pytest

from minitransformer import kernels

F32 = np.float32


@pytest.fixture
def native(implementations):
    return implementations("native")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embedding_gradients_add_up_in_the_order_of_the_tokens(native, dtype):
    rng = np.random.default_rng(0)
    dy, indices = rng.standard_normal((3000, 40)).astype(dtype), rng.integers(0, 50, 3000)
    expected = kernels.numpy.ROUTINES["embedding_backward"](dy, indices, 60)
    assert np.array_equal(native["embedding_backward"](dy, indices, 60), expected)


def test_a_softmax_does_not_depend_on_its_axis_or_neighbours(native):
    """One line gives the same bits alone and among others; along other axes only the order of the sum differs."""
    x = np.random.default_rng(1).standard_normal((50, 130)).astype(F32)
    whole = native["softmax"](x, -1)
    assert all(np.array_equal(native["softmax"](x[i], 0), whole[i]) for i in range(50))
    assert np.allclose(native["softmax"](np.ascontiguousarray(x.T), 0).T, whole, rtol=130 * np.finfo(F32).eps, atol=0)


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


HYPER = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
READ_ONLY = np.broadcast_to(F32(0), (4,))
BAD = [
    ("softmax", (zeros(3, 4), 2), {}, ValueError, "axis 2"),
    ("softmax", (zeros(), 0), {}, ValueError, "axis 0"),
    ("softmax_backward", (zeros(3, 4), zeros(4, 3), 0), {}, ValueError, "dy"),
    ("softmax_backward", (zeros(3, 4, dtype=float), zeros(3, 4), 0), {}, TypeError, "dy"),
    ("log_softmax_backward", (zeros(3), zeros(4), 0), {}, ValueError, "dy"),
    ("layer_norm_forward", (zeros(), zeros(1), None, 1e-5), {}, ValueError, "x must have"),
    ("layer_norm_forward", (zeros(3, 4), zeros(3), None, 1e-5), {}, ValueError, "weight"),
    ("layer_norm_forward", (zeros(3, 4), zeros(4), zeros(3), 1e-5), {}, ValueError, "bias"),
    ("layer_norm_backward", (zeros(3, 4), zeros(3, 4), zeros(4), zeros(4), zeros(3)), {}, ValueError, "mean"),
    ("layer_norm_backward", (zeros(3, 4), zeros(3, 4), zeros(4), zeros(3), zeros(2)), {}, ValueError, "rstd"),
    ("rms_norm_forward", (zeros(3, 4), zeros(4, dtype=float), 1e-5), {}, TypeError, "weight"),
    ("rms_norm_backward", (zeros(2, 4), zeros(3, 4), zeros(4), zeros(3)), {}, ValueError, "dy"),
    ("gelu", (zeros(3), "erf"), {}, ValueError, "approximate"),
    ("gelu_backward", (zeros(2), zeros(3), "none"), {}, ValueError, "dy"),
    ("silu_backward", (zeros(2), zeros(3)), {}, ValueError, "dy"),
    ("cross_entropy_forward", (zeros(3, 4), np.array([0, 1, 4])), {}, IndexError, "targets"),
    ("cross_entropy_forward", (zeros(3, 4), np.array([0, 1, -1])), {}, IndexError, "targets"),
    ("cross_entropy_forward", (zeros(3, 4), np.array([0, 1, 2**63], np.uint64)), {}, IndexError, "targets"),
    ("cross_entropy_forward", (zeros(3, 4), np.array([0, 1])), {}, ValueError, "targets"),
    ("cross_entropy_forward", (zeros(3, 4), zeros(3)), {}, TypeError, "targets"),
    ("cross_entropy_forward", (zeros(12), np.array([0])), {}, ValueError, "logits"),
    ("cross_entropy_forward", (zeros(1, 4), np.array([0])), {"label_smoothing": 1.5}, ValueError, "label_smoothing"),
    ("cross_entropy_backward", (zeros(2), zeros(3, 4), np.array([0, 1, 2]), zeros(3)), {}, ValueError, "dlosses"),
    ("cross_entropy_backward", (zeros(3), zeros(3, 4), np.array([0, 1, 2]), zeros(4)), {}, ValueError, "lse"),
    ("embedding_backward", (zeros(3, 4), np.array([0, 1, 5]), 5), {}, IndexError, "indices"),
    ("embedding_backward", (zeros(3, 4), np.array([0, -1, 2]), 5), {}, IndexError, "indices"),
    ("embedding_backward", (zeros(3, 4), np.array([0, 1]), 5), {}, ValueError, "dy"),
    ("embedding_backward", (zeros(0, 4), np.zeros(0, int), -1), {}, ValueError, "rows"),
    ("dropout", (zeros(3), 1.0, 0, 0), {}, ValueError, "p must"),
    ("dropout", (zeros(3), float("nan"), 0, 0), {}, ValueError, "p must"),
    ("random_bits", (0, 0, -1), {}, ValueError, "count"),
    ("adamw_step", (zeros(4), zeros(3), zeros(4), zeros(4)), HYPER, ValueError, "gradient"),
    ("adamw_step", (zeros(4), zeros(4), zeros(3), zeros(4)), HYPER, ValueError, "m must"),
    ("adamw_step", (zeros(4), zeros(4), zeros(4), zeros(8)[::2]), HYPER, ValueError, "v is updated in place"),
    ("adamw_step", (READ_ONLY, zeros(4), zeros(4), zeros(4)), HYPER, ValueError, "parameter is updated in place"),
    ("adamw_step", (zeros(4), zeros(4), zeros(4), zeros(4, dtype=float)), HYPER, TypeError, "v is"),
    ("adamw_step", (zeros(4), zeros(4), zeros(4), zeros(4)), HYPER | {"step": 0}, ValueError, "step"),
]


@pytest.mark.parametrize(("routine", "args", "kwargs", "error", "words"), BAD, ids=[f"{b[0]}-{b[4]}" for b in BAD])
def test_the_border_refuses(native, routine, args, kwargs, error, words):
    """Past the contract's checks, as a caller of the extension itself would: an exception that names the argument."""
    with pytest.raises(error, match=words):
        native[routine](*args, **kwargs)


def test_misaligned_and_byte_swapped_arrays_are_read_right(native):
    x = np.random.default_rng(2).standard_normal(37).astype(F32)
    raw = np.zeros(4 * 37 + 1, np.uint8)
    misaligned = raw[1:].view(F32)
    misaligned[:] = x
    assert np.array_equal(native["silu"](misaligned), native["silu"](x))
    assert native["squared_norm"](misaligned) == native["squared_norm"](x)
    with pytest.raises(kernels.Unsupported):
        native["silu"](x.astype(x.dtype.newbyteorder()))
