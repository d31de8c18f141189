"""Bugs planted in the large kernels: a missing barrier, a wrong bound, a race. Each must be reported, with its file;
and without it the same call is clean. Two OS threads run the blocks."""

import shutil

import ml_dtypes
import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels.cuda import launch
from minitransformer.kernels.quantized_weight import QuantizedWeight
from minitransformer.locate import csrc

from .test_kernels import sanitized

F32 = np.float32


def attention(dtype=F32, T=40):
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, T, 35)).astype(dtype)
    return kernels.cuda.ROUTINES["attention_forward"](q, k, v, scale=0.2, causal=True)[0]


def tensor_cores():
    return attention(ml_dtypes.bfloat16, 80)  # two tiles of keys


def attention_backward():
    q, k, v, o, do = np.random.default_rng(0).standard_normal((5, 1, 1, 40, 35)).astype(F32)
    lse = np.full((1, 1, 40), 3, F32)
    return kernels.cuda.ROUTINES["attention_backward"](do, q, k, v, o, lse, scale=0.2, causal=True)[1]


def topk():
    x = np.random.default_rng(0).standard_normal((2, 150)).astype(F32)
    return kernels.cuda.ROUTINES["topk_activation"](x, 40)[1]


def gathered_sum():
    weight = np.random.default_rng(0).standard_normal((9, 30)).astype(F32)
    return kernels.cuda.ROUTINES["gathered_sum"](np.ones((2, 5), F32), weight, np.arange(5)[None])


def quantized(format="q4_1"):
    rng = np.random.default_rng(0)
    weight = QuantizedWeight.quantize(rng.standard_normal((65, 64)).astype(F32), format)
    x = rng.standard_normal((9, 64)).astype(F32)
    return kernels.cuda.ROUTINES["quantized_gemm"](x, weight, inputs="int8")


def bytes_by_bytes():
    return quantized("int8")


RACE, BEYOND = ("thread", "data race"), ("address", "heap-buffer-overflow")
BUGS = [
    # what runs, the file, what stood there, what stands there now, who reports it
    (attention, "attention.cu", "__syncthreads();  // both are complete", "", RACE),
    (attention, "attention.cu", "__syncthreads();  // the tiles before are no longer read", "", RACE),
    (attention, "attention.cu", "__syncwarp();  // the other lanes have read what lies there", "", RACE),
    (attention, "attention.cuh", "if (j >= count || column", "if (j > count || column", BEYOND),
    (attention, "attention.cu", "c < like.width && row + r < like.count", "c < like.width", BEYOND),
    (attention_backward, "attention.cu", "const bool there = i < x.Tq;", "const bool there = true;", BEYOND),
    (tensor_cores, "attention_tensor_cores.cu", "__syncthreads();  // the values before are no longer read", "", RACE),
    (tensor_cores, "attention_tensor_cores.cu", "__syncthreads();  // the keys are no longer read", "", RACE),
    (tensor_cores, "attention_tensor_cores.cu", "__syncwarp();  // the scores of other lanes are there", "", RACE),
    (tensor_cores, "attention_tensor_cores.cu", "i += 2)\n            store(o", "i += 1)\n            store(o", RACE),
    (topk, "topk_activation.cu", "__syncthreads();  // all are 0", "", RACE),
    (topk, "topk_activation.cu", "__syncthreads();  // the counts have been read", "", RACE),
    (topk, "topk_activation.cu", "atomicAdd(&found[key >> shift & 255], 1)", "found[key >> shift & 255]++", RACE),
    (topk, "topk_activation.cu", "i < n ? key_of", "true ? key_of", BEYOND),
    (gathered_sum, "topk_activation.cu", "y[token * width + column]", "y[column]", RACE),  # by two blocks
    (quantized, "quantized_gemm.cu", "__syncthreads();  // the words are there", "", RACE),
    (bytes_by_bytes, "quantized_gemm_tensor_cores.cu", "__syncthreads();  // the codes are there", "", RACE),
    (quantized, "quantized_gemm.cu", "m < in.M && n < weight.N", "n < weight.N", BEYOND),
    (quantized, "quantized_gemm.cu", "inside && m0 + r < in.M", "inside", BEYOND),
]  # fmt: skip


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of csrc/cuda with kernels for one dtype only, which compiles sooner; edit(file, old, new) changes it."""
    folder = tmp_path / "cuda"
    shutil.copytree(csrc() / "cuda", folder)
    monkeypatch.setattr(launch, "csrc", lambda: tmp_path)
    monkeypatch.setattr(launch, "options", lambda: ("-std=c++17", f"-I{folder}"))

    def edit(name, old, new):
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    for name in ("attention.cu", "topk_activation.cu", "quantized_gemm.cu", "quantized_gemm_tensor_cores.cu"):
        edit(name, "\nFLOATS(KERNELS)", "\nKERNELS(float, float)")
    return edit


@pytest.mark.slow
@pytest.mark.parametrize(("run", "file", "old", "new", "reported"), BUGS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_planted_bug_is_reported(run, file, old, new, reported, sources, emulator, monkeypatch):
    sanitizer, kind = reported
    sources(file, old, new)
    reports = sanitized(monkeypatch, emulator, sanitizer)
    run()
    assert reports and reports[0].kind == kind, reports[0].text[:2000] if reports else "nothing was reported"
    assert any(f"{file}:" in report.text for report in reports)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address"])
@pytest.mark.parametrize(
    "run", [attention, tensor_cores, attention_backward, topk, gathered_sum, quantized, bytes_by_bytes]
)
def test_without_the_bug_nothing_is(run, sanitizer, sources, emulator, monkeypatch):
    reports = sanitized(monkeypatch, emulator, sanitizer)
    run()
    assert not reports, reports[0].text[:2000]


@pytest.mark.parametrize(
    ("run", "file", "old"),
    [
        (attention, "attention.cu", "__syncthreads();  // both are complete"),
        (attention, "attention.cu", "__syncthreads();  // the tiles before are no longer read"),
        (tensor_cores, "attention_tensor_cores.cu", "__syncthreads();  // the keys are no longer read"),
        (quantized, "quantized_gemm.cu", "__syncthreads();  // the words are there"),
    ],
)
def test_a_missing_barrier_shows_in_some_order_of_threads(run, file, old, sources, emulator, monkeypatch):
    """And right kernels give the same bits in all."""
    right = run()
    sources(file, old, "")
    monkeypatch.setattr(launch, "module", launch.module.__wrapped__)
    monkeypatch.setattr(launch, "_function", launch._function.__wrapped__)
    results = []
    for order in emulator.Schedule.ORDERS:
        with emulator.schedule(order=order, seed=2):
            results.append(run().tobytes())
    assert any(result != right.tobytes() for result in results)
