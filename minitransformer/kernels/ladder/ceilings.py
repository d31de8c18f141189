"""The machine's ceilings, measured: peak fp32, peak int8 and memory bandwidth, on one thread and on all."""

from __future__ import annotations

import ctypes
import time

import numpy as np

from . import library, threads

__all__ = ["CEILINGS", "measure"]

CEILINGS = {  # name -> (unit, what)
    "fp32": ("GFLOP/s", "fused multiply-adds in registers"),
    "int8": ("GOP/s", "sums of products of bytes in registers"),
    "memory": ("GB/s", "reading 128 MiB"),
}
_BYTES, _ROUNDS = 128 << 20, 100_000  # a run takes a few milliseconds


def measure(names, counts, seconds: float = 0.12, before=None) -> dict[tuple[str, int], float]:
    """{(ceiling, threads): billions a second}, the best of several short runs: a ceiling is what was once reached.

    before: an earlier result, whose larger values are kept.
    """
    compiled = library("ceilings")
    for function in ("float_peak", "int8_peak", "read_memory"):
        getattr(compiled, function).restype = ctypes.c_double
    memory = np.ones(_BYTES // 4, np.float32) if "memory" in names else None
    work = {
        "fp32": lambda: compiled.float_peak(ctypes.c_long(_ROUNDS)),
        "int8": lambda: compiled.int8_peak(ctypes.c_long(_ROUNDS)),
        "memory": lambda: compiled.read_memory(ctypes.c_void_p(memory.ctypes.data), ctypes.c_long(memory.size)),
    }
    found = dict(before or {})
    for name in names:
        for count in counts:
            threads(compiled, count)
            one = found.get((name, 1), 0.0)  # several threads can do what one can, whoever else was running
            found[name, count] = max(_best(work[name], seconds), found.get((name, count), 0.0), one)
    threads(compiled, 1)
    return found


def _best(work, seconds):
    best, end = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        since = time.perf_counter()
        done = work()
        best = max(best, done / (time.perf_counter() - since) / 1e9)
    return best
