"""Sources that the C++ compiler of this machine builds on first use: found, compiled, kept.

    library = kept("attention", (source, flags), [csrc / "ladder"], build)    # the path of attention-<hash>.so

`build(folder, library)` is called once: it compiles in a folder of its own, and the result is renamed into place, so
that two processes may build the same at once. The hash is over everything that goes in.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["cache_folder", "compiler", "kept", "run"]

_SOURCES = (".h", ".hpp", ".cuh", ".cu", ".cpp")


@functools.cache
def compiler() -> tuple[str, str]:
    """(path, version) of the C++ compiler. Raises RuntimeError where there is none."""
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        path = shutil.which(candidate)
        if path:
            return path, subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    what = f"CXX={named} is not a program" if named else "no c++, g++ or clang++ was found"
    raise RuntimeError(f"this needs a C++ compiler, and {what} (Debian, Ubuntu: apt install g++)")


def cache_folder() -> Path:
    """Where built kernels are kept: MINITRANSFORMER_CACHE, or `minitransformer` in the user's cache folder."""
    given = os.environ.get("MINITRANSFORMER_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "minitransformer"


def contents(folder: Path) -> bytes:
    """The hash of every header and source in a folder, wherever below."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _SOURCES):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


def run(command: list[str], name: str) -> str:
    """What the command prints. Raises RuntimeError with the compiler's first error."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-1:]
        error = RuntimeError(f"{name} does not compile: {errors[0] if errors else 'the compiler failed'}")
        error.add_note(done.stderr)
        raise error
    return done.stdout


def kept(name: str, key, folders: Iterable[Path], build: Callable[[Path, Path], None], suffix=".so") -> Path:
    """The file that `build` makes, from the cache where it is there: key and what lies in `folders` are its name.

    Raises RuntimeError where the cache cannot be written.
    """
    digest = hashlib.sha256(repr(key).encode())
    for folder in folders:
        digest.update(contents(folder))
    cache = cache_folder() / "compiled"
    made = cache / f"{name}-{digest.hexdigest()[:24]}{suffix}"
    if made.is_file():
        return made
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    except OSError as error:
        raise RuntimeError(
            f"built kernels cannot be kept in {cache} ({error.strerror}); MINITRANSFORMER_CACHE names another folder"
        ) from error
    try:
        build(scratch, scratch / made.name)
        os.replace(scratch / made.name, made)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made
