"""Run the checks of an exercise on a person's file, in a process of its own with a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .checks import checks_of
from .source import Exercise

__all__ = ["Outcome", "Report", "TIME_LIMIT", "grade"]

TIME_LIMIT = 30.0  # seconds for all checks of one exercise; right answers take a few
STARTING = 120.0  # seconds for Python to start, which is not the person's doing


@dataclass(frozen=True)
class Outcome:
    """One check: passed is None where it was not run. detail says what is wrong."""

    title: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What grading found. problem: one line where the file could not be used at all, or was not written yet."""

    number: str
    file: Path
    outcomes: list[Outcome]
    problem: str = ""
    cost: dict = field(default_factory=dict)  # {"load": …, "rows": [[who, seconds, bytes or why not]]}
    printed: tuple[int, str] = (0, "")  # characters that the file printed, and how they begin

    @property
    def passed(self) -> bool:
        """Every check ran and passed; nothing else counts as a pass."""
        return not self.problem and bool(self.outcomes) and all(o.passed is True for o in self.outcomes)

    @property
    def first_wrong(self) -> Outcome | None:
        return next((o for o in self.outcomes if o.passed is False), None)


def grade(exercise: Exercise, file: Path, time_limit: float = TIME_LIMIT) -> Report:
    """Run every check of the exercise on the file. Raises FileNotFoundError where there is none."""
    file = Path(file).resolve(strict=True)
    titles = [check.title for check in checks_of(exercise.number)]
    with tempfile.TemporaryDirectory() as folder:
        results, errors = Path(folder, "results.jsonl"), Path(folder, "errors.txt")
        ended = _run([str(results), exercise.number, exercise.name, str(file)], results, errors, time_limit)
        events = _read(results)
        crash = "" if events else _last_line(errors)
    return _report(exercise, file, titles, events, ended, time_limit, crash)


def _run(arguments, results, errors, time_limit):
    """The child's exit code, or None where it was stopped at the limit, which counts from when it is ready."""
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", f"{__package__}.child", *arguments]
    with open(errors, "wb") as error_file:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=error_file, start_new_session=True)  # fmt: skip
        try:
            started = time.monotonic()
            while process.poll() is None and not _size(results) and time.monotonic() - started < STARTING:
                time.sleep(0.02)
            return process.wait(time_limit)
        except subprocess.TimeoutExpired:
            return None
        finally:  # Ctrl-C comes here too
            if process.poll() is None:
                _end(process)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _end(process):
    """The child with whatever it started: it leads a process group of its own."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _read(results):
    """The lines that were written whole."""
    events = []
    if results.exists():
        for line in results.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                break
    return events


def _last_line(errors):
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _report(exercise, file, titles, events, ended, time_limit, crash):
    outcomes, problem, cost, printed, running = [], "", {}, (0, ""), None
    for event in events:
        if event["kind"] == "unusable":
            problem = event["problem"]
        elif event["kind"] == "check":
            running = event["title"]
        elif event["kind"] == "result":
            outcomes.append(Outcome(running, event["passed"], event["detail"] or ""))
            running = None
        elif event["kind"] == "cost":
            cost = {key: event[key] for key in ("load", "rows") if key in event}
        elif event["kind"] == "end":
            printed = event["printed"], event["beginning"]
    over = f"still running after {time_limit:g} s, and stopped: an endless loop, or far too slow?"
    if running is not None:
        outcomes.append(Outcome(running, False, over if ended is None else _crashed(ended)))
    elif not outcomes and not problem:
        problem = f"{over} (while the file was read)" if ended is None else crash or _crashed(ended)
    if outcomes and outcomes[-1].detail.startswith("not written yet"):
        problem, outcomes = outcomes[-1].detail, outcomes[:-1]
    outcomes += [Outcome(title, None) for title in titles[len(outcomes) :]]
    return Report(exercise.number, file, outcomes, problem, cost, printed)


def _crashed(code):
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}: memory ran out, or a crash below Python"
    return f"the process ended by itself with exit code {code}: os._exit has no place here"
