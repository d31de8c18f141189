"""CUDA kernels on the CPU: `RawModule` as CuPy has it, on NumPy memory.

    module = RawModule(code=Path("softmax.cu").read_text(encoding="utf-8"), name="softmax.cu")
    softmax = module.get_function("softmax_forward")
    softmax((rows,), (256,), (x, y, np.int32(width)), shared_mem=256 * 4)

The kernels are compiled by the C++ compiler ($CXX, c++, g++ or clang++) with the headers of csrc/cuda_emulator/, on
first use, and kept in the user's cache folder under the hash of all that went in. A launch is checked where a GPU's
would go wrong in silence: number, kind and size of the arguments, limits of grid, block and shared memory. What a
kernel itself does wrong (deadlock, divergent barrier, ...) raises KernelError, which names file and line.

A right kernel gives the same in every order of threads and blocks:

    with schedule(order="random", seed=3, os_threads=2): ...        # order: first | last | random

The environment can say the same: MINITRANSFORMER_CUDA_ORDER, MINITRANSFORMER_CUDA_SEED, MINITRANSFORMER_CUDA_THREADS.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .build import Signature, build_library, compiler

__all__ = ["REASON", "Function", "KernelError", "RawModule", "Schedule", "current_schedule", "empty", "schedule"]


def _why_not() -> str:
    try:
        compiler()
    except RuntimeError as error:
        return str(error)
    return ""


REASON = _why_not()  # why nothing can be run here; empty where it can

_DEFAULT_SHARED, _MOST_SHARED = 48 << 10, 227 << 10  # bytes a block gets without asking; with asking, on an H100


class KernelError(RuntimeError):
    """A kernel did what CUDA does not allow; the message begins with file:line."""


@dataclass(frozen=True)
class Schedule:
    """In which order threads and blocks run, and on how many threads of the operating system."""

    order: str = "first"
    seed: int = 0
    os_threads: int = 1

    ORDERS = ("first", "last", "random")

    def __post_init__(self):
        if self.order not in self.ORDERS:
            raise ValueError(f"order {self.order!r} is none of {', '.join(self.ORDERS)}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed {self.seed} is not between 0 and 2⁶⁴ - 1")
        if not 1 <= self.os_threads <= 256:
            raise ValueError(f"os_threads {self.os_threads} is not between 1 and 256")


_schedule: contextvars.ContextVar[Schedule | None] = contextvars.ContextVar("schedule", default=None)


def current_schedule() -> Schedule:
    """What `schedule` says, or the environment."""
    chosen = _schedule.get()
    if chosen is not None:
        return chosen
    prefix = "MINITRANSFORMER_CUDA_"
    numbers = {}
    for field, default in (("seed", "0"), ("threads", "1")):
        text = os.environ.get(prefix + field.upper(), default)
        if not text.isdecimal():
            raise ValueError(f"{prefix + field.upper()} is {text!r}, not a whole number")
        numbers[field] = int(text)
    return Schedule(os.environ.get(prefix + "ORDER", "first"), numbers["seed"], numbers["threads"])


@contextlib.contextmanager
def schedule(order: str | None = None, seed: int | None = None, os_threads: int | None = None) -> Iterator[Schedule]:
    """Launches inside run in this order; what is not given stays as it was."""
    given = {"order": order, "seed": seed, "os_threads": os_threads}
    token = _schedule.set(replace(current_schedule(), **{k: v for k, v in given.items() if v is not None}))
    try:
        yield _schedule.get()
    finally:
        _schedule.reset(token)


def empty(shape, dtype=np.float32) -> np.ndarray:
    """An uninitialised array at a multiple of 256 bytes, where cudaMalloc's are too (wmma needs 32, float4 16)."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(count * dtype.itemsize + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


class RawModule:
    """The kernels (`extern "C" __global__`) of one CUDA source.

    options: as for NVRTC; -D and -I are used, and the rest, which is about GPUs, is not.
    name: the file that messages name.
    Raises RuntimeError where there is no C++ compiler, the source does not compile, or the cache cannot be written.
    """

    def __init__(self, *, code: str, options: Sequence[str] = (), name: str = "kernel.cu"):
        self.library, self.signatures = build_library(code, options, name)
        self.name = name

    def get_function(self, name: str) -> Function:
        """The kernel of that name. Raises ValueError where the source has none."""
        if name not in self.signatures:
            known = ", ".join(sorted(self.signatures)) or "none"
            raise ValueError(f'{self.name} has no kernel {name!r}; its extern "C" kernels: {known}')
        return Function(self.library, self.signatures[name])


