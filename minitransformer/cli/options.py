"""Arguments that several commands share: checked numbers, kernel sets, which model."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import inspect
import os
import sys
import types
from pathlib import Path

__all__ = [
    "KernelError",
    "add_device",
    "fraction",
    "load_kernels",
    "model_path",
    "non_negative",
    "number",
    "open_device",
    "positive",
    "seed",
    "using",
    "writing",
]


class KernelError(RuntimeError):
    """A routine of a person's own kernel file raised; the message is one line: file, line, routine, what it raised."""


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


def using(text: str | None):
    """`kernels.use` of what --kernels names, or of the set in use. Whatever a routine of one's own file raises comes as
    KernelError. Raises ValueError as `load_kernels` does.
    """
    from .. import kernels

    if text is None:
        return kernels.use(kernels.current())
    found = load_kernels(text)
    return kernels.use(found if isinstance(found, str) else _telling(found, text))


def open_device(name: str, kernel_set: str | None):
    """The device that --device names. Raises ValueError where --kernels takes no arrays there, and for an unknown
    name; RuntimeError where there is no such device.
    """
    from .. import kernels

    place, serves = kernels.device(name), kernels.SERVES.get(kernel_set, kernels.DEVICES)
    if name not in serves:
        raise ValueError(f"--kernels {kernel_set} takes no array that lives on {name}: give --device {serves[0]}")
    return place


def _telling(module, text):
    """A module of the same routines, each with its errors raised as KernelError."""
    from ..kernels.contract import ROUTINES

    told = types.ModuleType(module.__name__)
    for name in ROUTINES:
        if callable(routine := getattr(module, name, None)):
            setattr(told, name, _told(name, routine, text))
    return told


def _told(name, routine, text):
    from ..kernels import Unsupported

    @functools.wraps(routine)
    def call(*args, **kwargs):
        try:
            return routine(*args, **kwargs)
        except (Unsupported, KernelError):
            raise
        except Exception as error:
            place = f"{text}:{_last_line(error, text) or _first_line(routine, text) or ''}".rstrip(":")
            raise KernelError(f"{place} {name}: {type(error).__name__}: {error}") from error

    return call


def _last_line(error, path):
    """The line of the file where the error came up; 0 when it did elsewhere."""
    line, trace, path = 0, error.__traceback__, os.path.abspath(path)
    while trace is not None:
        if os.path.abspath(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _first_line(routine, path):
    """The line of the file where a routine is defined, for a call that its signature refuses; 0 when elsewhere."""
    code = getattr(inspect.unwrap(routine), "__code__", None)
    return code.co_firstlineno if code and os.path.abspath(code.co_filename) == os.path.abspath(path) else 0


def add_model(parser) -> None:
    """The --model of the commands that read one; `model_path` finds what it names."""
    parser.add_argument(
        "--model",
        "--checkpoint",
        dest="model",
        metavar="PATH",
        help="a run's folder, its name in out/, or a checkpoint file (the newest in out/)",
    )


def add_device(parser) -> None:
    """The --device of the commands that compute with a model."""
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where to compute: cpu, cuda (a GPU, through CuPy), or cuda-emulated, its kernels run by the CPU (cpu)",
    )


def model_path(text: str | None) -> Path:
    """--model: a path as it is given, a run's name below out/, or the newest run there when it is left out.

    Raises CheckpointError where there is none, with the runs that there are.
    """
    from ..training import CheckpointError, last_run

    if text is None:
        return last_run()
    path, run = Path(text), Path("out", text)
    if path.exists() or run.exists():
        return path if path.exists() else run
    newest = {file.parents[1].name: None for file in sorted(Path("out").glob("*/checkpoints/step-*.safetensors"),
                                                            key=lambda file: -file.stat().st_mtime_ns)}  # fmt: skip
    known = f"the runs in out/ are {', '.join(newest)}" if newest else "out/ holds no run; `minitransformer train`"
    raise CheckpointError(f"no checkpoint at {text}: give a run's folder, its name or a file; {known}")


@contextlib.contextmanager
def writing(path):
    """A body that writes below `path`: an OSError that does not say so gets the path, as it was typed, in front."""
    try:
        yield
    except BrokenPipeError:  # of stdout
        raise
    except OSError as error:
        if str(path) in f"{error.filename or ''} {error}":
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}{where}") from error
