"""A working folder of its own, nobody at the keyboard, and commands run in this process."""

import io
import sys

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder: practice/ and out/ are made in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("MINITRANSFORMER_PRACTICE", raising=False)
    monkeypatch.delenv("MINITRANSFORMER_OUT", raising=False)
    return tmp_path
