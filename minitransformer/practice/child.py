"""The process that runs a person's file: python -m minitransformer.practice.child RESULTS NUMBER NAME FILE.

It writes one JSON line for each thing that happened to RESULTS, so whatever the file does (an endless loop, sys.exit,
a crash), what happened before it is known. What the file prints is counted and its beginning kept. `grading` reads it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import time
import traceback
import tracemalloc
import warnings
from pathlib import Path

KEPT = 400  # characters of what was printed


class Printed(io.TextIOBase):
    """Takes what is printed, keeps the beginning: an endless loop of prints fills no memory."""

    def __init__(self):
        self.text, self.count = "", 0

    def write(self, text):
        self.count += len(text)
        self.text += text[: max(0, KEPT - len(self.text))]
        return len(text)


def main(results: str, number: str, name: str, file: str) -> None:
    from . import checks  # noqa: F401  what takes time to import comes before "ready"

    printed = Printed()
    with open(results, "w", encoding="utf-8", buffering=1) as log:

        def tell(kind, **what):
            log.write(json.dumps({"kind": kind, **what}) + "\n")

        tell("ready")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _examine(tell, number, name, Path(file))
        tell("end", printed=printed.count, beginning=printed.text)


def _examine(tell, number, name, file):
    from .checks import checks_of, forbidden

    checks = checks_of(number)
    answer, problem = _load(file, name)
    if problem:
        tell("unusable", problem=problem)
        return
    passed = True
    with forbidden(number):
        for check in checks:
            tell("check", title=check.title)
            detail = _outcome(check, answer, file)
            passed &= detail is None
            tell("result", passed=detail is None, detail=detail)
            if detail is not None and detail.startswith("not written yet"):
                return
    if passed:
        tell("cost", **(_costs(number, answer) or {}))


def _load(file, name):
    """(what the person wrote, "") or (None, one line that says what is wrong with the file)."""
    spec = importlib.util.spec_from_file_location(f"practice_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        return None, f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # a null byte, or bytes that are not UTF-8
        return None, f"{type(error).__name__}: {error}"
    except BaseException as error:
        return None, _told(error, file)
    answer = getattr(module, name, None)
    return (answer, "") if callable(answer) else (None, f"it defines no {name}")


def _outcome(check, answer, file):
    """None where the check passed, else what to show."""
    from .checks import Wrong

    try:
        check.run(answer)
    except Wrong as wrong:
        return str(wrong)
    except NotImplementedError as error:
        return f"not written yet: {error}"
    except BaseException as error:
        return _told(error, file)
    return None


def _told(error, file):
    """An error of the person's code in one line, with the line of their file where it came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, SystemExit):
        return f"{where}the program ended itself: sys.exit has no place here"
    if isinstance(error, EOFError):
        return f"{where}it waits for input: nobody answers here"
    text = " ".join(str(error).split()) or "no message"
    if "read-only" in text:
        text += " (the inputs belong to the caller: work on a copy)"
    return f"{where}{type(error).__name__}: {text}"[:600]


def _costs(number, answer):
    """{"load": what was run, "rows": [[who, seconds, peak bytes or a reason]]}, or None."""
    from .. import kernels
    from .checks import cost_of

    if (cost := cost_of(number)) is None:
        return None
    args, options = cost.build()
    call = answer.apply if hasattr(answer, "apply") else answer
    rows = []
    for who, function in [*cost.others.items(), ("yours", call)]:
        who = f"engine, {kernels.current().name}" if who == "engine" else who
        try:
            rows.append([who, *_measured(function, args, options)])
        except BaseException as error:
            rows.append([who, None, f"{type(error).__name__}: {error}"[:200]])
    return {"load": cost.load, "rows": rows}


def _measured(function, args, options, budget=0.4):
    """(fastest seconds, peak bytes of the arrays that a call makes); memory is measured in a call of its own."""
    tracemalloc.start()
    function(*args, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seconds = []
    while len(seconds) < 10 and sum(seconds) < budget:
        started = time.perf_counter()
        function(*args, **options)
        seconds.append(time.perf_counter() - started)
    return min(seconds), peak


if __name__ == "__main__":
    main(*sys.argv[1:])
