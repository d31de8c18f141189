"""What a person has done, in one file to read: practice/progress.json.

    {"version": 1,
     "lessons":   {"02": {"state": "done", "runs": 1, "seconds": 14.2, "when": "2025-01-31 20:15"}},
     "exercises": {"02.1": {"state": "passed", "checks": 3, "hints": 1, "when": "2025-01-31 20:40:12"}}}

A change is read, made and written under a lock that the operating system drops when its process ends, and the file
takes its name only once it is whole: two runs at once lose nothing, and neither does one that is killed. A file that
cannot be read is put aside under a new name, said so in one line, and a new one begins.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path

from .workspace import folder

__all__ = ["one_more", "path", "read", "record"]

VERSION = 1
logger = logging.getLogger(__name__)


def path() -> Path:
    return folder() / "progress.json"


def read() -> dict:
    """{"version", "lessons", "exercises"}; empty where nothing was done yet."""
    file = path()
    found, problem = _load(file)
    if problem:
        with _locked(file):
            found = _load_or_put_aside(file)
    return found


def record(kind: str, key: str, **changes) -> dict:
    """Merge changes into an entry and return it; a callable is given the old value (None if there is none).

    kind: "lessons" or "exercises". What cannot be written is a warning, so that nobody's run fails for it.
    """
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            found = _load_or_put_aside(file)
            entry = found[kind].setdefault(key, {})
            for name, value in changes.items():
                entry[name] = value(entry.get(name)) if callable(value) else value
            found[kind] = dict(sorted(found[kind].items()))
            partial = file.with_name(f".progress-{os.getpid()}.partial")
            partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            partial.replace(file)
        return entry
    except OSError as error:
        logger.warning(f"progress could not be kept in {file}: {error.strerror or error}")
        return {name: value(None) if callable(value) else value for name, value in changes.items()}


def one_more(count) -> int:
    """A change for `record`: a counter that begins at 0, whatever an edited file holds."""
    return (count if isinstance(count, int) else 0) + 1


def _empty():
    return {"version": VERSION, "lessons": {}, "exercises": {}}


def _load(file):
    """(what the file holds, "") or (nothing, why it cannot be read)."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _empty(), ""
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        return _empty(), str(error).splitlines()[0]
    problem = _problem(found)
    return (_empty(), problem) if problem else (found, "")


def _load_or_put_aside(file):
    """Under the lock: another run may have put it aside already, and begun a new one."""
    found, problem = _load(file)
    if problem:
        aside = _put_aside(file)
        logger.warning(f"{file} cannot be read ({problem}): it was kept as {aside.name}, and a new one begins")
    return found


def _problem(found):
    if not isinstance(found, dict):
        return "it holds no table"
    if found.get("version") != VERSION:
        return f"its version is {found.get('version')}, known is {VERSION}"
    for kind in ("lessons", "exercises"):
        entries = found.get(kind)
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            return f"{kind!r} is missing or damaged"
    return ""


def _put_aside(file):
    number = 1
    while (aside := file.with_name(f"progress.unreadable-{number}.json")).exists():
        number += 1
    file.replace(aside)
    return aside


@contextlib.contextmanager
def _locked(file, patience=10.0):
    """Holds a lock beside the file. Raises TimeoutError when another process keeps it for long."""
    with open(file.with_name(".progress.lock"), "a+b") as lock:
        deadline = time.monotonic() + patience
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {lock.name} for {patience:.0f} s")
            time.sleep(0.02)
        try:
            yield
        finally:
            _unlock(lock)


if os.name == "nt":
    import msvcrt

    def _try_lock(lock):
        lock.seek(0)
        try:
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(lock):
        lock.seek(0)
        msvcrt.locking(lock.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(lock):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(lock):
        fcntl.flock(lock, fcntl.LOCK_UN)
