"""Where the files lie that are not Python modules: lessons and C++ sources.

In a checkout they stand beside the package, in a wheel inside it. Everybody asks here, so both work alike.

    locate.lessons() / "02_attention.py"
    locate.csrc() / "attention.cpp"
    locate.checkout()       # the checkout's root, or None for an installed wheel
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["checkout", "csrc", "lessons"]

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The root of the checkout that this package runs from; None when it runs from an installed wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "start.py").is_file() else None


def lessons() -> Path:
    """The folder of the lessons. Raises FileNotFoundError where the installation lacks it."""
    return _folder("lessons")


def csrc() -> Path:
    """The folder of the C++ sources. Raises FileNotFoundError where the installation lacks it."""
    return _folder("csrc")


def _folder(name: str) -> Path:
    root = checkout()
    folder = (root or _PACKAGE / "_files") / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: this installation is incomplete, install minitransformer again")
    return folder
