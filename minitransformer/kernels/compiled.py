"""Sources that the C++ compiler of this machine builds on first use: found, compiled, kept.

    library = cached(cache_folder("ladder"), "attention", ".so", key, make)      # ladder/attention-<hash of key>.so

`make(folder, file)` is called once. It works in a folder of its own, and what it makes is renamed into place, so that
two processes may build the same at once. The key is everything that goes in: sources, compiler, flags.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_folder", "cached", "compiler", "contents", "run"]

_SOURCES = (".h", ".hpp", ".cuh", ".cu", ".cpp")


@functools.cache
def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout


def compiler(wanted_by: str) -> tuple[str, str]:
    """(path, version) of the C++ compiler. Raises RuntimeError where there is none, and says who needs it."""
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        path = shutil.which(candidate)
        if path:
            return path, _version(path)
    what = f"CXX={named} is not a program" if named else "no c++, g++ or clang++ was found"
    raise RuntimeError(f"{wanted_by} needs a C++ compiler, and {what} (Debian, Ubuntu: apt install g++)")


def cache_folder(name: str) -> Path:
    """Where built kernels are kept: below MINITRANSFORMER_CACHE, or `minitransformer` in the user's cache folder."""
    given = os.environ.get("MINITRANSFORMER_CACHE")
    if given:
        return Path(given) / name
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "minitransformer" / name


def contents(folder: Path) -> bytes:
    """The hash of every header and source in a folder, wherever below."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _SOURCES):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


def run(command: list[str], name: str, errors: bool = False) -> str:
    """What the command prints, or writes to stderr. Raises RuntimeError with the compiler's first error."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-1:]
        error = RuntimeError(f"{name} does not compile: {said[0] if said else 'the compiler failed'}")
        error.add_note(done.stderr)
        raise error
    return done.stderr if errors else done.stdout


def cached(folder: Path, stem: str, suffix: str, key, make: Callable[[Path, Path], None]) -> Path:
    """The file in the folder of that name and key; where it is not there, `make(scratch, file)` makes it first.

    Raises RuntimeError where the folder cannot be written.
    """
    kept = folder / f"{stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}{suffix}"
    if kept.is_file():
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="building-", dir=folder))
    except OSError as error:
        raise RuntimeError(
            f"built kernels cannot be kept in {folder} ({error.strerror}); MINITRANSFORMER_CACHE names another folder"
        ) from error
    try:
        make(scratch, scratch / "made")
        os.replace(scratch / "made", kept)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return kept
