"""Ladders: a kernel's history, from the naive loop to the one that ships, every rung right and every rung timed.

    ladder = ladders()["attention"]
    problem = ladder.problem(T=1024, d=64)
    for rung in ladder.rungs():                       # as csrc/ladder/attention.cpp has them, then the shipped kernel
        problem.check(rung, ladder.run(rung, problem))
    times(ladder, problem)                            # seconds of each rung, interleaved

The rungs are C++ for reading. They are compiled by this machine's compiler on first use (kernels/compiled.py), and what
the command line says of a rung is the comment above its function, so the two cannot drift apart.
"""

from __future__ import annotations

import ctypes
import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ... import locate
from ..compiled import cache_folder, cached, compiler, run

__all__ = [
    "Ladder",
    "Problem",
    "Rung",
    "WrongRung",
    "compile_rungs",
    "ladders",
    "library",
    "parse_rungs",
    "threads",
    "times",
]


class WrongRung(RuntimeError):
    """A rung's result is not the definition's: the message says which number of which rung."""


@dataclass(frozen=True)
class Rung:
    """One step. failed: an idea that did not pay, which stands beside the rung of its number."""

    number: int
    name: str
    idea: str
    function: str
    about: str = ""
    failed: bool = False
    line: int = 0

    @property
    def shipped(self) -> bool:
        return self.function == ""

    @property
    def threaded(self) -> bool:
        return self.shipped or self.function == "threads"

    def __str__(self):
        return f"rung {self.number}, {self.name}"


@dataclass(frozen=True)
class Problem:
    """Inputs of some sizes, what is right, and how much useful work it is.

    arguments: what each C++ rung gets before the outputs. expected: one array an output. allowed: its largest error, 0
    where results are exact; `rounded` has others for some functions. work: FLOPs, integer operations or bytes, told in
    billions a second as `unit`, below `ceiling`.
    """

    sizes: dict[str, int]
    arguments: tuple
    expected: tuple[np.ndarray, ...]
    allowed: tuple
    work: float
    unit: str
    ceiling: str
    shipped: Callable[[], tuple[np.ndarray, ...]] = field(repr=False)
    dtypes: tuple = (np.float32,)
    rounded: dict[str, tuple] = field(default_factory=dict)

    def outputs(self) -> tuple[np.ndarray, ...]:
        """Arrays for a rung to write, full of what no rung may leave there."""
        return tuple(np.full(e.shape, -77 if np.dtype(t).kind == "i" else np.nan, t)
                     for e, t in zip(self.expected, self.dtypes))  # fmt: skip

    def check(self, rung, outputs) -> None:
        """Raises WrongRung where a number is further from the definition than it may be."""
        limits = self.rounded.get(rung.function, self.allowed)
        for n, (got, expected, allowed) in enumerate(zip(outputs, self.expected, limits, strict=True)):
            with np.errstate(invalid="ignore"):
                wrong = ~(np.abs(got.astype(np.float64) - expected) <= allowed)
            if wrong.any():
                at = tuple(map(int, np.argwhere(wrong)[0]))
                sizes = ", ".join(f"{name} = {size}" for name, size in self.sizes.items())
                raise WrongRung(
                    f"{rung} is wrong at {sizes}: output {n}[{', '.join(map(str, at))}] is {got[at]:.7g}, "
                    f"expected {expected[at]:.7g} ({int(wrong.sum())} of {wrong.size} numbers)"
                )


class Ladder:
    """What a concept's module adds: names, `sizes` (usual), `most` (largest), `odd` (fit no block), `problem`."""

    name: str
    title: str
    kernel: str
    sizes: dict[str, int]
    most: dict[str, int]
    odd: dict[str, int]

    def problem(self, seed: int = 0, **sizes) -> Problem:
        """What to compute: these sizes, and of the others the usual ones."""
        raise NotImplementedError

    def small(self) -> Problem:
        """Sizes that fit no block, to check before anything is timed."""
        return self.problem(**self.odd)

    def checked(self, sizes: dict[str, int]) -> dict[str, int]:
        """The usual sizes with these instead. Raises ValueError for a name or a size that there is not."""
        for name, size in sizes.items():
            if name not in self.sizes:
                raise ValueError(f"the ladder {self.name} has the sizes {', '.join(self.sizes)}, and no {name!r}")
            if not 1 <= size <= self.most[name]:
                raise ValueError(f"the size {name} of {self.name} must be 1 to {self.most[name]}, got {size}")
        return {**self.sizes, **sizes}

    @property
    def source(self) -> Path:
        return locate.csrc() / "ladder" / f"{self.name}.cpp"

    def rungs(self) -> list[Rung]:
        """Those of the source in its order, without what this processor cannot run, and the shipped kernel."""
        found = parse_rungs(self.source.read_text(encoding="utf-8"))
        compiled = library(self.name)
        here = [rung for rung in found if hasattr(compiled, rung.function)]
        return [*here, self.shipped(1 + max(rung.number for rung in found))]

    def shipped(self, number: int) -> Rung:
        return Rung(number, "shipped", f"kernels.{self.kernel}, as the package runs it", "")

    def run(self, rung: Rung, problem: Problem, outputs=None) -> tuple[np.ndarray, ...]:
        """The rung's outputs, written to `outputs` where they are given (the shipped kernel makes its own)."""
        if rung.shipped:
            return problem.shipped()
        outputs = problem.outputs() if outputs is None else outputs
        getattr(library(self.name), rung.function)(*map(_passed, (*problem.arguments, *outputs)))
        return outputs


