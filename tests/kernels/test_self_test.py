"""The kernels without Python: csrc/self_test. `.ci/run aarch64` runs it; here it must not fall behind the headers."""

import shutil
import subprocess

import pytest

from minitransformer import locate

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_self_test_compiles():
    command = [COMPILER, "-std=c++20", "-fsyntax-only", "-I", str(locate.csrc())]
    checked = subprocess.run(
        [*command, str(locate.csrc() / "self_test/self_test.cpp")], capture_output=True, encoding="utf-8"
    )
    assert checked.returncode == 0, checked.stderr
