"""Half precision is storage: float16 and bfloat16 arguments are widened to float32, results rounded once at the end."""

import functools

import ml_dtypes
import numpy as np

from .devices import xp

FLOATS = frozenset(np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
HALVES = frozenset(np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16))


def computed_in_float32(routine):
    """Let `routine` be written for float32 and float64 only: half arrays go in and come out through float32.

    Results are arrays also where NumPy would make a scalar of an array without axes.
    """

    @functools.wraps(routine)
    def call(*args, **kwargs):
        half = next((a.dtype for a in (*args, *kwargs.values()) if getattr(a, "dtype", None) in HALVES), None)

        def widened(a):
            return a.astype(np.float32) if getattr(a, "dtype", None) in HALVES else a

        def rounded(a):
            return None if a is None else xp(a).asarray(a, half)

        if half is not None:
            args, kwargs = map(widened, args), {name: widened(a) for name, a in kwargs.items()}
        result = routine(*args, **kwargs)
        return tuple(map(rounded, result)) if isinstance(result, tuple) else rounded(result)

    return call