class _Launch(ctypes.Structure):  # csrc/cuda_emulator/launch_request.h
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("seed", ctypes.c_uint64),
        ("order", ctypes.c_int),
        ("os_threads", ctypes.c_int),
        ("message", ctypes.c_char_p),
        ("message_bytes", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class Prepared:
    """A launch that has been checked: three sizes each, and every argument's value as an array of one element."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    values: list[np.ndarray]


class Function:
    """A kernel that can be launched: function(grid, block, arguments, shared_mem=bytes).

    Arguments: an array, or None, for a pointer (NumPy's, or anything with `.data.ptr` and `.dtype`), a NumPy scalar for
    a value. A Python int is an int64 and a float a float64, as in CuPy, and refused where the kernel takes another.
    More than 48 KiB of shared memory must be asked for first: function.max_dynamic_shared_size_bytes = n.
    """

    def __init__(self, library: ctypes.CDLL, signature: Signature):
        self.name = signature.name
        self.signature = signature
        self.max_dynamic_shared_size_bytes = _DEFAULT_SHARED
        self.max_threads_per_block = signature.most_threads
        self._launch = getattr(library, signature.name + "_launch")
        self._launch.argtypes = [ctypes.POINTER(_Launch)]

    def __call__(self, grid, block, args, *, shared_mem: int = 0, stream=None) -> None:
        ready = self.prepare(grid, block, args, shared_mem)
        plan = current_schedule()
        message = ctypes.create_string_buffer(4096)
        launch = _Launch(
            grid=ready.grid,
            block=ready.block,
            shared_bytes=shared_mem,
            arguments=(ctypes.c_void_p * len(ready.values))(*[value.ctypes.data for value in ready.values]),
            seed=plan.seed,
            order=Schedule.ORDERS.index(plan.order),
            os_threads=plan.os_threads,
            message=ctypes.cast(message, ctypes.c_char_p),
            message_bytes=len(message),
        )
        if self._launch(ctypes.byref(launch)):
            raise KernelError(f"{message.value.decode(errors='replace')} in kernel {self.name}")

    def prepare(self, grid, block, args, shared_mem: int) -> Prepared:
        """All that is checked before a launch. Raises TypeError or ValueError."""
        grid = self._three("grid", grid, (2**31 - 1, 65535, 65535))
        block = self._three("block", block, (1024, 1024, 64))
        threads = block[0] * block[1] * block[2]
        if threads > self.max_threads_per_block:
            raise ValueError(f"{self.name}: {threads} threads a block; it takes at most {self.max_threads_per_block}")
        most = min(self.max_dynamic_shared_size_bytes, _MOST_SHARED)
        if not 0 <= shared_mem <= most:
            hint = "; set max_dynamic_shared_size_bytes first" if 0 <= shared_mem <= _MOST_SHARED else ""
            raise ValueError(f"{self.name}: shared_mem={shared_mem}; it may have at most {most} bytes{hint}")
        return Prepared(grid, block, self._values(args))

    def _three(self, what, sizes, most):
        sizes = (sizes,) if isinstance(sizes, int | np.integer) else tuple(sizes)
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"{self.name}: {what}={sizes} does not have 1, 2 or 3 sizes")
        sizes = tuple(int(size) for size in sizes) + (1,) * (3 - len(sizes))
        if any(not 1 <= size <= limit for size, limit in zip(sizes, most)):
            raise ValueError(f"{self.name}: {what}={sizes} is not within (1, 1, 1) and {most}")
        return sizes

    def _values(self, args) -> list[np.ndarray]:
        """Each argument's value as an array of one element, whose address the kernel's launcher gets."""
        parameters = self.signature.parameters
        if len(args) != len(parameters):
            raise TypeError(f"{self.name} takes {len(parameters)} arguments, {len(args)} were given: {self.signature}")
        return [
            p.value(arg, f"{self.name}: argument {i}, `{p.text}`") for i, (p, arg) in enumerate(zip(parameters, args))
        ]
