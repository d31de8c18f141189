"""The CUDA rungs: right in every order of threads, and their counts are those of formulas written down here."""

import math

import numpy as np
import pytest

from minitransformer.kernels.cuda.emulator import KernelError, RawModule, schedule
from minitransformer.kernels.ladder import WrongRung, cuda
from minitransformer.kernels.ladder.cuda import climb, compiled_for_gpus, cuda_ladders

SIZES = {
    "attention": [{"T": 1, "d": 16}, {"T": 77, "d": 16}, {"T": 65, "d": 48}],
    "topk_activation": [{"rows": 1, "n": 1, "k": 1}, {"rows": 5, "n": 77, "k": 11}, {"rows": 3, "n": 32, "k": 32}],
    "quantized_gemm": [{"M": 1, "N": 1, "K": 4}, {"M": 13, "N": 51, "K": 76}, {"M": 65, "N": 17, "K": 32}],
}
CASES = [(name, sizes) for name, all_sizes in SIZES.items() for sizes in all_sizes]


def up(n, by):
    return -(-n // by)


def attention_counts(T, d):
    def tiled(queries):
        seen = [min(T, first + queries) for first in range(0, T, queries)]
        return 4 * T * d + sum(2 * 4 * d * n for n in seen), sum(2 * up(n, 32) for n in seen)

    whole = sum(4 * 3 * d * (i + 1) for i in range(T))
    return {"global_memory": (whole, 0), "shared_tiles": tiled(32), "warps": tiled(32), "tensor_cores": tiled(64)}


def quantized_counts(M, N, K):
    def tiled(side, more=0):
        blocks = up(M, side) * up(N, side)
        read = up(N, side) * M * K + up(M, side) * N * K + 8 * M * N
        return read, (2 * up(K, 32) + more) * blocks

    each = M * N * (2 * K + 8)
    return {"global_memory": (each, 0), "warps": (each, 0), "shared_tiles": tiled(16), "register_tiles": tiled(64),
            "tensor_cores": tiled(64, 1)}  # fmt: skip


def trials(row, k):
    """How often the bisection counts a row."""
    bits = (row + np.float32(0)).view(np.int32).astype(np.int64)
    keys = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    found, count = -(2**31), 0
    for bit in range(31, -1, -1):
        trial = found + (1 << bit)
        trial = trial - 2**32 if trial >= 2**31 else trial
        count += 1
        many = int((keys >= trial).sum())
        found = trial if many >= k else found
        if many == k:
            break
    return count + 1  # and once for the ties


def topk_counts(x, k):
    rows, n = x.shape
    counted = [trials(row, k) for row in x]
    read_once = rows * (4 * n + 4 * k)
    return {
        "global_memory": (sum(4 * n * c for c in counted) + read_once, 0),
        "shared_keys": (read_once, sum(1 + 9 * c for c in counted)),
        "ballots": (read_once, 0),
    }


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_counts(name, sizes):
    problem = cuda_ladders()[name].problem(sizes)
    if name == "attention":
        expected, stored = attention_counts(**sizes), 4 * sizes["T"] * sizes["d"]
    elif name == "quantized_gemm":
        expected, stored = quantized_counts(**sizes), 4 * sizes["M"] * sizes["N"]
    else:
        expected, stored = topk_counts(problem.arguments[0], sizes["k"]), 4 * sizes["rows"] * (sizes["n"] + sizes["k"])
    rows = climb(name, problem)
    assert {row.rung.function: (row.loaded, row.barriers) for row in rows} == expected
    assert {row.stored for row in rows} == {stored}
    assert {row.rung.function: row.blocks for row in rows} == {
        f: math.prod(launch(sizes).grid) for f, launch in cuda_ladders()[name].launches.items()
    }


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("order", ["last", "random"])
def test_any_order_of_threads(name, order):
    with schedule(order=order, seed=7):
        climb(name, **SIZES[name][1])


@pytest.mark.parametrize(
    ("name", "function", "text", "mistake"),
    [
        ("attention", "shared_tiles", "        barrier();  // the tile is used until here\n", ""),
        ("topk_activation", "ballots", "__popc(equal & below) < ties", "__popc(equal & below) <= ties"),
        ("quantized_gemm", "tensor_cores", "word / 4 * 256", "word / 4 * 128"),
    ],
)
def test_planted_mistakes_are_refused(monkeypatch, name, function, text, mistake):
    """A missing barrier shows in one of three orders; a wrong formula in all."""
    ladder = cuda_ladders()[name]
    source = ladder.source.read_text(encoding="utf-8")
    assert text in source
    module = RawModule(code=source.replace(text, mistake), options=cuda._options(), name=ladder.source.name)
    monkeypatch.setattr(cuda, "_module", lambda name: module)
    rung = next(rung for rung in ladder.rungs() if rung.function == function)
    problem = ladder.problem(SIZES[name][1])
    with pytest.raises((WrongRung, KernelError)):
        for order in ("first", "last", "random"):
            with schedule(order=order, seed=1):
                problem.check(rung, ladder.run(rung, problem)[0])


@pytest.mark.parametrize("name", SIZES)
def test_what_nvcc_says(name):
    """No spills; tensor-core instructions in the rung of that name only. Not run without nvcc."""
    told = compiled_for_gpus(name)
    if not told:
        pytest.skip("nvcc is not here")
    functions = {rung.function for rung in cuda_ladders()[name].rungs()}
    assert set(told) == functions
    for function, numbers in told.items():
        assert numbers["spilled"] == 0 and 0 < numbers["registers"] <= 128
        assert (numbers["tensor"] > 0) == (function == "tensor_cores")


def test_sizes_out_of_range():
    for name, sizes, message in [
        ("attention", {"d": 20}, "the size d of attention must be a multiple of 16, 16 to 64, got 20"),
        ("attention", {"T": 0}, "the size T of attention must be 1 to 512, got 0"),
        ("quantized_gemm", {"Q": 1}, "has the sizes M, N, K, and no 'Q'"),
        ("topk_activation", {"n": 8, "k": 9}, "must be at most n = 8, got 9"),
    ]:
        with pytest.raises(ValueError, match=message):
            climb(name, **sizes)
