"""Building and keeping: found kernels, the cache, compilers."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitransformer import locate
from minitransformer.kernels.cuda import build, emulator

TWICE = 'extern "C" __global__ void twice(int* x) { x[threadIdx.x] *= FACTOR; }\n'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "a cache"))
    return tmp_path / "a cache" / "cuda"


def doubled(module):
    x = np.arange(4, dtype=np.int32)
    module.get_function("twice")((1,), (4,), (x,))
    return list(x)


def test_kernels_are_built_once(cache, monkeypatch):
    options = ["-DFACTOR=2", "--use_fast_math"]
    assert doubled(emulator.RawModule(code=TWICE, options=options, name="twice.cu")) == [0, 2, 4, 6]
    (library,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(build, "_run", lambda *_: pytest.fail("compiled again"))
        assert doubled(emulator.RawModule(code=TWICE, options=options, name="twice.cu")) == [0, 2, 4, 6]
    assert doubled(emulator.RawModule(code=TWICE, options=["-DFACTOR=3"], name="twice.cu")) == [0, 3, 6, 9]
    assert len(list(cache.iterdir())) == 2 and library.suffix == ".so"


def test_a_header_of_an_include_folder_is_part_of_the_hash(cache, tmp_path):
    for factor in (5, 6):
        (tmp_path / "factor.cuh").write_text(f"#define FACTOR {factor}\n", encoding="utf-8")
        module = emulator.RawModule(code='#include "factor.cuh"\n' + TWICE, options=[f"-I{tmp_path}"])
        assert doubled(module)[1] == factor


def test_two_processes_build_at_once(cache):
    program = (
        "import numpy as np; from minitransformer.kernels.cuda.emulator import RawModule\n"
        f"x = np.arange(4, dtype=np.int32); m = RawModule(code={TWICE!r}, options=['-DFACTOR=2'])\n"
        "m.get_function('twice')((1,), (4,), (x,)); print(list(map(int, x)))"
    )
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0] for p in both] == ["[0, 2, 4, 6]\n"] * 2
    assert [p.suffix for p in cache.iterdir()] == [".so"]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        RuntimeError, match=r"^built kernels cannot be kept in .*; MINITRANSFORMER_CACHE names another folder$"
    ):
        emulator.RawModule(code=TWICE, options=["-DFACTOR=2"])


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        RuntimeError, match=r"^emulated CUDA needs a C\+\+ compiler, and CXX=no-such-compiler is not a pr"
    ):
        emulator.RawModule(code=TWICE, options=["-DFACTOR=2"])
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"no c\+\+, g\+\+ or clang\+\+ was found"):
        emulator.RawModule(code=TWICE, options=["-DFACTOR=2"])


def test_find_kernels():
    found, shared = build.find_kernels(
        'extern "C" __global__ void a(const float* x,\n  int n) { extern __shared__ float s[]; }\n'
        'extern "C" __global__ void __launch_bounds__((2 * 64), 2) b() { extern __shared__ __align__(16) char t[]; }\n'
        '__global__ __launch_bounds__(32) void hidden(int) {}  extern "C" __global__ void declared(int n);\n'
        'extern "C" __global__ __launch_bounds__(N) void c(void) { alignas(16) extern __shared__ unsigned char s[]; }\n'
    )
    assert found == {"a": ("", ["const float* x", "int n"]), "b": ("(2 * 64), 2", []), "c": ("N", [])}
    assert shared == ["s", "t"]


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_cache_folder(monkeypatch, tmp_path, variable):
    for name in ("MINITRANSFORMER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = build.cache_folder()
    assert folder.is_relative_to(tmp_path) and folder.parts[-2:] == ("minitransformer", "cuda")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-DCUDA_EMULATOR_UCONTEXT=1",)])
def test_the_emulator_compiles_without_warnings(tmp_path, source, flags):
    """And runs on the C library's own contexts, where a processor has no switch of ours."""
    path, _ = build.compiler()
    folder = locate.csrc() / "cuda_emulator"
    code = '#include "cuda_emulator.h"\n' + source("tensor_cores.cu") + "CUDA_EMULATOR_KERNEL(bytes)\n"
    (tmp_path / "kernels.cpp").write_text(code, encoding="utf-8")
    command = [
        path,
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-O2",
        "-fPIC",
        "-shared",
        *flags,
    ]
    command += [f"-I{folder}", f"-I{folder / 'include'}", str(tmp_path / "kernels.cpp"), "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_contexts_of_the_c_library(source):
    x, y = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    module = emulator.RawModule(code=source("warps.cu"), options=["-DCUDA_EMULATOR_UCONTEXT=1"], name="warps.cu")
    module.get_function("through_shared")((2,), (128,), (x, y))
    assert (y == x ^ 1).all()
