"""`make gpu` on the stand-in, small: what a reader's GPU runs is not run there for the first time."""

import re
import subprocess
import sys

import pytest

from benchmarks import gpu
from minitransformer import kernels
from minitransformer.locate import checkout


def test_the_page_without_a_gpu(emulator, tmp_path, capsys):
    out = tmp_path / "page.md"
    assert gpu.main(["--device", "cuda-emulated", "--small", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert page.startswith("# cuda-emulated on") and "no GPU took part" in page and "| no |" not in page
    for routine in kernels.cuda.ROUTINES:
        assert re.search(rf"^\| {routine} \|.*\| yes \|$", page, re.MULTILINE), routine
    assert page.count("tokens/s") == 1 and "finite differences" in page


def test_a_wrong_kernel_makes_the_page_wrong(emulator, tmp_path, monkeypatch, capsys):
    real = kernels.cuda.ROUTINES["silu"]
    monkeypatch.setitem(kernels.cuda.ROUTINES, "silu", lambda x: real(x) * x.dtype.type(1.01))
    monkeypatch.setattr(gpu, "gradients", lambda device: [])
    monkeypatch.setattr(gpu, "a_gpt", lambda device: [])
    monkeypatch.setattr(gpu, "timings", lambda device, small: [])
    assert gpu.main(["--device", "cuda-emulated", "--small", "--out", str(tmp_path / "page.md")]) == 1
    assert "NOT RIGHT" in capsys.readouterr().out


@pytest.mark.skipif(not kernels.available()["cuda"], reason="there is a GPU")
def test_no_gpu_is_one_line_and_an_exit_code(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "page.md")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and 'no device "cuda" here' in error and not list(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=checkout(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
