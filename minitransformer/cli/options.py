"""Arguments that several commands share: checked numbers, kernel sets, which model."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

__all__ = ["fraction", "load_kernels", "non_negative", "number", "positive", "seed"]


def _integer(text, least, wanted):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < least:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    return value


def positive(text: str) -> int:
    return _integer(text, 1, "a positive integer")


def non_negative(text: str) -> int:
    return _integer(text, 0, "an integer, 0 or more")


def seed(text: str) -> int:
    value = _integer(text, 0, "an integer in 0..2**64-1")
    if value >= 2**64:
        raise argparse.ArgumentTypeError(f"must be an integer in 0..2**64-1, got {text!r}")
    return value


def number(text: str, least=0.0, exclusive=False, most=float("inf")) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (least < value if exclusive else least <= value) or not value <= most or value == float("inf"):
        wanted = f"a number above {least:g}" if exclusive else f"a number of at least {least:g}"
        raise argparse.ArgumentTypeError(
            f"must be {wanted}{f' and at most {most:g}' if most < float('inf') else ''}, got {text!r}"
        )
    return value


def above_zero(text: str) -> float:
    return number(text, exclusive=True)


def fraction(text: str) -> float:
    """0 <= x < 1."""
    value = number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text!r}")
    return value


def probability(text: str) -> float:
    """0 < p <= 1."""
    return number(text, exclusive=True, most=1.0)


def load_kernels(text: str):
    """A kernel set by name, or the module of a person's own `FILE.py`: what `kernels.use` takes.

    Raises ValueError, in one line, for an unknown name and for a file that does not load or defines no kernel.
    """
    from .. import kernels

    if not text.endswith(".py"):
        available = kernels.available()
        if text not in available:
            raise ValueError(
                f"no kernel set named {text!r}; known are {', '.join(available)}, or a file of yours: FILE.py"
            )
        if available[text]:
            raise ValueError(f"the {text} kernels are not available: {available[text]}")
        return text
    path = Path(text)
    if not path.is_file():
        raise ValueError(
            f"no such file: {text}; --kernels takes {', '.join(kernels.available())} or a Python file with kernels"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"minitransformer_kernels_{path.stem}"] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{text}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ValueError(f"{text}:{_last_line(error, path)}: {type(error).__name__}: {error}") from error
    with kernels.use(module):  # complains, in one line, when it defines no routine
        return module


def _last_line(error, path):
    """The line of the file where the error came up."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