def _passed(argument):
    return ctypes.c_void_p(argument.ctypes.data) if isinstance(argument, np.ndarray) else ctypes.c_long(argument)


def ladders() -> dict[str, Ladder]:
    """All there are, by name."""
    from .attention import Attention
    from .quantized_gemm import QuantizedGemm
    from .topk_activation import TopkActivation

    return {ladder.name: ladder for ladder in (Attention(), TopkActivation(), QuantizedGemm())}


# ---------------------------------------------------------------- sources

_RUNG = re.compile(
    r"^// \[(?P<number>\d+)(?P<failed>, failed)?\] (?P<name>[^:\n]+): (?P<idea>[^\n]+)\n"
    r"(?P<about>(?://[^\n]*\n)*)"
    r'(?:#[^\n]*\n)*(?:extern "C" )?(?:__global__ )?void (?:__launch_bounds__\([^)]*\) )?(?P<function>\w+)\(',
    re.MULTILINE,
)


def parse_rungs(source: str) -> list[Rung]:
    """The rungs of a source, each with the comment that introduces it (csrc/ladder/ladder.hpp says how)."""
    found = []
    for match in _RUNG.finditer(source):
        about = " ".join(line[2:].strip() for line in match["about"].splitlines())
        line = source.count("\n", 0, match.start()) + 1
        number, failed = int(match["number"]), bool(match["failed"])
        found.append(Rung(number, match["name"], match["idea"], match["function"], about, failed, line))
    return found


_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-pthread", "-w")


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """csrc/ladder/NAME.cpp, compiled for this processor. Raises RuntimeError where there is no C++ compiler."""
    return compile_rungs(locate.csrc() / "ladder" / f"{name}.cpp")


def compile_rungs(source: Path, *flags: str) -> ctypes.CDLL:
    """A source of rungs, wherever it lies, as a library, with these flags behind the usual ones."""
    path, version = compiler("a ladder")
    beside, flags = locate.csrc() / "ladder", (*_FLAGS, *flags)
    native = run([path, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"], "an empty file")  # this processor
    read = [source, *sorted(beside.glob("*.hpp")), *sorted(beside.parent.glob("*.hpp"))]

    def build(folder, made):
        run([path, *flags, f"-I{beside}", str(source), "-o", str(made)], source.name)

    key = ([file.read_bytes() for file in read], native, path, version, flags)
    return ctypes.CDLL(str(cached(cache_folder("ladder"), source.stem, ".so", key, build)))


def threads(compiled: ctypes.CDLL, count: int) -> None:
    """The rung `threads` of a library uses so many from now on."""
    ctypes.c_int.in_dll(compiled, "ladder_threads").value = count


# ---------------------------------------------------------------- time


def times(ladder: Ladder, problem: Problem, seconds: float = 4.0, rungs=None) -> dict[Rung, list[float]]:
    """Seconds of one run of each rung, a number a round: all rungs in turn, round after round, so that a slow moment of
    the machine meets them all. In a round a fast rung runs for 8 ms, and its fastest run counts.
    """
    rungs = ladder.rungs() if rungs is None else rungs
    outputs = problem.outputs()
    taken: dict[Rung, list[float]] = {rung: [] for rung in rungs}
    end = time.perf_counter() + seconds
    while (done := min(map(len, taken.values()))) < 3 or (done < 25 and time.perf_counter() < end):
        for rung in rungs:
            fastest, since = float("inf"), time.perf_counter()
            now = since
            while now - since < 0.008:
                ladder.run(rung, problem, outputs)
                before, now = now, time.perf_counter()
                fastest = min(fastest, now - before)
            taken[rung].append(fastest)
    return taken
