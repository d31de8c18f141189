"""`minitransformer ladder`: what it prints and writes, and what it says of bad input. No time decides anything."""

import json
import os
import subprocess
import sys

import pytest

from minitransformer.cli import ladder as command
from minitransformer.kernels import compiled, ladder
from minitransformer.kernels.ladder import WrongRung, ceilings, ladders

SMALL = {
    "attention": ["T=40", "d=8"],
    "topk_activation": ["rows=3", "n=50", "k=7"],
    "quantized_gemm": ["M=5", "N=20", "K=40"],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    real, peaks = ladder.times, ceilings.measure
    monkeypatch.setattr(ladder, "times", lambda *a, **k: real(*a, **{**k, "seconds": 0.0}))
    monkeypatch.setattr(ceilings, "measure", lambda names, counts, before=None: peaks(names, counts, 0.0, before))


@pytest.fixture
def wrong(run):
    def call(*arguments):
        code, out, error = run(*arguments)
        assert (code, out) == (2, "") and error.startswith("error: ") and error.count("\n") == 1, (code, out, error)
        return error

    return call


@pytest.mark.parametrize("name", SMALL)
def test_json(run, tmp_path, name):
    code, out, error = run("ladder", name, "--json", "--size", *SMALL[name])
    assert (code, error) == (0, "")
    told = json.loads(out)
    assert told["ladder"] == name and told["sizes"] == {k: int(v) for k, v in (s.split("=") for s in SMALL[name])}
    rungs = ladders()[name].rungs()
    assert [(r["rung"], r["name"], r["failed"]) for r in told["rungs"]] == [(r.number, r.name, r.failed) for r in rungs]
    assert told["rungs"][-1]["name"] == "shipped"
    peaks = {(c["name"], c["threads"]): c["value"] for c in told["ceilings"]}
    assert set(peaks) == {(c, n) for c in ("fp32", "int8", "memory") for n in (1, told["threads"])}
    assert min(peaks.values()) > 0
    last = None
    for r in told["rungs"]:
        assert r["speed"] == pytest.approx(told["work"] / r["ms"] / 1e6) and 0 < r["best_ms"] <= r["ms"]
        assert r["of_ceiling"] == pytest.approx(r["speed"] / peaks[told["ceiling"], r["threads"]])
        assert r["times_before"] == (None if last is None else pytest.approx(r["speed"] / last))
        last = last if r["failed"] else r["speed"]
    figure = tmp_path / told["figure"]
    assert figure == tmp_path / f"out/ladder/{name}.png" and figure.read_bytes()[:4] == b"\x89PNG"


def test_table(run, tmp_path):
    code, out, error = run("ladder", "attention", "--size", "T=40", "--out", tmp_path / "here")
    assert (code, error) == (0, "")
    assert "T = 40, d = 64" in out and "at most" in out and "GFLOP/s" in out
    for rung in ladders()["attention"].rungs():
        assert f" {rung.name} " in out
    assert (tmp_path / "here" / "attention.png").is_file()


def test_without_a_name_nothing_is_compiled(run, monkeypatch):
    monkeypatch.setattr(compiled, "compiler", lambda _: pytest.fail("the list needs no compiler"))
    code, out, error = run("ladder")
    assert (code, error) == (0, "")
    assert all(name in out for name in SMALL) and "register tiles" in out and "ladder attention --cuda" in out


def test_cuda(run, tmp_path):
    code, out, error = run("ladder", "topk_activation", "--cuda", "--size", "rows=2", "n=40", "k=3")
    assert (code, error) == (0, "") and "ballots" in out and " ms" not in out
    code, out, error = run("ladder", "topk_activation", "--cuda", "--json", "--size", "rows=2", "n=40", "k=3")
    told = json.loads(out)
    assert (code, error) == (0, "") and told["cuda"] and told["least_bytes"] == 2 * 40 * 4
    assert [r["name"] for r in told["rungs"]] == ["global memory", "shared keys", "ballots"]
    assert all(r["stored"] == 2 * (40 + 3) * 4 for r in told["rungs"])
    assert (tmp_path / told["figure"]).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv"], "invalid choice: 'conv'"),
        (["--json"], "name a ladder: attention, topk_activation, quantized_gemm"),
        (["attention", "--size", "T=0"], "must be a name and a positive integer such as T=1024, got 'T=0'"),
        (["attention", "--size", "T=-1"], "got 'T=-1'"),
        (["attention", "--size", "1024"], "got '1024'"),
        (["attention", "--size", "heads=2"], "the ladder attention has the sizes T, d, and no 'heads'"),
        (["attention", "--size", "T=99999"], "must be 1 to 4096, got 99999"),
        (["topk_activation", "--size", "k=5000"], "must be at most n = 4096, got 5000"),
        (["attention", "--cuda", "--size", "d=20"], "must be a multiple of 16"),
    ],
)
def test_bad_input(wrong, tmp_path, arguments, message):
    assert message in wrong("ladder", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_a_file(wrong, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "file" in wrong("ladder", "attention", "--out", tmp_path / "file")


def test_a_wrong_rung_is_an_error_and_no_number(wrong, monkeypatch):
    def refuse(self, rung, outputs):
        raise WrongRung(f"{rung} is wrong at T = 40: output 0[0, 0] is 1, expected 2 (1 of 9 numbers)")

    monkeypatch.setattr(ladder.Problem, "check", refuse)
    monkeypatch.setattr(command, "draw", lambda *_: pytest.fail("drawn"))
    assert "rung 1, naive is wrong at T = 40" in wrong("ladder", "attention", "--size", "T=40")


@pytest.mark.parametrize("cuda", [[], ["--cuda"]])
def test_no_compiler(tmp_path, cuda):
    """In a process of its own, for what is compiled stays loaded in this one."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CXX": "no-such-compiler"}
    command = [sys.executable, "-m", "minitransformer", "ladder", "attention", *cuda]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "needs a C++ compiler, and CXX=no-such-compiler is not a program" in done.stderr
