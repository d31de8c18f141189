"""What this installation is made of: versions, kernels, fonts; what is missing and the command that adds it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from rich.text import Text

from .. import __version__, kernels, locate
from ..kernels import native
from .screen import marks, new_console, shown

NEEDED = ("numpy", "ml_dtypes", "rich", "matplotlib", "safetensors", "regex")
CJK_SAMPLE = "你好"


def configure(parser):
    pass


def run(args):
    console = new_console()
    findings = Findings(console)
    findings.machine()
    findings.packages()
    findings.kernel_sets()
    findings.numpy_blas()
    findings.text_and_fonts()
    findings.folders()
    return findings.verdict()


class Findings:
    """Prints one line a fact; collects what is missing with the command that adds it."""

    def __init__(self, console):
        self.console, self.missing = console, []

    def fact(self, name, value, good=None, remedy=None):
        mark = " " if good is None else marks(self.console)["good" if good else "bad"]
        text = Text(f"{mark} ", "good" if good else "bad").append(f"{name:<16} ", "bold").append(str(value), "none")
        self.console.print(text, soft_wrap=True)
        if remedy:
            self.missing.append((name, remedy))

    def head(self, title):
        self.console.print(Text(f"\n{title}", "head"))

    def machine(self):
        self.console.print(Text(f"minitransformer {__version__}", "head"))
        self.fact(
            "Python",
            f"{platform.python_version()} ({platform.python_implementation()}), {shown(sys.executable)}",
            sys.version_info >= (3, 11),
        )
        self.fact("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
        self.fact("processors", f"{usable_processors()} usable of {os.cpu_count()}")
        root = locate.checkout()
        self.fact("runs from", f"the checkout {root}" if root else f"the installed package {Path(__file__).parents[1]}")

    def packages(self):
        self.head("Packages")
        for name in NEEDED:
            try:
                self.fact(name, importlib.metadata.version(name), True)
            except importlib.metadata.PackageNotFoundError:
                self.fact(name, "missing", False, f"{shown(sys.executable)} -m pip install {name}")

    def kernel_sets(self):
        self.head("Kernels")
        available = kernels.available()
        for name, reason in available.items():
            good = not reason if name in ("numpy", "native") else None if reason else True  # not everybody has a GPU
            self.fact(name, reason or f"{len(_own_routines(name))} routines", good)
        self.fact("in use", kernels.current().name)
        if not available["native"]:
            self.fact("instruction set", native.isa())
            self.fact("threads", f"{native.thread_count()} (MINITRANSFORMER_NUM_THREADS sets it)")
            lacking = kernels.current().note
            if lacking:
                self.fact("from NumPy", ", ".join(lacking))
            return
        compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)
        self.fact("C++ compiler", compiler or "none found", bool(compiler))
        build = build_command()
        self.missing.append(("native kernels", build if compiler else f"{compiler_command()}, then {build}"))

    def numpy_blas(self):
        import numpy as np

        self.head("NumPy's matrix products")
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        self.fact("BLAS", f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip())
        chosen = {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE")
            if name in os.environ
        }
        self.fact("its settings", ", ".join(f"{name}={value}" for name, value in chosen.items()) or "its own choice")

    def text_and_fonts(self):
        import logging

        from ..data import default_corpus
        from ..visualization.fonts import drawable

        self.head("Text and figures")
        try:
            self.fact("default corpus", f"{len(default_corpus()):,} characters of Python's language reference", True)
        except ValueError as error:
            self.fact("default corpus", error, False, "a text of your own: minitransformer train --text FILE")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # the first look builds a font cache and says so
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, families = drawable([CJK_SAMPLE])
        command = None if families else font_command()
        self.fact(
            "Chinese labels",
            families[0] if families else "no installed font draws them: figures show escapes",
            bool(families),
            command,
        )
        encoding = self.console.encoding
        self.fact(
            "terminal",
            f"{encoding}, {self.console.width} columns, {'colours' if self.console.color_system else 'no colours'}",
        )

    def folders(self):
        out = Path("out")
        free = shutil.disk_usage(out if out.is_dir() else ".").free
        writable = os.access(out if out.is_dir() else ".", os.W_OK)
        self.fact("output folder", f"{out.resolve()} ({free / 2**30:.1f} GB free)", writable and free > 100 << 20,
                  None if writable else "run it where you may write, or give --out")  # fmt: skip

    def verdict(self) -> int:
        if not self.missing:
            self.console.print(Text("\nNothing is missing.", "good"))
            return 0
        self.console.print(Text("\nMissing, and what adds it:", "doubt"))
        for name, remedy in self.missing:
            self.console.print(Text(f"  {name:<16} ").append(remedy, "command"), soft_wrap=True)
        return 0


def usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_routines(name):
    with kernels.use(name) as table:
        table = table.on(kernels.SERVES[name][0])
        return [routine for routine, source in table.source.items() if source == name]


# ---------------------------------------------------------------- the command that adds something, on this system

MANAGERS = {  # package manager -> (command, C++ compiler, a font with Chinese characters)
    "apt-get": ("sudo apt install", "g++", "fonts-noto-cjk"),
    "dnf": ("sudo dnf install", "gcc-c++", "google-noto-sans-cjk-fonts"),
    "pacman": ("sudo pacman -S", "gcc", "noto-fonts-cjk"),
    "zypper": ("sudo zypper install", "gcc-c++", "noto-sans-sc-fonts"),
    "apk": ("sudo apk add", "g++ musl-dev", "font-noto-cjk"),
}


def _install(which, otherwise):
    for manager, names in MANAGERS.items():
        if shutil.which(manager):
            return f"{names[0]} {names[which]}"
    return otherwise


def build_command() -> str:
    if locate.checkout():
        return "make build" if shutil.which("make") else "python start.py build"
    return f"{shown(sys.executable)} -m pip install --force-reinstall --no-deps minitransformer"


def compiler_command() -> str:
    if sys.platform == "darwin":
        return "xcode-select --install"
    if os.name == "nt":
        workload = "--add Microsoft.VisualStudio.Workload.VCTools"
        return f'winget install Microsoft.VisualStudio.2022.BuildTools --override "{workload}"'
    return _install(1, "install a C++ compiler (g++ or clang++)")


def font_command() -> str:
    return (
        "brew install font-noto-sans-cjk" if sys.platform == "darwin" else _install(2, "install the font Noto Sans CJK")
    )
