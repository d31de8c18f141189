"""Every rung gives what the float64 definition gives, integers exactly; what is not right is refused."""

import dataclasses
import importlib
import platform

import numpy as np
import pytest

from minitransformer import kernels, locate
from minitransformer.kernels import ladder as package
from minitransformer.kernels.ladder import WrongRung, compile_rungs, ladders, library, parse_rungs, threads, times

SIZES = {
    "attention": [{"T": 1, "d": 1}, {"T": 63, "d": 7}, {"T": 97, "d": 33}, {"T": 130, "d": 64}],
    "topk_activation": [
        {"rows": 1, "n": 1, "k": 1},
        {"rows": 3, "n": 33, "k": 33},
        {"rows": 37, "n": 130, "k": 1},
        {"rows": 2, "n": 1000, "k": 150},
    ],
    "quantized_gemm": [
        {"M": 1, "N": 1, "K": 1},
        {"M": 5, "N": 16, "K": 31},
        {"M": 25, "N": 33, "K": 64},
        {"M": 13, "N": 51, "K": 130},
    ],
}


@pytest.fixture(params=list(ladders()))
def ladder(request):
    found = ladders()[request.param]
    threads(library(found.name), 3)
    yield found
    threads(library(found.name), 1)


def problems(ladder):
    yield ladder.small()
    yield from (ladder.problem(seed, **sizes) for seed, sizes in enumerate(SIZES[ladder.name]))
    if ladder.name == "topk_activation":
        yield ladder.problem(3, ties=True, rows=4, n=300, k=40)


def test_every_rung_is_right(ladder):
    for problem in problems(ladder):
        for rung in ladder.rungs():
            problem.check(rung, ladder.run(rung, problem))


def test_a_ladder_climbs_from_naive_to_shipped(ladder):
    rungs = ladder.rungs()
    good = [rung for rung in rungs if not rung.failed]
    assert [rung.number for rung in good] == list(range(1, len(good) + 1))
    assert good[-1].shipped and good[-2].function == "threads" and 6 <= len(good) <= 8
    failed = [rung for rung in rungs if rung.failed]
    assert 1 <= len(failed) <= 2 and all("Measured: 0." in rung.about for rung in failed)  # ideas, with their numbers
    assert len({rung.name for rung in rungs}) == len(rungs)
    for rung in good[:-1]:
        assert len(rung.about) > 150 and len(rung.idea) <= 60, rung


def test_the_definition_is_what_is_checked_against(ladder):
    """The expected numbers themselves, from formulas written once more."""
    problem = ladder.small()
    if ladder.name == "attention":
        q, k, v = (x.astype(np.float64) for x in problem.arguments[2:])
        s = q @ k.T / np.sqrt(q.shape[1])
        e = np.exp(s) * np.tri(len(s))
        np.testing.assert_allclose(problem.expected[0], e / e.sum(1, keepdims=True) @ v, rtol=1e-10)
        assert (problem.allowed[0] < 1e-4).all()
    elif ladder.name == "quantized_gemm":
        x, codes, scales = problem.arguments[3:6]
        s = np.abs(x).max(1, keepdims=True) / np.float32(127)
        sums = np.rint(x / s).astype(np.int64) @ codes.T.astype(np.int64)
        np.testing.assert_array_equal(problem.expected[0], sums.astype(np.float32) * scales * s)
    else:
        x, k = problem.arguments[3], problem.sizes["k"]
        for row, chosen in zip(x, problem.expected[1], strict=True):
            assert sorted(chosen) == sorted(sorted(range(len(row)), key=lambda i: (-row[i], i))[:k])


def test_wrong_numbers_are_refused(ladder):
    problem = ladder.small()
    rung = ladder.rungs()[-1]
    right = [o.copy() for o in ladder.run(rung, problem)]
    problem.check(rung, right)
    with pytest.raises(WrongRung, match=f"rung {rung.number}, shipped is wrong at .* is nan|-77"):
        problem.check(rung, problem.outputs())  # nothing was written
    for n, output in enumerate(right):
        changed = [o.copy() for o in right]
        limit = np.broadcast_to(problem.allowed[n], output.shape).flat[-1]
        changed[n].flat[-1] += type(output.flat[0])(max(3 * limit, 1e-3 * abs(float(output.flat[-1])), 1e-6))
        changed[n].flat[-1] += 1 if output.dtype.kind == "i" else 0
        with pytest.raises(WrongRung, match=rf"output {n}\[.*1 of {output.size} numbers"):
            problem.check(rung, changed)


