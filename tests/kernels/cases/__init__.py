"""Sample inputs for every routine of the kernel contract, and how well each result can be known.

    @cases("softmax")
    def softmax(rng, dtype):
        yield Case((x, -1), terms=x.shape[-1], condition=...)

A generator registered here is run by `test_against_numpy.py` for every kernel set and dtype; a routine without one
fails the suite. Dropping a file into this folder is enough to register it.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CASES = {}  # routine -> generator of Case, given (rng, dtype)


@dataclass
class Case:
    """One call, and the error that rounding may leave in its results.

    `terms` is K, the length of the longest sum behind a result. `condition` holds one float64 array (or number) for
    each output, in a tuple when there are several: the size of the numbers that were added up to make it, such as
    Σ|a||b| for a product; None stands for the size of the result itself (a relative error). An error of
    c·eps(dtype)·√K·condition passes: see `tolerance.py`.
    """

    args: tuple
    kwargs: dict = field(default_factory=dict)
    terms: int = 1
    condition: Any = None

    def __str__(self):
        named = [*((None, a) for a in self.args), *self.kwargs.items()]
        shown = [f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else repr(a) for _, a in named]
        return ", ".join(f"{name}={text}" if name else text for (name, _), text in zip(named, shown))


def cases(*routines):
    """Register a generator for the routines named."""

    def register(generator):
        for routine in routines:
            assert routine not in CASES, f"{routine} has two sets of cases"
            CASES[routine] = generator
        return generator

    return register


def normal(rng, shape, dtype, scale=1.0, shift=0.0):
    """Normal numbers, rounded to dtype."""
    return np.asarray(shift + scale * rng.standard_normal(shape)).astype(dtype)


def layouts(rng, shape, dtype, scale=1.0):
    """One shape in every memory layout a kernel may be handed: contiguous, permuted, gaps, reversed, broadcast."""
    yield normal(rng, shape, dtype, scale)
    yield normal(rng, shape[::-1], dtype, scale).transpose()
    yield normal(rng, tuple(2 * n for n in shape), dtype, scale)[tuple(slice(None, None, 2) for _ in shape)]
    yield normal(rng, shape, dtype, scale)[tuple(slice(None, None, -1) for _ in shape)]
    yield np.broadcast_to(normal(rng, shape[-1:], dtype, scale), shape)
    yield np.broadcast_to(normal(rng, (*shape[:-1], 1), dtype, scale), shape)


def wide(*arrays):
    """The same numbers in float64, to work out a condition from."""
    found = tuple(np.asarray(a, np.float64) for a in arrays)
    return found if len(found) > 1 else found[0]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
