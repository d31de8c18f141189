"""The C++ kernels (`csrc/`), or the reason why they are not here.

`ROUTINES` maps the contract's names to the functions of the extension, without a Python layer between; it is None where
the extension is missing or was built from other sources than those of this checkout, and `REASON` says which.
"""

import hashlib
from pathlib import Path

from ..contract import ROUTINES as _CONTRACT


def source_hash(csrc: Path) -> str:
    """The hash of the sources the extension is made of, in the order and form that CMake computes it."""
    parts, sources = [], [*csrc.glob("*.[ch]pp"), *csrc.glob("bindings/*.[ch]pp")]
    for path in sorted(sources, key=lambda p: p.relative_to(csrc).as_posix()):
        parts.append(path.relative_to(csrc).as_posix() + ":" + hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _load():
    """(the extension or None, why not)."""
    try:
        from . import _native
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error):
            return None, "the extension is not built; `make build` builds it"
        return None, f"the extension does not load: {error}"
    csrc = Path(__file__).resolve().parents[3] / "csrc"
    if csrc.is_dir() and source_hash(csrc) != _native.source_hash:
        return None, "the extension is older than csrc/; `make build` builds it anew"
    return _native, ""


_extension, REASON = _load()
ROUTINES = None
if _extension is not None:
    ROUTINES = {name: getattr(_extension, name) for name in _CONTRACT if hasattr(_extension, name)}


def _need():
    if _extension is None:
        raise RuntimeError(f"the native kernels are not available: {REASON}")
    return _extension


def thread_count() -> int:
    """Threads of a kernel: `set_thread_count`, else MINITRANSFORMER_NUM_THREADS, else the CPUs that we may use."""
    return _need().thread_count()


def set_thread_count(n: int) -> None:
    """Use n threads from now on. No result depends on it, bit for bit. Raises ValueError unless 1 <= n <= 1024."""
    _need().set_thread_count(n)


def isa() -> str:
    """The instruction set in use: "portable", "avx2", "avx512", "avx512_vnni" or "avx512_bf16".

    MINITRANSFORMER_ISA picks a lower one.
    """
    return _need().isa()


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory instead of returning it to the system; True where it can (glibc).

    A training step frees and allocates the same large arrays over and over, and each costs page faults again; keeping
    them made that pattern 2 to 6 times as fast. It holds for the whole process: a trainer's choice, not a default.
    """
    return _extension is not None and _extension.keep_freed_memory()


def region_seconds(times: int) -> float:
    """The mean time of `times` parallel regions in which the threads only meet: what it costs to share work."""
    return _need().region_seconds(times)
