"""Devices: where an array lives, and the only way from one to another.

    device("cuda").put(array)       a CuPy array, in the memory of a GPU
    fetch(array)                    a NumPy array, wherever it was
    xp(array)                       the array's own module: every routine and op is written against it

The device belongs to the array, and nothing moves by itself: what is asked to compute with arrays of two devices says
so in one line. "cuda-emulated" is a GPU without a GPU: arrays in the computer's memory that are as strict as CuPy's
(`cuda/standin.py`), and the same .cu files run by the CPU.
"""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

__all__ = [
    "DEVICES", "Device", "device", "device_of", "fetch", "is_array", "names_a_device", "numbers", "same_device",
    "snapshot", "xp",
]  # fmt: skip

DEVICES = ("cpu", "cuda", "cuda-emulated")


@dataclass(frozen=True)
class Device:
    """A place for arrays, and the module that makes them there: NumPy, CuPy or the stand-in for CuPy."""

    name: str
    arrays: ModuleType = field(repr=False, compare=False)

    def __str__(self):
        return self.name

    def put(self, array):
        """The array here: itself where it is here already, else a copy."""
        if device_of(array) == self.name:
            return array
        return fetch(array) if self.name == "cpu" else self.arrays.asarray(fetch(array))

    def synchronize(self) -> None:
        """Wait until everything that was asked of the device is done; only a clock needs to."""
        if self.name != "cpu":
            self.arrays.cuda.get_current_stream().synchronize()


def device(name: str | Device) -> Device:
    """The device of a name: "cpu", "cuda" (CuPy's current GPU) or "cuda-emulated".

    Raises ValueError for an unknown name, RuntimeError, with what would help, where there is no such device.
    """
    if isinstance(name, Device):
        return name
    if not isinstance(name, str) or name not in DEVICES:
        raise ValueError(f"no device named {name!r}; known are {', '.join(DEVICES)}")
    return _opened(name)


def names_a_device(target) -> bool:
    """Whether `.to(target)` is a move: a device, or a name that could only be one, even if it is misspelt."""
    return isinstance(target, Device) or (isinstance(target, str) and target.startswith(("cpu", "cuda")))


@functools.cache
def _opened(name):
    if name == "cuda":
        reason = no_gpu()
        if reason:
            slowly = '"cuda-emulated" runs the same kernels slowly'
            raise RuntimeError(f'there is no device "cuda" here: {reason}; {slowly}')
    module = {"cpu": "numpy", "cuda": "cupy", "cuda-emulated": f"{__package__}.cuda.standin"}[name]
    return Device(name, importlib.import_module(module))


@functools.cache
def no_gpu() -> str:
    """Why there is no GPU to use; "" where there is one."""
    try:
        import cupy
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return "CuPy is not installed (pip install 'minitransformer[cuda]', for NVIDIA drivers with CUDA 13)"
        return f"CuPy does not load: {str(error).strip().splitlines()[0]}"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no GPU ({error})"


# ---------------------------------------------------------------- an array's place

_DEVICE_OF = {np.ndarray: "cpu"}  # type of array -> device; filled as types are met


def device_of(array) -> str:
    """The name of the device an array lives on."""
    found = _DEVICE_OF.get(type(array))
    if found is None:
        module = type(array).__module__
        found = "cuda" if module.partition(".")[0] == "cupy" else getattr(type(array), "device_name", "cpu")
        _DEVICE_OF[type(array)] = found
    return found


def is_array(x) -> bool:
    """Whether x is an array of any device (CuPy's do not have `__array_namespace__`)."""
    return hasattr(x, "__array_namespace__") or device_of(x) != "cpu"


def xp(x):
    """The array's own namespace (NumPy, CuPy, the stand-in, a recording one): op bodies are written against it."""
    try:
        return x.__array_namespace__()
    except AttributeError:
        return sys.modules["cupy"] if device_of(x) == "cuda" else device(device_of(x)).arrays


def same_device(what, *arrays) -> None:
    """Raise TypeError, in `what`'s name, where arrays of two devices meet. Numbers and None live everywhere."""
    places = list(dict.fromkeys([device_of(a) for a in arrays if is_array(a)]))
    if len(places) > 1:
        first, other = places[:2]
        raise TypeError(
            f'{what}: one array lives on {first}, another on {other}; move one: .to("{first}") or .to("{other}")'
        )


def fetch(array) -> np.ndarray:
    """The array in the computer's own memory: itself where it is there, else a copy, for which the device is waited."""
    return array if device_of(array) == "cpu" else array.get()


def snapshot(array) -> np.ndarray:
    """A NumPy copy of the array, which nothing that happens to it later changes."""
    fetched = fetch(array)
    return fetched.copy() if fetched is array else fetched


def numbers(*values) -> list[float]:
    """Python floats of arrays without axes. Those on a device come over together: one wait, not one each."""
    away = [v for v in values if is_array(v) and device_of(v) != "cpu"]
    fetched = iter(fetch(xp(away[0]).stack([v.astype(np.float64) for v in away])).tolist() if away else ())
    return [next(fetched) if any(v is a for a in away) else float(v) for v in values]
