"""A working folder of its own, nobody at the keyboard, and commands run in this process."""

import io
import sys

import pytest

from minitransformer.kernels.cuda import emulator


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder: practice/ and out/ are made in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("MINITRANSFORMER_PRACTICE", raising=False)
    monkeypatch.delenv("MINITRANSFORMER_OUT", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def compiler(request):
    """Exercises in CUDA are checked by running it, for which the emulator needs a C++ compiler."""
    exercise = getattr(getattr(request.node, "callspec", None), "params", {}).get("exercise")
    if emulator.REASON and "CUDA source" in getattr(exercise, "stub", ""):
        pytest.skip(emulator.REASON)
