"""Kernels: array in, array out. One contract, several hands.

    kernels.softmax(x, axis)                  # the fastest implementation there is
    with kernels.use("numpy"): ...            # numpy | native | a module of yours
    with kernels.use("native", strict=True):  # a fallback becomes an error
    kernels.explain(fn, x)                    # which implementation ran for each call, and why

Every routine of `contract.py` is a function of this module. A call runs the contract's checks, then the implementation
that the current table holds. Tables are resolved in `use()`, once, not at each call.
"""

from __future__ import annotations

import contextvars
import difflib
import functools
import types
from dataclasses import dataclass, field

from . import native as _native
from . import numpy as _numpy
from .contract import ROUTINES, Unsupported

__all__ = ["use", "current", "available", "explain", "KernelSet", "Unsupported", *ROUTINES]


@dataclass(frozen=True)
class KernelSet:
    """A resolved table: for each routine the implementation that runs, and whose it is."""

    name: str
    strict: bool
    table: dict = field(repr=False)  # routine -> callable
    source: dict = field(repr=False)  # routine -> "numpy" | "native" | the module's name
    note: dict = field(repr=False)  # routine -> why it is not `name`'s own, where it is not


def _implementations(which):
    """(label, {routine: callable}) of a name or a module."""
    if isinstance(which, types.ModuleType):
        found = {r: getattr(which, r) for r in ROUTINES if callable(getattr(which, r, None))}
        if not found:
            close = [c for name in vars(which) for c in difflib.get_close_matches(name, ROUTINES, 1, 0.8)]
            hint = f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(ROUTINES)}"
            raise ValueError(f"{which.__name__} defines no routine of the kernel contract; {hint}")
        return which.__name__, found
    if which == "numpy":
        return "numpy", _numpy.ROUTINES
    if which == "native":
        if _native.ROUTINES is None:
            raise RuntimeError(f"the native kernels are not available: {_native.REASON}")
        return "native", _native.ROUTINES
    raise ValueError(f"no kernel set named {which!r}; known are {', '.join(available())}, or a module of yours")


def available() -> dict[str, str]:
    """Kernel set -> "" when it can be used, else the reason why not. The default is the last that can."""
    return {"numpy": "", "native": _native.REASON}


def _default_name():
    return [name for name, reason in available().items() if not reason][-1]


def _with_fallback(routine, label, first, fallback):
    def call(*args, **kwargs):
        try:
            return first(*args, **kwargs)
        except Unsupported:
            return fallback(*args, **kwargs)

    call.__name__ = routine
    call.first, call.fallback, call.label = first, fallback, label
    return call


def _resolve(which, strict) -> KernelSet:
    label, own = _implementations(which)
    # What a set lacks is filled from below: your module from the fastest set, the fastest set from NumPy.
    below = None
    if isinstance(which, types.ModuleType):
        below = _resolve(_default_name(), False)
    elif which != "numpy":
        below = _resolve("numpy", False)
    table, source, note = {}, {}, {}
    for routine in ROUTINES:
        if routine in own:
            source[routine] = label
            if below is None or strict:
                table[routine] = own[routine]
            else:
                table[routine] = _with_fallback(routine, label, own[routine], below.table[routine])
        elif strict:
            table[routine] = _refuse(routine, label)
            source[routine], note[routine] = label, f"{label} does not define it"
        else:
            table[routine], source[routine] = below.table[routine], below.source[routine]
            note[routine] = f"{label} does not define it"
    return KernelSet(label, strict, table, source, note)


def _refuse(routine, label):
    def call(*args, **kwargs):
        raise Unsupported(f"{label} does not define {routine}, and strict=True forbids a fallback")

    return call


_cache: dict = {}


def _lookup(which, strict):
    if isinstance(which, KernelSet):
        return which
    if isinstance(which, types.ModuleType):
        return _resolve(which, strict)  # a module may be edited and reloaded, so it is not cached
    key = (which, strict)
    if key not in _cache:
        _cache[key] = _resolve(which, strict)
    return _cache[key]


_current: contextvars.ContextVar[KernelSet] = contextvars.ContextVar("kernel_set")
_fastest = _lookup(_default_name(), False)


def current() -> KernelSet:
    """The kernel set in use in this context."""
    return _current.get(_fastest)


class use:
    """Run a `with` body, or a decorated function, with one kernel set: "numpy", "native", a `KernelSet`, or a module
    that defines routines.

    What the set does not define, or cannot serve (it raises `Unsupported`), falls back to the next; `strict=True` makes
    that an error. Raises ValueError for an unknown name or a module without routines, RuntimeError for a set that is
    not available here.
    """

    def __init__(self, which, strict: bool = False):
        self._set, self._tokens = _lookup(which, strict), []

    def __enter__(self) -> KernelSet:
        self._tokens.append(_current.set(self._set))
        return self._set

    def __exit__(self, *exception):
        _current.reset(self._tokens.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            with use(self._set):  # an instance a call: two threads may run the function at once
                return function(*args, **kwargs)

        return call


@dataclass(frozen=True)
class Call:
    """One line of `explain`: the routine, the shapes it got, whose implementation ran, and why not another's."""

    routine: str
    shapes: str
    source: str
    why: str


class Explanation(list):
    """The calls in order; prints as a table."""

    def __str__(self):
        rows = [("routine", "arguments", "ran", "why")] + [(c.routine, c.shapes, c.source, c.why) for c in self]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0])).rstrip() for row in rows)


def explain(fn, *args, **kwargs) -> Explanation:
    """Run fn(*args, **kwargs) and report which implementation served each kernel call, and why."""
    base, calls = current(), Explanation()

    def recording(routine):
        def call(*call_args, **call_kwargs):
            implementation, source = base.table[routine], base.source[routine]
            why = base.note.get(routine, "")
            while hasattr(implementation, "fallback"):
                try:
                    result = implementation.first(*call_args, **call_kwargs)
                    break
                except Unsupported as reason:
                    why = f"{implementation.label}: {reason}"
                    implementation = implementation.fallback
                    source = getattr(implementation, "label", "numpy")
            else:
                result = implementation(*call_args, **call_kwargs)
            shapes = " ".join(f"{a.dtype}{list(a.shape)}" for a in call_args if hasattr(a, "dtype"))
            calls.append(Call(routine, shapes, source, why or f"kernel set in use: {base.name}"))
            return result

        return call

    traced = KernelSet(base.name, base.strict, {r: recording(r) for r in ROUTINES}, base.source, base.note)
    with use(traced):
        fn(*args, **kwargs)
    return calls


def _dispatcher(name, check):
    def call(*args, **kwargs):
        check(*args, **kwargs)
        return _current.get(_fastest).table[name](*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__, call.__module__, call.__wrapped__ = check.__doc__, __name__, check
    return call


for _name, _check in ROUTINES.items():
    globals()[_name] = _dispatcher(_name, _check)
