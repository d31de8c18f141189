"""What the CUDA kernels promise beyond the right numbers, which tests/kernels checks: no order of threads changes a
bit, and the sources compile for real GPUs."""

import shutil
import zlib

import ml_dtypes
import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels.cuda import launch
from minitransformer.locate import csrc

from ..cuda_emulator.nvcc import ARCHITECTURES, compile_with_nvcc
from ..kernels.cases import CASES
from ..kernels.tolerance import IN_PLACE

OURS = [name for name in kernels.cuda.ROUTINES if "matmul" not in name and "linear" not in name]


def results(routine, case):
    written = IN_PLACE.get(routine, ())
    args = [a.copy() if i in written else a for i, a in enumerate(case.args)]
    out = kernels.cuda.ROUTINES[routine](*args, **case.kwargs)
    return [args[i] for i in written] if written else out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("order", [{"order": "last"}, {"order": "random", "seed": 7, "os_threads": 2}], ids=str)
@pytest.mark.parametrize("routine", OURS)
def test_no_order_of_threads_changes_a_bit(routine, order, emulator):
    cases = list(CASES[routine](np.random.default_rng(zlib.crc32(routine.encode())), np.dtype(np.float32)))
    for case in cases[:: max(1, len(cases) // 6)]:
        expected = results(routine, case)
        with emulator.schedule(**order):
            for got, want in zip(results(routine, case), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_long_rows_are_a_whole_blocks_work(emulator):
    """Teams of 256 and 1024 threads: the sums go through shared memory."""
    rng = np.random.default_rng(0)
    for n in (1025, 20_000):
        assert launch.teams(3, n)[1][0] > 32
        x, dy = rng.standard_normal((2, 3, n))
        calls = {"softmax": (x, -1), "softmax_backward": (dy, x, -1), "rms_norm_forward": (x, dy[0], 0.1)}
        for routine, args in calls.items():
            got, want = (kernel_set.ROUTINES[routine](*args) for kernel_set in (kernels.cuda, kernels.numpy))
            for g, w in zip(got, want) if isinstance(got, tuple) else [(got, want)]:
                np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-12 * np.abs(w).max())


def test_dtypes_without_a_kernel_fall_back(emulator):
    x = np.ones((2, 3), np.dtype(">f4"))
    with pytest.raises(kernels.Unsupported, match="the CUDA kernels have no >f4"):
        kernels.cuda.ROUTINES["silu"](x)


def test_the_same_dropout_as_everywhere(emulator):
    x = np.random.default_rng(1).standard_normal((37, 211))
    for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        for p in (0.1, 0.5, 1 / 3, 2**-32, 1 - 2**-33):
            args = x.astype(dtype), p, 2**63 + 5, 11
            assert np.array_equal(*(k.ROUTINES["dropout"](*args) for k in (kernels.cuda, kernels.numpy)))


def test_more_shared_memory_than_a_kernel_has_by_itself(emulator, monkeypatch):
    source = """
    extern __shared__ float tile[];
    extern "C" __global__ void last(float* y, int n) {
        tile[n - 1] = 7;
        __syncthreads();
        if (threadIdx.x == 0) y[0] = tile[n - 1];
    }"""
    monkeypatch.setattr(launch, "source", lambda concept: source)
    y = np.zeros(1, np.float32)
    for size in (1000, 100_000):
        launch.kernel(f"scratch_{size}", "last", y, suffix="", shared=size)((1,), (32,), (y, np.int32(size // 4)))
        assert y == 7
        y[:] = 0


def test_the_headers_are_part_of_the_options(tmp_path, monkeypatch):
    """CuPy's cache does not look into included files: an edit there must change an option."""
    (tmp_path / "cuda").mkdir()
    monkeypatch.setattr(launch, "csrc", lambda: tmp_path)
    found = set()
    for text in ("a", "b"):
        (tmp_path / "cuda" / "x.cuh").write_text(text, encoding="utf-8")
        found.add(launch.options.__wrapped__())
    assert len(found) == 2


# ---------------------------------------------------------------- slow: sanitizers, and compilers for real GPUs


def sanitized(monkeypatch, emulator, sanitizer):
    """From now on every launch is one under a sanitizer, on two threads of the system; the reports of those that found
    something."""
    from minitransformer.kernels.cuda import sanitize

    reports = []

    def function(concept, name, place, shared):
        def run(grid, block, args):
            code, options = launch.source(concept), launch.options()
            with emulator.schedule(os_threads=2):
                report = sanitize.run(
                    code, name, grid, block, args, sanitizer=sanitizer, shared_mem=shared, options=options
                )
            reports.extend([] if report.clean else [report])

        return run

    monkeypatch.setattr(launch, "_function", function)
    return reports


def short_and_long(routine):
    """A case whose rows are a warp's work, and one that takes several blocks, or a block a row."""
    cases = list(CASES[routine](np.random.default_rng(0), np.dtype(np.float32)))
    sizes = [sum(a.size for a in case.args if isinstance(a, np.ndarray)) for case in cases]
    order = [i for i in np.argsort(sizes) if 8 < sizes[i] < 30_000] or [np.argmax(sizes)]
    return cases[order[0]], cases[order[-1]]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address"])
@pytest.mark.parametrize("routine", OURS)
def test_sanitizers_find_nothing(routine, sanitizer, emulator, monkeypatch):
    reports = sanitized(monkeypatch, emulator, sanitizer)
    for case in short_and_long(routine):
        results(routine, case)
        assert not reports, reports[0].text[:3000]


@pytest.mark.slow
def test_a_missing_barrier_is_found(emulator, monkeypatch, tmp_path):
    shutil.copytree(csrc() / "cuda", tmp_path / "cuda")
    header = tmp_path / "cuda" / "rows.cuh"
    text = header.read_text(encoding="utf-8")
    line = "= value;\n    __syncthreads();"
    assert text.count(line) == 1
    header.write_text(text.replace(line, "= value;"), encoding="utf-8")
    monkeypatch.setattr(launch, "options", lambda: ("-std=c++17", f"-I{tmp_path / 'cuda'}"))
    reports = sanitized(monkeypatch, emulator, "thread")
    kernels.cuda.ROUTINES["softmax"](np.ones((2, 2000), np.float32), -1)
    assert reports and reports[0].kind == "data race"


SOURCES = sorted((csrc() / "cuda").glob("*.cu"))
# 64 registers leave room for 1024 threads on a multiprocessor; what keeps its sums in registers needs more.
MOST_REGISTERS = {
    "attention": 168,
    "attention_tensor_cores": 255,
    "quantized_gemm": 96,
    "quantized_gemm_tensor_cores": 96,
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_compiles_for_gpus_without_spilling(source, arch):
    found = compile_with_nvcc(source, arch)
    assert found
    for name, compiled in found.items():
        assert compiled.spills == 0 and compiled.registers <= MOST_REGISTERS.get(source.stem, 64), (name, compiled)
        assert compiled.tensor_cores == source.stem.endswith("tensor_cores"), name
