"""Every routine of every kernel set, in every dtype, against the float64 NumPy definition."""

import zlib

import ml_dtypes
import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels.contract import ROUTINES, Unsupported

from .cases import CASES
from .tolerance import FLOAT32_ONLY, IN_PLACE, C, compare

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
# NumPy in float64 would be compared with itself.
RUNS = [("numpy", dtype) for dtype in (*HALVES, np.dtype(np.float32))]
RUNS += [("native", dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))]
RUNS += [("cuda-emulated", dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64), *HALVES)]
PAIRS = [
    pytest.param(routine, *run, id=f"{routine}-{run[0]}-{run[1]}")
    for routine in ROUTINES
    for run in RUNS
    if run[0] != "cuda-emulated" or routine in kernels.cuda.ROUTINES  # the others are array expressions there
]


def samples(routine, dtype):
    """The routine's cases: the same ones in every run."""
    return CASES[routine](np.random.default_rng(zlib.crc32(routine.encode())), dtype)


@pytest.mark.parametrize("routine", ROUTINES)
def test_every_routine_has_cases_and_a_tolerance(routine):
    assert routine in CASES, f"{routine} has no cases: add a generator to tests/kernels/cases/"
    assert routine in C, f"{routine} has no line in tests/kernels/tolerance.py"


@pytest.mark.parametrize(("routine", "kernel_set", "dtype"), PAIRS)
def test_agrees_with_the_float64_definition(routine, kernel_set, dtype, implementations):
    implementation = implementations(kernel_set).get(routine)
    if implementation is None:
        pytest.skip(f"{kernel_set} does not define {routine}")
    if kernel_set == "native" and dtype == np.float64 and routine in FLOAT32_ONLY:
        case = next(iter(samples(routine, dtype)))
        with pytest.raises(Unsupported):
            implementation(*case.args, **case.kwargs)
        return
    count = 0
    for case in samples(routine, dtype):
        worst = compare(routine, implementation, case, dtype)
        assert worst <= 1, f"{worst.where}: {worst:.3g} times the error allowed"
        count += 1
    assert count, f"{routine}: the generator yields no case"


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("routine", [r for r in ROUTINES if r != "random_bits"])
def test_native_refuses_half_precision_so_that_the_fallback_runs(routine, dtype, implementations):
    implementation = implementations("native")[routine]
    case = next(iter(samples(routine, dtype)))
    with pytest.raises(Unsupported):
        implementation(*case.args, **case.kwargs)


def test_every_call_of_the_cases_passes_the_contract():
    """The cases are valid input: a case that the contract refuses would test what no user can reach."""
    for routine in ROUTINES:
        for case in samples(routine, np.dtype(np.float32)):
            ROUTINES[routine](*case.args, **case.kwargs)


def _zeroed(result):
    return np.zeros_like(result)


def _rotated(result):
    """Right numbers in the wrong places."""
    return np.roll(result, 1)


def _enlarged(result):
    """Two in a thousand too large, an integer by one."""
    if result.dtype.kind in "iu":
        return result + result.dtype.type(1)
    return np.asarray(result * result.dtype.type(1.002))


def _negated(result):
    return np.asarray(-result)


def _damaged(definition, damage, index, written):
    """The definition with one of its results spoilt."""

    def implementation(*args, **kwargs):
        result = definition(*args, **kwargs)
        if written:
            args[written[index]][...] = damage(args[written[index]])
        elif isinstance(result, tuple):
            return tuple(damage(r) if i == index and r is not None else r for i, r in enumerate(result))
        return None if written else damage(result)

    return implementation


@pytest.mark.parametrize("damage", [_zeroed, _rotated, _enlarged, _negated], ids=lambda f: f.__name__[1:])
@pytest.mark.parametrize("routine", [r for r in ROUTINES if r not in ("random_bits", "squared_norm")])
def test_a_damaged_result_is_rejected(routine, damage):
    """The comparison can fail: each result of each routine, spoilt by itself, is refused in at least one case."""
    dtype, definition, written = np.dtype(np.float32), kernels.numpy.ROUTINES[routine], IN_PLACE.get(routine, ())
    first = next(iter(samples(routine, dtype)))
    result = None if written else definition(*first.args, **first.kwargs)
    for index in range(len(written) or (len(result) if isinstance(result, tuple) else 1)):
        implementation = _damaged(definition, damage, index, written)
        assert any(compare(routine, implementation, case, dtype) > 1 for case in samples(routine, dtype)), index
