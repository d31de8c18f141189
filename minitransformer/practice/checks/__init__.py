"""What a right answer must do: checks by exercise, run in a process of their own.

    @check("02.1", "three tokens, on paper")
    def paper(attention_forward):              # the person's function or class
        equal("o", attention_forward(...), expected, inputs={"q": q})

A check returns where the answer is right and raises `Wrong` where it is not: with the input, small, the expected and
the got value and the worst place. Checks run from small inputs to large, so the first that fails is easy to look at.
Expected values come from the NumPy kernels, brute force or arithmetic; tolerances are c·eps·√terms of the largest
expected entry, and what should be equal bit for bit is compared so.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import types
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import kernels

__all__ = ["Check", "Wrong", "arrays", "check", "checks_of", "cost", "cost_of", "equal", "forbid", "forbidden",
           "frozen", "only", "parts", "shown"]  # fmt: skip

MODULES = {
    "01": "autograd", "02": "attention", "03": "multi_head_attention", "04": "gpt", "05": "what_heads_look_at",
    "06": "recurrence", "07": "optimisation", "08": "sampling", "09": "scaling", "10": "flash_attention",
    "11": "quantized_gemm", "12": "topk_activation", "13": "cuda",
}  # fmt: skip


class Wrong(Exception):
    """The answer is wrong: the message says where, in a few lines."""


@dataclass(frozen=True)
class Check:
    title: str
    run: Callable


@dataclass(frozen=True)
class Cost:
    """A work load: build() -> (arguments, keyword arguments); others: name -> function that does the same work."""

    load: str
    build: Callable
    others: dict[str, Callable]


_checks: dict[str, list[Check]] = {}
_costs: dict[str, Cost] = {}
_forbidden: dict[str, tuple[str, ...]] = {}


def check(number: str, title: str):
    """Enter a function as a check of an exercise; it is given what the person wrote."""

    def enter(function):
        _checks.setdefault(number, []).append(Check(title, function))
        return function

    return enter


def cost(number: str, load: str, **others):
    """Enter a work load whose time and memory are shown beside the others'; it never decides."""

    def enter(build):
        _costs[number] = Cost(load, build, others)
        return build

    return enter


def forbid(number: str, *routines: str) -> None:
    """Kernels of the engine that would be the answer: while the answer is checked, calling them is an error."""
    _forbidden[number] = routines


def checks_of(number: str) -> list[Check]:
    """The checks of exercise "02.1". Raises ValueError where it has none: nothing would be proved."""
    module = MODULES.get(number[:2])
    if module is not None:
        importlib.import_module(f".{module}", __name__)
    if number not in _checks:
        raise ValueError(f"exercise {number} has no checks: add them to minitransformer/practice/checks/")
    return _checks[number]


def cost_of(number: str) -> Cost | None:
    return _costs.get(number)


@contextlib.contextmanager
def forbidden(number: str):
    """The engine without the kernels that the exercise asks for."""

    def refuse(routine):
        def call(*args, **kwargs):
            raise RuntimeError(f"{routine} of the engine is what you are to write: not available here")

        return call

    if number not in _forbidden:
        yield
        return
    refusing = types.ModuleType("practice")
    vars(refusing).update({routine: refuse(routine) for routine in _forbidden[number]})
    with kernels.use(refusing):
        yield


@contextlib.contextmanager
def only(routine: str, function):
    """The engine with the person's routine, and the fastest set for the rest: what `train --kernels` does."""
    mine = types.ModuleType("yours")
    setattr(mine, routine, function)
    with kernels.use(mine):
        yield


# ---------------------------------------------------------------- comparing


def arrays(seed: int, *shapes, dtype=np.float64) -> list[np.ndarray]:
    """Standard normal arrays, read-only: an answer that edits its input is told so by NumPy."""
    rng = np.random.default_rng(seed)
    return [frozen(np.asarray(rng.standard_normal(shape), dtype)) for shape in shapes]


def frozen(array):
    array.flags.writeable = False
    return array


def equal(name, got, expected, inputs=None, *, terms=1, condition=1.0, exact=False) -> None:
    """Raise `Wrong` unless got is expected: kind, shape, dtype, then every entry.

    inputs: {name: value} to be shown. terms: how many numbers are added up for one entry; condition: by how much a
    rounding on the way grows (a score of 1e4 under an exp: 1e4). exact: bit for bit.
    """
    expected = np.asarray(expected)
    given = "".join(f"\n{label} = {shown(value)}" for label, value in (inputs or {}).items())
    if isinstance(got, (bool, int, float, np.generic)) and expected.ndim == 0:
        got = np.asarray(got, None if isinstance(got, np.generic) else expected.dtype)
    if not isinstance(got, np.ndarray):
        raise Wrong(f"{name} must be an array of shape {expected.shape}, got {_kind(got)}{given}")
    if got.shape != expected.shape:
        raise Wrong(f"{name} must have shape {expected.shape}, got {got.shape}{given}")
    if (expected.dtype.kind == "f" and got.dtype != expected.dtype) or got.dtype.kind not in "fiub":
        raise Wrong(f"{name} must be {expected.dtype}, got {got.dtype}{given}")
    if not got.size:
        return
    wide, right = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (wide == right) | (np.isnan(wide) & np.isnan(right))
        error = np.where(same, 0.0, np.abs(wide - right))
    error = np.where(np.isfinite(error), error, math.inf)
    finite = np.abs(right[np.isfinite(right)])
    eps = np.finfo(expected.dtype).eps if expected.dtype.kind == "f" else 0.0
    allowed = 0.0 if exact else 64 * eps * math.sqrt(max(1, terms)) * condition * finite.max(initial=0.0)
    if error.max() > allowed:
        at = np.unravel_index(error.argmax(), error.shape)
        place = f"{name}[{', '.join(map(str, map(int, at)))}]" if at else name
        bits = ", and must be equal bit for bit" if exact else ""
        raise Wrong(
            f"expected {name} = {shown(expected)}\ngot      {name} = {shown(got)}\n"
            f"worst: {place} is {wide[at]:.10g}, expected {right[at]:.10g}{bits}{given}"
        )


def shown(value) -> str:
    """A value, small: an array with its shape where it has more than a few entries."""
    if not isinstance(value, np.ndarray):
        text = f"{value.__name__}" if callable(value) and hasattr(value, "__name__") else repr(value)
        return text if len(text) <= 200 else f"{text[:200]} …"
    where = f"shape {value.shape}" + ("" if value.dtype == np.float64 else f", {value.dtype}")
    while value.ndim > 2 and len(value) == 1:
        value = value[0]  # fewer brackets; the shape has been told
    with np.printoptions(precision=4, suppress=True, threshold=24, edgeitems=2, linewidth=88):
        text = str(value) if value.dtype.kind in "fc" else repr(value.tolist())
    lines = text[:900].splitlines()
    return f"({where}) {lines[0]}" if len(lines) == 1 else f"({where})\n" + "\n".join(f"    {line}" for line in lines)


def _kind(value):
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None: is a `return` missing?" if value is None else f"{type(value).__name__} {shown(value)}"


def parts(name: str, got, count: int) -> tuple:
    """A tuple of so many results; raises `Wrong` otherwise."""
    if not isinstance(got, tuple) or len(got) != count:
        raise Wrong(f"{name} must return a tuple of {count}, got {_kind(got)}")
    return got
