"""Compiling CUDA sources for the CPU: csrc/cuda_emulator/ in front, the kernels' names found, the library kept.

kernels/compiled.py keeps it under the hash of everything that went in: source, emulator, compiler, flags.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from ... import locate
from .. import compiled
from ..compiled import run as _run

__all__ = [
    "Parameter",
    "Signature",
    "build_library",
    "cache_folder",
    "compiler",
    "find_kernels",
    "library_file",
    "program_file",
]

_FLAGS = ("-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-w", "-pthread")
_FLAGS += ("-fstack-clash-protection",)  # csrc/cuda_emulator/fiber.h


# ---------------------------------------------------------------- a kernel's parameters

_DTYPES = {
    **{f"{kind}{size}": np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)},
    **{f"f{size}": np.dtype(f"f{size}") for size in (4, 8)},
    "b1": np.dtype(np.bool_),
    "h2": np.dtype(np.float16),
    "B2": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter: `word` as csrc/cuda_emulator/launch.h writes it, `text` as the source does."""

    word: str
    text: str

    def value(self, arg, where: str) -> np.ndarray:
        """The argument as an array of one element. Raises TypeError or ValueError where it does not fit."""
        return self._address(arg, where) if self.word[0] in "pP" else self._number(arg, where)

    def _address(self, arg, where):
        if arg is None:
            return np.zeros(1, np.uint64)
        if isinstance(arg, np.ndarray):
            pointer = arg.ctypes.data
            if self.word[0] == "P" and not arg.flags.writeable:
                raise ValueError(f"{where} is written to, and the array is read-only")
        elif hasattr(getattr(arg, "data", None), "ptr"):
            pointer = arg.data.ptr
        else:
            raise TypeError(f"{where} is a pointer: pass an array, not {type(arg).__name__}")
        expected, got = _DTYPES.get(self.word[1:]), np.dtype(arg.dtype)
        raw = got.kind in "iu" and got.itemsize == 2 and self.word[1:] in ("h2", "B2")  # their bits
        signs = expected is not None and {expected.kind, got.kind} == {"i", "u"} and expected.itemsize == got.itemsize
        if expected is not None and got != expected and not raw and not signs:
            raise TypeError(f"{where} points to {expected}, and the array is {got}")
        return np.array([pointer], np.uint64)

    def _number(self, arg, where):
        if isinstance(arg, bool | int | float):
            arg = np.bool_(arg) if isinstance(arg, bool) else np.int64(arg) if isinstance(arg, int) else np.float64(arg)
        if not isinstance(arg, np.generic):
            raise TypeError(f"{where} is passed by value: pass a NumPy scalar, not {type(arg).__name__}")
        expected = _DTYPES.get(self.word)
        if expected is None:
            if arg.dtype.itemsize != int(self.word[1:]):
                raise TypeError(f"{where} has {self.word[1:]} bytes, and {arg.dtype} has {arg.dtype.itemsize}")
        elif arg.dtype != expected:
            raise TypeError(f"{where} is {expected}, and the argument is {arg.dtype}")
        return np.array([arg])


@dataclass(frozen=True)
class Signature:
    """A kernel's name, parameters, and how many threads a block may have (__launch_bounds__, else 1024)."""

    name: str
    parameters: tuple[Parameter, ...]
    most_threads: int

    def __str__(self):
        return f"{self.name}({', '.join(p.text for p in self.parameters)})"


_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\((?P<bounds>[^()]*(?:\([^()]*\)[^()]*)*)\)\s*)?'
    r"(?:void\s+)?(?P<name>\w+)\s*\((?P<parameters>[^{;]*)\)\s*\{"
)
_SHARED = re.compile(r"\bextern\s+__shared__\s+[^;={}]*?(\w+)\s*\[\s*\]\s*;")


def find_kernels(preprocessed: str) -> tuple[dict[str, tuple[str, list[str]]], list[str]]:
    """{kernel: (launch bounds, its parameters' texts)} and the dynamic shared arrays' names, in preprocessed source."""
    kernels = {}
    for found in _KERNEL.finditer(preprocessed):
        parameters = " ".join(found["parameters"].split())
        texts = [] if parameters in ("", "void") else [p.strip() for p in parameters.split(",")]
        kernels[found["name"]] = (found["bounds"] or "", texts)
    return kernels, sorted(set(_SHARED.findall(preprocessed)))


# ---------------------------------------------------------------- building


def compiler() -> tuple[str, str]:
    """(path, version) of the C++ compiler. Raises RuntimeError where there is none."""
    return compiled.compiler("emulated CUDA")


def cache_folder() -> Path:
    """Where built kernels are kept."""
    return compiled.cache_folder("cuda")


