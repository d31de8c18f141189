"""Kernels: array in, array out. One contract, several hands.

    kernels.softmax(x, axis)                  # the fastest implementation there is for an array where x lives
    with kernels.use("numpy"): ...            # numpy | native | cuda | cuda-emulated | a module of yours
    with kernels.use("native", strict=True):  # a fallback becomes an error
    kernels.explain(fn, x)                    # which implementation ran for each call, and why

Every routine of `contract.py` is a function of this module. A call runs the contract's checks, then the implementation
that the current table holds for the device of its arrays. Tables are resolved once, not at each call.
"""

from __future__ import annotations

import contextvars
import dataclasses
import difflib
import functools
import types
from dataclasses import dataclass, field
from numbers import Integral

import numpy as _np

from . import cuda as _cuda
from . import native as _native
from . import numpy as _numpy
from .contract import ROUTINES, Unsupported
from .devices import DEVICES, device, device_of

__all__ = ["use", "current", "available", "explain", "device", "KernelSet", "Unsupported", *ROUTINES]

# Whose arrays a set takes, and for arrays of a device the sets there are, the fastest first. "numpy" is written in
# array expressions, so it runs wherever there are arrays.
SERVES = {
    "numpy": DEVICES,
    "native": ("cpu",),
    "cuda": ("cuda",),
    "cuda-emulated": ("cpu", "cuda-emulated"),
}
FASTEST = {"cpu": ("native", "numpy"), "cuda": ("cuda", "numpy"), "cuda-emulated": ("cuda-emulated", "numpy")}


@dataclass(frozen=True)
class KernelSet:
    """A resolved table: for each routine the implementation that runs, and whose it is."""

    name: str
    strict: bool
    table: dict = field(repr=False)  # routine -> callable
    source: dict = field(repr=False)  # routine -> "numpy" | "native" | the module's name
    note: dict = field(repr=False)  # routine -> why it is not `name`'s own, where it is not
    device: str = "cpu"  # whose arrays this table is for
    elsewhere: object = field(default=None, repr=False)  # device -> the same choice's table for arrays there

    def on(self, device) -> KernelSet:
        return self if device == self.device else self.elsewhere(device)


def _implementations(which):
    """(label, {routine: callable}) of a name or a module."""
    if isinstance(which, types.ModuleType):
        found = {r: getattr(which, r) for r in ROUTINES if callable(getattr(which, r, None))}
        if not found:
            close = [c for name in vars(which) for c in difflib.get_close_matches(name, ROUTINES, 1, 0.8)]
            hint = f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(ROUTINES)}"
            raise ValueError(f"{which.__name__} defines no routine of the kernel contract; {hint}")
        return which.__name__, found
    if which not in SERVES:
        raise ValueError(f"no kernel set named {which!r}; known are {', '.join(SERVES)}, or a module of yours")
    reason = _reason(which)
    if reason:
        raise RuntimeError(f"the {which} kernels are not available: {reason}")
    return which, {"numpy": _numpy, "native": _native}.get(which, _cuda).ROUTINES


def _reason(name):
    """Why a kernel set cannot be used here; "" when it can."""
    if name == "native":
        return _native.REASON
    return "" if name == "numpy" else _cuda.reason(name)


def available(device=None) -> dict[str, str]:
    """Kernel set -> "" when it can be used, else the reason why not; of all sets, or of those for a device's arrays."""
    return {name: _reason(name) for name, devices in SERVES.items() if device is None or str(device) in devices}


def _default_name(device):
    return next(name for name in FASTEST[device] if not _reason(name))


def _with_fallback(routine, label, first, fallback):
    def call(*args, **kwargs):
        try:
            return first(*args, **kwargs)
        except Unsupported:
            return fallback(*args, **kwargs)

    call.__name__ = routine
    call.first, call.fallback, call.label = first, fallback, label
    return call


def _resolve(which, strict, device) -> KernelSet:
    label, own = _implementations(which)
    serves = device in SERVES.get(which, DEVICES)
    # What a set lacks is filled from below: your module from the fastest set, the fastest set from NumPy's expressions.
    order = FASTEST[device]
    below = order[order.index(which) + 1 :] if which in order else order
    below = next((_lookup(name, False, device) for name in below if not _reason(name)), None)
    table, source, note = {}, {}, {}
    for routine in ROUTINES:
        if not serves and routine != "random_bits":  # which has no array that could live anywhere
            table[routine], source[routine] = _lives_elsewhere(routine, label, device), label
        elif routine in own and serves:
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
    return KernelSet(
        label, strict, table, source, note, device, functools.cache(functools.partial(_lookup, which, strict))
    )


def _refuse(routine, label):
    def call(*args, **kwargs):
        raise Unsupported(f"{label} does not define {routine}, and strict=True forbids a fallback")

    return call


def _lives_elsewhere(routine, label, device):
    def call(*args, **kwargs):
        where = " or ".join(f'"{place}"' for place in SERVES[label])
        raise TypeError(f"{routine}: the {label} kernels take no array that lives on {device}; move it: .to({where})")

    return call


_cache: dict = {}


def _lookup(which, strict, device="cpu"):
    if isinstance(which, KernelSet):
        return which
    if isinstance(which, types.ModuleType):
        return _resolve(which, strict, device)  # a module may be edited and reloaded, so it is not cached
    key = (which, strict, device)
    if key not in _cache:
        _cache[key] = _resolve(which, strict, device)
    return _cache[key]


def _lookup_fastest(device):
    return _lookup(_default_name(device), False, device)


_current: contextvars.ContextVar[KernelSet] = contextvars.ContextVar("kernel_set")
_fastest = dataclasses.replace(_lookup(_default_name("cpu"), False), elsewhere=functools.cache(_lookup_fastest))


def current() -> KernelSet:
    """The kernel set in use in this context; `.on(device)` is its table for arrays of another device."""
    return _current.get(_fastest)


class use:
    """Run a `with` body, or a decorated function, with one kernel set: "numpy", "native", "cuda", "cuda-emulated", a
    `KernelSet`, or a module that defines routines.

    What the set does not define, or cannot serve (it raises `Unsupported`), falls back to the next; `strict=True` makes
    that an error. An array of a device that the set is not for is a TypeError. Raises ValueError for an unknown name or
    a module without routines, RuntimeError for a set that is not available here.
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
            here = base.on(_place(call_args, call_kwargs))
            implementation, source, why = here.table[routine], here.source[routine], here.note.get(routine, "")
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
            calls.append(Call(routine, shapes, source, why or f"kernel set in use: {here.name}"))
            return result

        return call

    table = {routine: recording(routine) for routine in ROUTINES}
    traced = dataclasses.replace(base, table=table, elsewhere=lambda device: traced)
    with use(traced):
        fn(*args, **kwargs)
    return calls


def _place(args, kwargs):
    """The device of a call: that of its first array. Random bits have none, and say where they are wanted."""
    first = args[0] if args else next(iter(kwargs.values()))
    if not isinstance(first, Integral):
        return device_of(first)
    return args[3] if len(args) > 3 else kwargs.get("device", "cpu")


def _dispatcher(name, check):
    def call(*args, **kwargs):
        check(*args, **kwargs)
        chosen = _current.get(_fastest)
        if not args or type(args[0]) is not _np.ndarray:
            chosen = chosen.on(_place(args, kwargs))
        return chosen.table[name](*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__, call.__module__, call.__wrapped__ = check.__doc__, __name__, check
    return call


for _name, _check in ROUTINES.items():
    globals()[_name] = _dispatcher(_name, _check)
