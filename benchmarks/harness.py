"""Measure several implementations of one job so that the comparison holds on a noisy machine.

Each implementation lives in a process of its own: two thread pools in one process slow each other down 2-3 times, and
peak memory is a process's. The driver lets them work in turn, A B A B …, a fraction of a second each, while the
others sleep. What is reported is the ratio of the medians, with the spread of the per-round ratios.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
THREADS = 2


@dataclass
class Measured:
    """One implementation of one job. seconds: the median of a call; memory: its process's peak resident MB, of which
    `growth` came after the inputs were made (Linux; elsewhere 0)."""

    label: str
    seconds: float
    best: float
    rounds: list[float]
    memory: float
    growth: float = 0.0


def interleaved(setups: dict[str, tuple], rounds: int = 15, slice_seconds: float = 0.4) -> dict[str, Measured]:
    """Run every setup in turn; setups maps a label to ("module:function", arguments).

    The function runs in a fresh process and returns a callable that does the job once. The first call is not
    counted. The first implementation must start (SystemExit says why not); another that
    does not is left out, with its reason.
    """
    # Threads of NumPy's OpenBLAS spin on after a product; they must not do it into somebody else's turn.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    context = multiprocessing.get_context("spawn")
    workers = {}
    for label, (target, *arguments) in setups.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, target, arguments), daemon=True)
        process.start()
        theirs.close()
        workers[label] = (process, ours)
    started = {label: pipe.recv() for label, (_, pipe) in workers.items()}
    times = {label: [] for label, answer in started.items() if answer[0] == "ready"}
    first = next(iter(started))
    if started[first][0] != "ready":
        raise SystemExit(f"{first} does not run: {started[first][1]}")
    for label, answer in started.items():
        if answer[0] != "ready":
            print(f"  {label}: left out, {answer[1]}", file=sys.stderr)
    repeats = {label: max(1, round(slice_seconds / started[label][1])) for label in times}
    for number in range(rounds):
        order = list(times) if number % 2 == 0 else list(times)[::-1]  # nobody always goes first
        for label in order:
            time.sleep(0.02)  # until the last one's threads have gone to sleep
            workers[label][1].send(repeats[label])
            times[label].append(statistics.median(workers[label][1].recv()))
    found = {}
    for label in times:
        workers[label][1].send(None)
        memory = workers[label][1].recv()
        found[label] = Measured(label, statistics.median(times[label]), min(times[label]), times[label], *memory)
    for process, _ in workers.values():
        process.join(timeout=20)
    return found


def _worker(pipe, target, arguments):
    try:
        module, function = target.split(":")
        job = getattr(importlib.import_module(module), function)(*arguments)
        before = _forget_peak()
        job()
        start = time.perf_counter()
        job()
        pipe.send(("ready", max(time.perf_counter() - start, 1e-6)))
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        return
    while (repeats := pipe.recv()) is not None:
        job()  # wakes our threads and fills our caches; not counted
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            job()
            spent.append(time.perf_counter() - start)
        pipe.send(spent)
    peak = _peak_memory()
    pipe.send((peak, peak - before if before else 0.0))


def _forget_peak() -> float:
    """What is resident now, in MB, from which the peak is counted anew; 0 where the system does not do that."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed while the inputs were made would be used again, unnoticed
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except (OSError, AttributeError):
        return 0.0
    return _peak_memory()


def _peak_memory() -> float:
    """Peak resident memory of this process in MB. Linux hands ru_maxrss down through exec, so VmHWM comes first."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def ratio(ours: Measured, theirs: Measured) -> dict:
    """Our time over theirs: of the medians, and the quartiles of the rounds' own ratios."""
    each = sorted(a / b for a, b in zip(ours.rounds, theirs.rounds, strict=True))
    return {
        "ratio": ours.seconds / theirs.seconds,
        "quartiles": [each[len(each) // 4], each[(3 * len(each)) // 4]],
    }


def machine() -> dict:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    from minitransformer import kernels

    described = {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": THREADS,
        "instruction set": kernels.native.isa() if not kernels.available()["native"] else "no native kernels",
        "python": platform.python_version(),
        "system": platform.system(),
    }
    for package in ("numpy", "torch"):
        try:
            described[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            described[package] = "not installed"
    return described


def arguments(doc: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--rounds", type=int, default=15, help="turns that each implementation gets (default 15)")
    parser.add_argument("--only", nargs="*", help="run only these jobs")
    parser.add_argument("--dry", action="store_true", help="leave benchmarks/RESULTS.md as it is")
    return parser.parse_args()


def report(name: str, title: str, rows: list[dict], args) -> None:
    """Print the rows, keep them, and write RESULTS.md from all that is kept. A row: job, target, met, and figures."""
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print("  " + "   ".join(f"{key}: {value}" for key, value in row.items() if key != "rounds"))
    if args.dry or args.only:
        return
    kept = FOLDER / "results"
    kept.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    entry = {"title": title, "date": today, "machine": machine(), "rows": rows}
    (kept / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    write_results()


def write_results() -> None:
    """RESULTS.md: one table for each kept benchmark."""
    text = [
        "# Results",
        "",
        "Written by `python -m benchmarks.NAME`; not edited by hand. A ratio is our median time over the peer's,",
        "measured in turn in one run (below 1: we are faster); in brackets the quartiles of the rounds' own ratios,",
        "which tell how noisy the machine was. Memory is the peak resident memory of the whole process.",
    ]
    for path in sorted((FOLDER / "results").glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        on = ", ".join(f"{key} {value}" for key, value in entry["machine"].items())
        text += ["", f"## {entry['title']}", "", f"{entry['date']}; {on}.", ""]
        columns = list(dict.fromkeys(key for row in entry["rows"] for key in row))
        text += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        text += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in entry["rows"]]
        notes = FOLDER / "notes" / f"{path.stem}.md"
        if notes.exists():
            text += ["", notes.read_text(encoding="utf-8").strip()]
    (FOLDER / "RESULTS.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def shown_ratio(found: dict) -> str:
    low, high = found["quartiles"]
    return f"{found['ratio']:.2f} ({low:.2f}-{high:.2f})"
