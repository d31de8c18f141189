"""From Python to a kernel: find its function for an array, and cut the work into blocks of threads.

    run = kernel("softmax", "softmax", x)                       # csrc/cuda/softmax.cu, softmax_float for float32
    run(*teams(rows, n), (x, y, np.int64(rows), np.int32(n)))   # grid, block, arguments

The array decides who compiles and runs the source: CuPy (NVRTC, once for each kind of GPU, then from its cache), or the
emulator for the stand-in's arrays and NumPy's. Arguments are arrays and NumPy numbers of the very types that the kernel
declares, for nothing converts them; None is a null pointer.
"""

from __future__ import annotations

import functools
import hashlib

import ml_dtypes
import numpy as np

from ...locate import csrc
from ..contract import Unsupported
from ..devices import device, device_of, xp

__all__ = ["elements", "empty", "kernel", "packed", "teams", "wide"]

SUFFIX = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.float16): "half",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}


def kernel(concept: str, name: str, like, suffix: str | None = None, shared: int = 0):
    """The function NAME_float (or _double …, by the dtype of `like`) of csrc/cuda/CONCEPT.cu, ready to launch.

    suffix: another than the dtype's; "" for none. shared: bytes of dynamic shared memory that a block gets.
    Raises Unsupported for a dtype that has no function.
    """
    if suffix is None:
        suffix = SUFFIX.get(like.dtype)
        if suffix is None:
            raise Unsupported(f"{name}: the CUDA kernels have no {like.dtype}")
    return _function(concept, f"{name}_{suffix}" if suffix else name, device_of(like), shared)


@functools.cache
def _function(concept, name, place, shared):
    function = module(concept, place).get_function(name)
    if shared > 48 << 10:  # a kernel that takes more has to say so before
        function.max_dynamic_shared_size_bytes = shared
    if place == "cuda":
        function = _with_null(function)
    return functools.partial(function, shared_mem=shared) if shared else function


def _with_null(function):
    """CuPy passes a None as no argument at all; what a kernel reads as a null pointer is eight bytes of zero."""

    def launch(grid, block, args, **options):
        function(grid, block, tuple([np.uint64(0) if a is None else a for a in args]), **options)

    return launch


@functools.cache
def module(concept: str, place: str):
    """csrc/cuda/CONCEPT.cu, compiled for arrays of a device when one of its functions is first asked for."""
    if place == "cpu":
        from .emulator import RawModule
    else:
        RawModule = device(place).arrays.RawModule
    return RawModule(code=source(concept), options=options())


def source(concept: str) -> str:
    """The text of csrc/cuda/CONCEPT.cu, with its name for the compiler's messages."""
    text = (csrc() / "cuda" / f"{concept}.cu").read_text(encoding="utf-8")
    return f'#line 1 "{concept}.cu"\n{text}'


@functools.cache
def options() -> tuple[str, ...]:
    """For the compiler. CuPy's cache goes by the source and the options alone, so the headers' hash is one of these."""
    folder = csrc() / "cuda"
    headers = b"".join(path.read_bytes() for path in sorted(folder.glob("*.cuh")))
    return ("-std=c++17", f"-I{folder}", f"-DHEADERS=0x{hashlib.sha256(headers).hexdigest()[:8]}")


# ---------------------------------------------------------------- arrays


def packed(x):
    """x with its elements one after the other in memory: itself, or a copy."""
    flags = x.flags
    return x if flags.c_contiguous and getattr(flags, "aligned", True) else x.copy()


def empty(x, shape=None, dtype=None):
    """A new array on x's device, of x's shape and dtype unless told."""
    return xp(x).empty(x.shape if shape is None else shape, dtype=x.dtype if dtype is None else dtype)


def wide(x) -> np.dtype:
    """The type that the kernels compute in for x: numbers beside it are passed in this one."""
    return np.dtype(np.float64) if x.dtype == np.float64 else np.dtype(np.float32)


# ---------------------------------------------------------------- grids


def teams(rows: int, n: int):
    """(grid, block) for one team of threads a row (csrc/cuda/rows.cuh): a warp up to 1024 elements, then a block."""
    if n <= 1024:
        return (-(-rows // 4),), (32, 4)
    return (rows,), (256 if n <= 1 << 14 else 1024, 1)


def elements(n: int, threads: int = 256):
    """(grid, block) for element-wise kernels, whose threads go on with further elements where a grid would be huge."""
    return (min(-(-n // threads), 1 << 14),), (threads,)