def _cached(stem: str, suffix: str, key: tuple, make) -> Path:
    emulator = compiled.contents(locate.csrc() / "cuda_emulator")
    return compiled.cached(cache_folder(), stem, suffix, (key, emulator), make)


def library_file(code: str, options: Sequence[str], name: str, flags: Sequence[str] = ()) -> Path:
    """The shared library of a CUDA source. Later flags override earlier ones, so that flags=("-O1",) is -O1."""
    options = tuple(o for o in options if o.startswith(("-D", "-I")))
    flags = (*_FLAGS, *flags)
    folders = tuple(compiled.contents(Path(o[2:])) for o in options if o.startswith("-I") and Path(o[2:]).is_dir())
    key = (code, options, folders, name, flags, compiler())
    return _cached(
        Path(name).stem, ".so", key, lambda scratch, made: _compile(code, options, name, flags, scratch, made)
    )


def program_file(source: Path, flags: Sequence[str]) -> Path:
    """The program of one C++ file beside the emulator."""
    command = [compiler()[0], "-std=c++20", "-O1", "-g", *flags, str(source), "-ldl", "-pthread"]
    key = (source.name, tuple(flags), compiler())
    return _cached(source.stem, "", key, lambda _, made: _run([*command, "-o", str(made)], source.name))


def _compile(code, options, name, flags, folder: Path, library: Path) -> None:
    """Writes the kernels, what makes them known, and their dynamic shared memory into `folder`, and compiles them."""
    path, version = compiler()
    emulator = locate.csrc() / "cuda_emulator"
    include = [f"-I{emulator}", f"-I{emulator / 'include'}", *options]
    kernels_file, shared_file = folder / "kernels.cpp", folder / "shared.cpp"
    text = f'#include "cuda_emulator.h"\n#line 1 "{name}"\n{code}\n'
    kernels_file.write_text(text, encoding="utf-8")
    listed = _run([path, *flags, *include, "-DCUDA_EMULATOR_LIST", "-E", "-P", str(kernels_file)], name)
    kernels, shared = find_kernels(listed)
    if not kernels:
        raise RuntimeError(f'{name} has no kernels: nothing in it reads `extern "C" __global__ void name(...) {{`')
    text += '#line 1 "launchers"\n' + "".join(
        f"CUDA_EMULATOR_KERNEL({kernel}{', ' + bounds if bounds else ''})\n" for kernel, (bounds, _) in kernels.items()
    )
    described = "\\n".join(f"{kernel}({', '.join(texts)})" for kernel, (_, texts) in kernels.items())
    text += f'CUDA_EMULATOR_EXPORT const char* cuda_emulator_kernels() {{ return "{described}"; }}\n'
    kernels_file.write_text(text, encoding="utf-8")
    shared_file.write_text(_dynamic_shared(shared), encoding="utf-8")
    tls = [] if "clang" in version else ["-fno-extern-tls-init", "-fno-gnu-unique"]
    command = [path, *flags, *tls, *include, "-shared", str(kernels_file), str(shared_file), "-o", str(library)]
    _run(command, name)


def _dynamic_shared(names: list[str]) -> str:
    """All arrays declared `extern __shared__` begin at the same address: one array, and its other names."""
    if not names:
        return ""
    first, *others = names
    size = "[(227 << 10) + 1024]"  # SharedMemory::largest + guard
    aliases = [f'extern thread_local unsigned char {n}{size} __attribute__((alias("{first}")));' for n in others]
    return "\n".join(
        [
            'extern "C" {',
            f"alignas(1024) thread_local unsigned char {first}{size};",
            *aliases,
            '__attribute__((visibility("hidden")))',
            f"unsigned char* cuda_emulator_dynamic_shared() {{ return {first}; }}",
            "}",
            "",
        ]
    )


def build_library(
    code: str, options: Sequence[str] = (), name: str = "kernel.cu"
) -> tuple[ctypes.CDLL, dict[str, Signature]]:
    """The library of a CUDA source, from the cache where it is there, and its kernels' signatures."""
    library = ctypes.CDLL(str(library_file(code, options, name)))
    library.cuda_emulator_kernels.restype = ctypes.c_char_p
    signatures = {}
    for line in library.cuda_emulator_kernels().decode().splitlines():
        kernel, _, texts = line[:-1].partition("(")
        parameters = getattr(library, kernel + "_parameters")
        parameters.restype = ctypes.c_char_p
        words = parameters().decode().split()
        texts = texts.split(", ") if texts else []
        texts = texts if len(texts) == len(words) else words
        most = getattr(library, kernel + "_most_threads")()
        signatures[kernel] = Signature(kernel, tuple(map(Parameter, words, texts)), most)
    return library, signatures