PLANTED = {  # ladder -> (rung, text, a mistake)
    "attention": ("online_softmax", "row = {top, row.total * before};", "row = {top, row.total};"),
    "topk_activation": ("bisection", "if (many >= k) found = trial;", "if (many > k) found = trial;"),
    "quantized_gemm": ("packed_panels", "128u * uint32_t(total)", "127u * uint32_t(total)"),
}


def test_planted_mistakes_are_refused(ladder, tmp_path, monkeypatch):
    function, text, mistake = PLANTED[ladder.name]
    source = ladder.source.read_text(encoding="utf-8")
    assert text in source
    path = tmp_path / f"{ladder.name}.cpp"
    path.write_text(source.replace(text, mistake), encoding="utf-8")
    compiled = compile_rungs(path, "-O1")
    problem = ladder.small()
    rung = next(rung for rung in ladder.rungs() if rung.function == function)
    monkeypatch.setattr(package, "library", lambda name: compiled)
    with pytest.raises(WrongRung, match=f"rung {rung.number}, {rung.name} is wrong"):
        problem.check(rung, ladder.run(rung, problem))


def test_threads_change_nothing(ladder):
    problem = ladder.small()
    rung = next(rung for rung in ladder.rungs() if rung.function == "threads")
    found = []
    for count in (1, 2, 5):
        threads(library(ladder.name), count)
        found.append([o.tobytes() for o in ladder.run(rung, problem)])
    assert found[0] == found[1] == found[2]


def test_times_are_of_every_rung(ladder):
    rungs = [rung for rung in ladder.rungs() if rung.shipped or rung.number == 2]
    taken = times(ladder, ladder.small(), seconds=0.0, rungs=rungs)
    assert list(taken) == rungs and all(len(t) == 3 and min(t) > 0 for t in taken.values())


def test_the_shipped_rung_is_the_kernel_in_use(monkeypatch):
    ladder = ladders()["attention"]
    problem = ladder.small()
    real, called = kernels.attention_forward, []
    monkeypatch.setattr(kernels, "attention_forward", lambda *a, **k: called.append(1) or real(*a, **k))
    ladder.run(ladder.rungs()[-1], problem)
    assert called == [1]


def test_sources_are_found_in_a_wheel(monkeypatch, tmp_path):
    """Everything asks locate.csrc(): with the sources elsewhere, as in a wheel, the rungs come from there."""
    folder = tmp_path / "minitransformer" / "_files" / "csrc" / "ladder"
    folder.mkdir(parents=True)
    for path in (locate.csrc() / "ladder").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(locate, "_PACKAGE", tmp_path / "minitransformer")
    assert ladders()["attention"].source.is_relative_to(tmp_path)
    assert parse_rungs(ladders()["attention"].source.read_text(encoding="utf-8"))[0].function == "naive"


def test_sizes_out_of_range():
    for sizes, message in [
        ({"T": 0}, "the size T of attention must be 1 to 4096, got 0"),
        ({"T": 10**9}, "got 1000000000"),
        ({"heads": 3}, "has the sizes T, d, and no 'heads'"),
    ]:
        with pytest.raises(ValueError, match=message):
            ladders()["attention"].problem(**sizes)
    with pytest.raises(ValueError, match="the size k of topk_activation must be at most n = 8, got 9"):
        ladders()["topk_activation"].problem(n=8, k=9)
    with pytest.raises(ValueError, match="rows × n at most"):
        ladders()["topk_activation"].problem(rows=1 << 16, n=1 << 16)


def test_rungs_are_read_from_comments():
    text = """
// [1] naive: slow, and: right
// first line
// second
extern "C" void one(long n) {}
// [2, failed] an idea: that did not pay
// Measured: 0.5
#if X
extern "C" void two(
    long n) {}
// [3] no function: nothing follows
int x;
// [3] on a GPU: a kernel
extern "C" __global__ void __launch_bounds__(128) three(
"""
    found = parse_rungs(text)
    assert [dataclasses.astuple(rung) for rung in found] == [
        (1, "naive", "slow, and: right", "one", "first line second", False, 2),
        (2, "an idea", "that did not pay", "two", "Measured: 0.5", True, 6),
        (3, "on a GPU", "a kernel", "three", "", False, 13),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-march=x86-64",), ("-march=haswell",)], ids=["portable", "avx2"])
def test_narrower_registers(ladder, monkeypatch, flags):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the flags are those of x86-64")
    compiled = compile_rungs(ladder.source, "-O1", *flags)
    rungs = [rung for rung in ladder.rungs() if rung.shipped or hasattr(compiled, rung.function)]
    for module in (package, importlib.import_module(type(ladder).__module__)):
        monkeypatch.setattr(module, "library", lambda name: compiled, raising=False)
    for problem in problems(ladder):
        for rung in rungs:
            problem.check(rung, ladder.run(rung, problem))
