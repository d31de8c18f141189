"""How far a kernel may be from the float64 NumPy definition: c·eps(dtype)·√K·condition, c from one table.

K is the length of the longest sum behind a result and the condition is the size of its terms; both come with the case.
√K is how rounding errors of random sign add up. What remains for c is the number of roundings beside the sum, and the
last bits of exp, erf and tanh. A c is set from the formula and never widened to make a kernel pass.
"""

import ml_dtypes
import numpy as np

from minitransformer.kernels import numpy as reference

C = {
    "matmul": 2,
    "linear": 2,
    "linear_backward": 2,
    "quantize_rows": 0,  # bit for bit
    "quantized_gemm": 3,
    "matmul_bfloat16": 2,
    "attention_forward": 8,
    "attention_backward": 8,
    "attention_probabilities": 8,
    "paged_attention_forward": 8,
    "softmax": 2,
    "softmax_backward": 2,
    "log_softmax": 1,
    "log_softmax_backward": 1,
    "layer_norm_forward": 2,
    "layer_norm_backward": 1,
    "rms_norm_forward": 2,
    "rms_norm_backward": 1,
    "gelu": 3,
    "gelu_backward": 4,
    "silu": 3,
    "silu_backward": 4,
    "topk_activation": 0,  # a choice, not a sum
    "gathered_linear": 2,
    "gathered_sum": 2,
    "cross_entropy_forward": 1,
    "cross_entropy_backward": 2,
    "embedding_backward": 1,
    "dropout": 1,
    "random_bits": 0,  # bit for bit
    "adamw_step": 3,
    "squared_norm": 1,
}


IN_PLACE = {"adamw_step": (0, 2, 3)}  # routine -> the arguments that it updates
FLOAT32_ONLY = ("quantize_rows", "quantized_gemm", "matmul_bfloat16")  # the native kernels leave float64 to NumPy
FLOAT32_RESULTS = ("quantize_rows",)  # whatever the dtype of the inputs


class Ratio(float):
    """The worst error as a multiple of what is allowed; `where` says which output, index, got and expected."""

    where = ""


def compare(routine, implementation, case, dtype) -> Ratio:
    """Run `implementation` on the case, and the float64 definition on the same numbers: worst error / allowed error.

    Up to 1 is right. An AssertionError says what else is wrong: the number of results, a shape, a dtype, an input that
    was written to, an output that shares memory with an input.
    """
    written = IN_PLACE.get(routine, ())
    wide_args, wide_kwargs = [_widened(a) for a in case.args], {name: _widened(a) for name, a in case.kwargs.items()}
    expected = _results(written, reference.ROUTINES[routine](*wide_args, **wide_kwargs), wide_args)
    args = [a.copy() if i in written else a for i, a in enumerate(case.args)]
    inputs = [a for i, a in enumerate(case.args) if i not in written and isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in inputs]
    got = _results(written, implementation(*args, **case.kwargs), args)
    assert len(got) == len(expected), f"{routine}({case}): {len(got)} results, expected {len(expected)}"
    for a, bytes_before in zip(inputs, before):
        assert a.tobytes() == bytes_before, f"{routine}({case}): an input was written to"
        shared = any(isinstance(g, np.ndarray) and np.may_share_memory(a, g) for g in got)
        assert not shared, f"{routine}({case}): an output shares memory with an input"
    conditions = case.condition if isinstance(case.condition, tuple) else (case.condition,) * len(expected)
    dtype = np.dtype(np.float32) if routine in FLOAT32_RESULTS else dtype
    worst = Ratio(0)
    for i, (g, e, condition) in enumerate(zip(got, expected, conditions)):
        if e is None or g is None:
            assert g is e, f"{routine}({case}): output {i} is {type(g).__name__}, expected {type(e).__name__}"
            continue
        ratio = _worst(f"{routine}({case}): output {i}", g, e, condition, dtype, C[routine] * case.terms**0.5)
        worst = max(worst, ratio)
    return worst


def _widened(a):
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind not in "iub" else a


def _results(written, result, args):
    """The outputs as a tuple; of a routine that works in place, the arguments that it wrote."""
    if written:
        assert result is None, f"an in-place routine returns None, got {type(result).__name__}"
        return tuple(args[i] for i in written)
    return result if isinstance(result, tuple) else (result,)


def _worst(label, got, expected, condition, dtype, factor) -> Ratio:
    if isinstance(expected, np.ndarray):
        wanted = dtype if expected.dtype.kind == "f" else expected.dtype
        assert isinstance(got, np.ndarray), f"{label} is a {type(got).__name__}, expected an array"
        assert got.dtype == wanted, f"{label} is {got.dtype}, expected {wanted}"
        assert got.shape == expected.shape, f"{label} has shape {got.shape}, expected {expected.shape}"
        eps, floor = ml_dtypes.finfo(wanted).eps if expected.dtype.kind == "f" else 0, _underflow(wanted)
    else:  # a Python float
        assert type(got) is type(expected), f"{label} is a {type(got).__name__}, expected a {type(expected).__name__}"
        wanted, eps, floor = np.dtype(np.float64), np.finfo(np.float64).eps, 0.0
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.size == 0:
        return Ratio(0)
    allowed = factor * float(eps) * (np.abs(expected) if condition is None else condition) + floor
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(got - expected)
        rounded = expected.astype(wanted).astype(np.float64)  # inf where the dtype does not reach
        same = (got == expected) | (np.isnan(got) & np.isnan(expected)) | (np.isinf(rounded) & (got == rounded))
        ratios = np.where(same, 0.0, error / allowed)
    ratios = np.where(np.isnan(ratios) | (~same & ~np.isfinite(expected)), np.inf, ratios)
    at = np.unravel_index(np.argmax(ratios), ratios.shape)
    ratio = Ratio(ratios[at])
    ratio.where = f"{label}[{', '.join(map(str, map(int, at)))}] = {got[at]!r}, expected {expected[at]!r}"
    return ratio


def _underflow(dtype):
    """What is lost below the smallest normal number, where a result may be flushed to zero; a half is only rounded."""
    if dtype.kind in "iu":
        return 0.0
    info = ml_dtypes.finfo(dtype)
    return float(info.tiny if dtype.itemsize > 2 else info.smallest_subnormal)
