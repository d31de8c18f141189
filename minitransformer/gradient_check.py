"""Gradient checks: is a backward the derivative of its forward?

    mt.gradcheck(lambda x: mt.softmax(x), mt.tensor(rng.normal(size=(3, 5)), requires_grad=True))

Central differences in float64. The cotangent is random, never a plain sum: the gradient of a softmax's sum is 0, so a
backward that returns zeros would pass. Small functions are compared entry by entry (the full Jacobian), large ones
along one random direction. A derivative of about 0 everywhere fails unless it was announced, since it would prove
nothing.

`check_ops` runs the samples of every op (`ops/samples.py`) on a kernel set and says for each row how it was checked.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from . import kernels
from .function import OPS
from .graph import enable_grad, run_backward
from .kernels.contract import FLOATS
from .kernels.devices import device as open_device
from .kernels.devices import fetch, is_array, snapshot
from .random import Generator
from .tensor import Tensor, as_dtype

__all__ = ["GradientError", "Result", "Row", "check_ops", "gradcheck"]

STEP = 1e-6  # truncation ~STEP², rounding ~eps/STEP: both below 1e-9
TOLERANCE = 1e-6
FULL_JACOBIAN = 4096  # entries; beyond that one random direction


class GradientError(AssertionError):
    """A backward is not the derivative of its forward; the message shows input, index, got and expected."""


@dataclass(frozen=True)
class Worst:
    """The worst entry of a check: which input, where in it, and the two numbers."""

    input: int
    index: tuple
    got: float
    expected: float
    value: np.ndarray

    def __str__(self):
        shown = np.array2string(self.value, precision=4, threshold=40, suppress_small=True).replace("\n", "\n    ")
        return (
            f"input {self.input} at index {self.index}: got {self.got:.10g}, expected {self.expected:.10g}\n"
            f"  input {self.input}, shape {self.value.shape}:\n    {shown}"
        )


@dataclass(frozen=True)
class Result:
    """What a check found. Truthy where it passed. error: the worst difference over the largest expected entry."""

    passed: bool
    error: float
    method: str
    worst: Worst | None = None
    reason: str = ""

    def __bool__(self):
        return self.passed

    def __str__(self):
        verdict = "passed" if self.passed else "FAILED"
        text = f"gradient check {verdict}: worst relative error {self.error:.2e} ({self.method})"
        text += f"; {self.reason}" if self.reason else ""
        return text if self.passed or self.worst is None else f"{text}\n  {self.worst}"


def gradcheck(function, *inputs, tolerance=TOLERANCE, step=STEP, zero=(), seed=0, raise_on_failure=True) -> Result:
    """Check the gradients of function(*inputs) for every float input that requires one.

    function: takes the tensors, returns a tensor or a tuple. inputs: float64 tensors; a float64 array counts as a
    tensor that requires a gradient. A function may also close over the tensors (a model's parameters): pass them as
    inputs and ignore the arguments. zero: numbers of inputs whose derivative is truly 0. tolerance: on the worst
    difference over the largest entry. Returns a `Result`. Raises GradientError where the check fails (unless
    raise_on_failure=False), TypeError for inputs that are not float64, ValueError where no input requires a gradient
    or a run is not repeatable.
    """
    tensors = tuple([x if isinstance(x, Tensor) or x is None else _checked_input(x) for x in inputs])
    wanted = [i for i, t in enumerate(tensors) if t is not None and t.requires_grad]
    for i in wanted:
        if tensors[i].dtype != np.float64:
            raise TypeError(
                f'gradcheck: input {i} is {tensors[i].dtype}; finite differences need float64: x.to("float64")'
            )
    if not wanted:
        raise ValueError("gradcheck: no input requires a gradient; pass requires_grad=True or a float64 array")
    with enable_grad():
        result = _check(function, tensors, wanted, tolerance, step, frozenset(zero), Generator(seed))
    if raise_on_failure and not result.passed:
        raise GradientError(str(result))
    return result


def _checked_input(array):
    array = array if is_array(array) else np.asarray(array)
    return Tensor(array.copy(), requires_grad=array.dtype == np.float64)


def _outputs(function, tensors):
    outputs = function(*tensors)
    floats = [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y.dtype in FLOATS]
    if not floats:
        raise ValueError("gradcheck: the function returns no float tensor, so there is nothing to differentiate")
    return floats


def _flat(outputs):
    """All outputs in one NumPy array: a check compares on the CPU, wherever the function computes."""
    return np.concatenate([fetch(y.data).reshape(-1) for y in outputs])


def _gradients(function, tensors, wanted, cotangent):
    """The gradient of cotangent · outputs for each wanted input, by our backward, as NumPy arrays."""
    for t in tensors:
        if t is not None:
            t.grad = None
    outputs, start = _outputs(function, tensors), 0
    for i, y in enumerate(outputs):
        dy = cotangent[start : start + y.size].reshape(y.shape).astype(y.dtype)
        start += y.size
        if y.requires_grad:
            run_backward(y, open_device(y.device).put(dy), retain_graph=i + 1 < len(outputs))
    found = []
    for t in [tensors[i] for i in wanted]:
        found.append(np.zeros(t.shape, t.dtype) if t.grad is None else fetch(t.grad))
        t.grad = None
    return found


def _check(function, tensors, wanted, tolerance, step, zero, generator):
    before = [snapshot(t.data) for t in tensors if t is not None]
    base = _flat(_outputs(function, tensors))
    if not np.array_equal(base, _flat(_outputs(function, tensors)), equal_nan=True):
        raise ValueError(
            "gradcheck: two runs differ; give random ops a fresh Generator with a fixed seed inside the function"
        )
    after = [fetch(t.data) for t in tensors if t is not None]
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(after, before, strict=True)):
        raise ValueError("gradcheck: the function edits its inputs in place")
    if not np.isfinite(base).all():
        return Result(False, math.inf, "finite differences", reason="the function is not finite at this input")

    cotangent = generator.normal(base.size, dtype=np.float64)
    entries = base.size * sum(tensors[i].size for i in wanted)
    if entries <= FULL_JACOBIAN:
        return _full(function, tensors, wanted, base.size, cotangent, tolerance, step, zero)
    return _direction(function, tensors, wanted, cotangent, tolerance, step, zero, generator)


def _full(function, tensors, wanted, size, cotangent, tolerance, step, zero):
    """Every entry of the Jacobian, and one random cotangent, which a backward that is not linear in it fails."""
    rows = [_gradients(function, tensors, wanted, row) for row in np.eye(size)]
    mixed = _gradients(function, tensors, wanted, cotangent)
    worst, error, method = None, 0.0, "finite differences, full Jacobian"
    for position, i in enumerate(wanted):
        x = tensors[i].data
        expected = np.zeros((size + 1, x.size))
        for column, at in enumerate(np.ndindex(x.shape)):
            expected[:size, column] = _difference(function, tensors, x, at, step)
        expected[size] = cotangent @ expected[:size]
        got = np.stack([row[position].reshape(-1) for row in [*rows, mixed]])
        scale = np.abs(expected).max(initial=0.0)
        vanishes = scale < 1e-8
        if vanishes and x.size and i not in zero:
            return _proves_nothing(method, i)
        difference = np.abs(got - expected) / (1.0 if vanishes else scale)
        difference = np.where(np.isnan(difference), math.inf, difference)
        if difference.size and (worst is None or difference.max() > error):
            row, column = np.unravel_index(difference.argmax(), difference.shape)
            error = float(difference.max())
            at = tuple(int(n) for n in np.unravel_index(column, x.shape))
            worst = Worst(i, at, float(got[row, column]), float(expected[row, column]), snapshot(x))
    return Result(bool(error <= tolerance), error, method, worst)


def _proves_nothing(method, i):
    reason = f"the derivative in input {i} is about 0 everywhere, which proves nothing (zero=({i},) allows it)"
    return Result(False, math.inf, method, reason=reason)


def _difference(function, tensors, x, at, step):
    kept = float(x[at])
    x[at] = kept + step
    above = _flat(_outputs(function, tensors))
    x[at] = kept - step
    below = _flat(_outputs(function, tensors))
    x[at] = kept
    return (above - below) / (2 * step)


def _direction(function, tensors, wanted, cotangent, tolerance, step, zero, generator):
    """One random direction an input, so that no input hides behind another."""
    found = _gradients(function, tensors, wanted, cotangent)
    worst, error, method = None, 0.0, "finite differences, one direction"
    for position, i in enumerate(wanted):
        x, put = tensors[i].data, open_device(tensors[i].device).put
        kept, direction = snapshot(x), generator.normal(x.shape, dtype=np.float64)
        direction /= max(1.0, np.abs(direction).max(initial=0.0))
        sides = []
        for sign in (step, -step):
            x[...] = put(kept + sign * direction)
            sides.append(float(cotangent @ _flat(_outputs(function, tensors))))
        x[...] = put(kept)
        expected, got = (sides[0] - sides[1]) / (2 * step), float((found[position] * direction).sum())
        # What the sum could have been, had the terms not cancelled; and the noise of the difference itself.
        scale = max(
            abs(expected),
            float(np.linalg.norm(found[position]) * np.linalg.norm(direction)) / math.sqrt(max(1, x.size)),
        )
        noise = 4 * np.finfo(np.float64).eps * max(abs(s) for s in sides) / step
        if scale <= max(noise, 1e-8) and i not in zero and x.size:
            return _proves_nothing(method, i)
        difference = max(0.0, abs(got - expected) - noise) / (scale if scale > 1e-8 else 1.0)
        if worst is None or difference > error or math.isnan(difference):
            error = math.inf if math.isnan(difference) else difference
            worst = Worst(i, (), got, expected, kept)
    return Result(bool(error <= tolerance), error, method, worst)


# ---------------------------------------------------------------- all ops, on a kernel set


@dataclass(frozen=True)
class Row:
    """One line of the table. passed is None where the kernel set had no part in the op, which is not a pass."""

    op: str
    kernels: str
    dtype: str
    method: str
    error: float | None
    passed: bool | None
    detail: str = ""

    def as_dict(self) -> dict:
        return {key: getattr(self, key) for key in ("op", "kernels", "dtype", "method", "error", "passed")}


def check_ops(names=None, kernel_sets=None, dtypes=("float64", "float32"), device=None):
    """Yield a `Row` for each op × kernel set × dtype.

    names: class names or function names of ops, None for all. kernel_sets: names or modules; None for
    `everyday_sets()`. device: where the arrays live, "cpu" unless the set is "cuda". Ops without a kernel run the same
    array expressions everywhere and are checked once, under "numpy".
    Raises ValueError for an unknown op and for an op without samples.
    """
    from .ops.samples import SAMPLES

    kernel_sets = everyday_sets() if kernel_sets is None else list(kernel_sets)
    for op in _selected(names):
        if op not in SAMPLES:
            raise ValueError(f"op {op} has no samples: add them to ops/samples.py, so that its gradient is checked")
        for which in kernel_sets:
            label = which if isinstance(which, str) else which.__name__
            for dtype in dtypes:
                place = open_device(device or ("cuda" if which == "cuda" else "cpu"))
                yield _row(op, SAMPLES[op], which, label, as_dtype(dtype), place)


def everyday_sets() -> list[str]:
    """The kernel sets that a check is run on unless told: all there are, without the emulator, which compiles first."""
    return [name for name, reason in kernels.available().items() if not reason and name != "cuda-emulated"]


def _selected(names):
    """Ops by class (CrossEntropy), by a function that runs them (cross_entropy), or by file (normalization)."""
    from .ops import FUNCTIONS

    files: dict[str, list] = {}
    for op, cls in OPS.items():
        files.setdefault(cls.__module__.rpartition(".")[2], []).append(op)
    functions = {name: [op for op in f.__code__.co_names if op in OPS] for name, f in FUNCTIONS.items()}
    functions["stack"] = functions["cat"]
    known = {}
    for names_to_ops in (files, {op: [op] for op in OPS}, functions):  # the later wins
        known |= {name.lower().replace("_", ""): ops for name, ops in names_to_ops.items() if ops}
    chosen = []
    for name in names or OPS:
        plain = name.lower().replace("_", "")
        if name in OPS:
            chosen.append(name)
            continue
        if plain not in known:
            close = difflib.get_close_matches(plain, known, 3, 0.7)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(OPS)}"
            raise ValueError(f"no op named {name!r}; {hint}")
        chosen += known[plain]
    return list(dict.fromkeys(chosen))


def _row(op, samples, which, label, dtype, place):
    """The worst sample of one op on one kernel set in one dtype, with its arrays on the device `place`."""
    error, method = 0.0, ""
    for number, sample in enumerate(samples(Generator(number_of(op)))):
        with kernels.use(which):
            try:
                ran = kernels.explain(lambda s=sample: _gradients_of(s, dtype, place))
                sources = {call.source for call in ran}
                if label != "numpy" and label not in sources:
                    return Row(op, label, str(dtype), "not run: " + _why_not(ran, label), None, None)
                result = _finite(sample, place) if dtype == np.float64 else _against_float64(sample, dtype, place)
            except Exception as failure:  # a broken kernel may raise anything; the table must show it and go on
                return Row(
                    op,
                    label,
                    str(dtype),
                    "error",
                    math.inf,
                    False,
                    f"sample {number}: {type(failure).__name__}: {failure}",
                )
        if not result.passed:
            return Row(
                op, label, str(dtype), result.method, result.error, False, f"sample {number} ({sample.note}): {result}"
            )
        if not method or result.error >= error:
            error, method = max(error, result.error), result.method
    return Row(op, label, str(dtype), method, error, True)


def number_of(op: str) -> int:
    """A seed of the op's own, so that adding an op does not change the samples of another."""
    return int.from_bytes(op.encode()[:8].ljust(8, b"\0"), "little")


def _why_not(ran, label):
    if not ran:
        return "no kernel, plain array expressions"
    fallback = next((call.why for call in ran if call.why), "")
    return fallback or f"{label} serves none of its kernels"


CPU = open_device("cpu")


def _tensors(sample, dtype, place=CPU):
    return tuple([
        Tensor(_strided(x, dtype, place), requires_grad=x.dtype == np.float64) if isinstance(x, np.ndarray) else x
        for x in sample.inputs
    ])  # fmt: skip


def _strided(x, dtype, place):
    """A copy in a dtype on a device, with gaps and reversed axes where x has them: a plain copy would be packed."""
    copy = place.put(np.array(x, dtype if x.dtype == np.float64 else None))
    if x.flags.forc:
        return copy
    steps = tuple(slice(None, None, 2 if stride > 0 else -2) for stride in x.strides)
    spaced = place.arrays.empty([2 * n for n in x.shape], dtype=copy.dtype)[steps]
    spaced[...] = copy
    return spaced


def _gradients_of(sample, dtype, place=CPU):
    """(outputs, gradients) of a sample under a fixed random cotangent."""
    tensors = _tensors(sample, dtype, place)
    wanted = [i for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad]
    base = _flat(_outputs(sample.function, tensors))
    with kernels.use("numpy"):  # so that its random bits do not count as a kernel that the op ran
        cotangent = Generator(1).normal(base.size, dtype=np.float64)
    return base, _gradients(sample.function, tensors, wanted, cotangent), wanted, tensors


def _finite(sample, place):
    return gradcheck(sample.function, *_tensors(sample, np.float64, place), zero=sample.zero, raise_on_failure=False)


def _against_float64(sample, dtype, place):
    """Outputs and gradients in a low precision against the NumPy kernels' in float64."""
    base, found, wanted, tensors = _gradients_of(sample, dtype, place)
    with kernels.use("numpy"):
        exact_base, exact, _, _ = _gradients_of(sample, np.dtype(np.float64))
    tolerance = 64 * float(ml_dtypes.finfo(dtype).eps) * sample.condition
    error, worst = 0.0, None
    for i, got, expected in [(-1, base, exact_base), *zip(wanted, found, exact, strict=True)]:
        scale = np.abs(expected).max(initial=0.0)
        difference = np.abs(got.astype(np.float64) - expected) / (scale if scale > 1e-8 else 1.0)
        difference = np.where(np.isnan(difference), math.inf, difference)
        if difference.size and (worst is None or difference.max() > error):
            at = np.unravel_index(difference.argmax(), difference.shape)
            error = float(difference.max())
            value = fetch(tensors[i].data) if i >= 0 else base
            worst = Worst(i, tuple(int(n) for n in at), float(got[at]), float(expected[at]), value)
    return Result(error <= tolerance, error, "float64 NumPy backward", worst)
