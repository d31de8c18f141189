"""What the contract asks of an argument, each question once. Every error names the routine and the argument."""

from __future__ import annotations

from numbers import Real

import numpy as np

from .devices import device_of, same_device
from .precision import FLOATS


def floats(routine_name, **arrays):
    """All are arrays of one float dtype; None is passed over."""
    first = kind = None
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = getattr(array, "dtype", None)
        if dtype not in FLOATS:
            raise TypeError(f"{routine_name}: {name} must be a float array, got {dtype or type(array).__name__}")
        if first is None:
            first = (name, dtype)
        elif dtype != first[1]:
            raise TypeError(f"{routine_name}: {name} is {dtype} but {first[0]} is {first[1]}; convert one with .to()")
        if kind is None:
            kind = type(array)
        elif type(array) is not kind:
            same_device(routine_name, *arrays.values())


def integers(routine_name, **arrays):
    for name, array in arrays.items():
        if getattr(getattr(array, "dtype", None), "kind", None) not in ("i", "u"):
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"{routine_name}: {name} must be an integer array, got {kind}")


def shape(routine_name, name, array, expected):
    if tuple(array.shape) != tuple(expected):
        raise ValueError(f"{routine_name}: {name} must have shape {tuple(expected)}, got {tuple(array.shape)}")


def rank(routine_name, name, array, least, most=None):
    if array.ndim < least or (most is not None and array.ndim > most):
        wanted = f"{least}" if most == least else f"at least {least}"
        raise ValueError(f"{routine_name}: {name} must have {wanted} axes, got shape {tuple(array.shape)}")


def number(routine_name, name, value):
    if not isinstance(value, Real):
        raise TypeError(f"{routine_name}: {name} must be a number, got {type(value).__name__}")


def axis(routine_name, x, axis):
    rank(routine_name, "x", x, 1)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{routine_name}: axis {axis} is out of range for shape {tuple(x.shape)}")


def within(routine_name, name, values, low, high, except_for=None):
    """Every integer lies in [low, high), as far as can be seen; the error shows the first that does not, and where."""
    if device_of(values) != "cpu":
        return
    bad = (values < low) | (values >= high)
    if except_for is not None:
        bad &= values != except_for
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"{routine_name}: {name}{list(where)} is {int(values[where])}, allowed are {low} to {high - 1}"
        )


def positive(routine_name, name, value):
    if value is None:
        return
    number(routine_name, name, value)
    if not 2.0**-126 <= float(value) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{routine_name}: {name} must be positive and finite, 2**-126 at least, got {value}")


def whole(name, argument, value, low, high):
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name}: {argument} must be an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name}: {argument} must lie in {low}..{high}, got {value}")
