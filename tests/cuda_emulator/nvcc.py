"""What NVIDIA's compiler makes of a kernel: registers, spills, tensor-core instructions. It needs no GPU.

kernels = compile_with_nvcc(path, "sm_90")          # {kernel: Compiled}; the test is skipped where nvcc is missing
assert kernels["attention_forward"].spills == 0
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ARCHITECTURES = ("sm_80", "sm_90", "sm_120")


@dataclass(frozen=True)
class Compiled:
    registers: int
    spills: int  # bytes stored and loaded
    static_shared: int  # bytes
    tensor_cores: bool  # wmma.mma or mma.sync in its PTX, or in a function that it calls


def compile_with_nvcc(path, arch: str, options=()) -> dict[str, Compiled]:
    """Compiles to a cubin. Raises AssertionError with the compiler's words where it does not compile."""
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-cubin", f"-arch={arch}", "-std=c++17", "-Xptxas", "-v", "--keep", "--keep-dir", folder]
        command += [*options, "-o", str(Path(folder) / "kernels.cubin"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        (ptx,) = (p.read_text(encoding="utf-8") for p in Path(folder).glob("*.ptx"))
    with_tensor_cores = {
        name: bool(re.search(r"\b(wmma\.mma|mma\.sync|wgmma)\b", body))
        for name, body in re.findall(r"\.entry (\w+)\((.*?)\n}", ptx, re.DOTALL)
    }
    log = done.stderr + done.stdout
    report = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for '\w+'.*?"
        r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    found = {}
    for m in report.finditer(log):
        shared = re.search(r"(\d+) bytes smem", m["rest"])
        found[m["name"]] = Compiled(
            int(m["registers"]),
            int(m["stores"]) + int(m["loads"]),
            int(shared[1]) if shared else 0,
            with_tensor_cores[m["name"]],
        )
    return found
