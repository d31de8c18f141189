"""The CUDA ladders: the rungs of csrc/ladder/*.cu, run through the emulator, checked, and counted instead of timed.

    rows = climb("attention", T=128, d=32)      # for each rung: bytes read and written, barriers, shared memory

What is counted is what the kernels ask of global memory, byte by byte (csrc/ladder/ladder.cuh); a GPU's caches serve
some of it. Where nvcc is present, it also says how many registers a thread takes, what is spilled, and how many
tensor-core instructions there are.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ... import locate
from ..compiled import cache_folder, cached, run
from ..numpy import attention, quantized_gemm, topk_activation
from . import Problem, Rung, parse_rungs

__all__ = ["CudaLadder", "Row", "climb", "compiled_for_gpus", "cuda_ladders"]

ARCHITECTURE = "sm_90"


@dataclass(frozen=True)
class Launch:
    """grid, block, and bytes of shared memory of a rung at some sizes."""

    grid: tuple
    block: tuple
    shared: int = 0


@dataclass(frozen=True)
class Row:
    """What a rung did. A count is of a whole launch, shared memory of a block. What nvcc says, of a thread: registers,
    bytes spilled, bytes of local memory (arrays that are no registers: global memory, and not in `loaded`), and how
    many tensor-core instructions the kernel has; None where there is no nvcc.
    """

    rung: Rung
    loaded: int
    stored: int
    barriers: int
    blocks: int
    shared: int
    registers: int | None = None
    spilled: int | None = None
    local: int | None = None
    tensor: int | None = None


@dataclass(frozen=True)
class CudaLadder:
    """A .cu file of rungs that all take the same arguments. multiple: what a size must be a multiple of.

    problem(sizes) -> Problem whose `arguments` are the kernel's, None where an output goes, sizes as int32; launches:
    {function: sizes -> Launch}.
    """

    name: str
    title: str
    sizes: dict[str, int]
    most: dict[str, int]
    problem: Callable[..., Problem] = field(repr=False)
    launches: dict[str, Callable[[dict], Launch]] = field(repr=False)
    multiple: dict[str, int] = field(default_factory=dict)

    @property
    def source(self):
        return locate.csrc() / "ladder" / f"{self.name}.cu"

    def checked(self, sizes: dict[str, int]) -> dict[str, int]:
        """The usual sizes with these instead. Raises ValueError for a name or a size that there is not."""
        for name, size in sizes.items():
            if name not in self.sizes:
                raise ValueError(f"the CUDA ladder {self.name} has the sizes {', '.join(self.sizes)}, and no {name!r}")
            step = self.multiple.get(name, 1)
            if not step <= size <= self.most[name] or size % step:
                of = f"a multiple of {step}, " if step > 1 else ""
                raise ValueError(f"the size {name} of {self.name} must be {of}{step} to {self.most[name]}, got {size}")
        sizes = {**self.sizes, **sizes}
        if sizes.get("k", 0) > sizes.get("n", 1 << 30):
            raise ValueError(f"the size k of {self.name} must be at most n = {sizes['n']}, got {sizes['k']}")
        return sizes

    def rungs(self) -> list[Rung]:
        return parse_rungs(self.source.read_text(encoding="utf-8"))

    def run(self, rung: Rung, problem: Problem):
        """(outputs, (bytes loaded, bytes stored, barriers), launch) of one launch."""
        from ..cuda.emulator import empty

        launch = self.launches[rung.function](problem.sizes)
        outputs = []
        for made in problem.outputs():
            aligned = empty(made.shape, made.dtype)
            aligned[...] = made
            outputs.append(aligned)
        waiting = iter(outputs)
        arguments = [next(waiting) if a is None else a for a in problem.arguments]
        module = _module(self.name)
        function = module.get_function(rung.function)
        function.max_dynamic_shared_size_bytes = max(launch.shared, 48 << 10)
        counts = np.zeros(3, np.uint64)
        module.get_function("take_counts")((1,), (1,), (counts,))  # forgets what an earlier launch left
        function(launch.grid, launch.block, tuple(arguments), shared_mem=launch.shared)
        module.get_function("take_counts")((1,), (1,), (counts,))
        return tuple(outputs), tuple(map(int, counts)), launch


@functools.cache
def _module(name: str):
    from ..cuda.emulator import RawModule

    source = locate.csrc() / "ladder" / f"{name}.cu"
    return RawModule(code=source.read_text(encoding="utf-8"), options=_options(), name=source.name)


def _options():
    return (f"-I{locate.csrc() / 'ladder'}", "-DLADDER_COUNTS")


def climb(name: str, problem: Problem | None = None, **sizes) -> list[Row]:
    """Every rung of a CUDA ladder, run on the problem (or one of these sizes) and checked.

    Raises WrongRung, ValueError for sizes, RuntimeError without a compiler.
    """
    from ..cuda.emulator import schedule

    ladder = cuda_ladders()[name]
    problem = problem or ladder.problem(ladder.checked(sizes))
    compiled = compiled_for_gpus(name)
    rows = []
    with schedule(os_threads=1):  # the counts are plain numbers, which two threads would mix up
        for rung in ladder.rungs():
            outputs, counts, launch = ladder.run(rung, problem)
            problem.check(rung, outputs)
            blocks = int(np.prod(launch.grid))
            rows.append(Row(rung, *counts, blocks, launch.shared, **compiled.get(rung.function, {})))
    return rows


# ---------------------------------------------------------------- what nvcc says


_TOLD = {
    "registers": r"Used (\d+) registers",
    "spilled": r"(\d+) bytes spill stores",
    "local": r"(\d+) bytes stack frame",
    "tensor": r"\bmma\.sync\.",
}


def compiled_for_gpus(name: str) -> dict[str, dict[str, int]]:
    """{function: registers, bytes spilled, tensor-core instructions} as nvcc compiles it; {} where there is no nvcc."""
    nvcc = shutil.which("nvcc")
    if not nvcc:
        return {}
    source = locate.csrc() / "ladder" / f"{name}.cu"
    key = (source.read_bytes(), (source.parent / "ladder.cuh").read_bytes(), nvcc, ARCHITECTURE, _TOLD)

    def build(folder, made):
        flags = ["-std=c++17", f"-arch={ARCHITECTURE}", "--resource-usage", "--keep", f"--keep-dir={folder}"]
        told = run([nvcc, *flags, "-cubin", str(source), "-o", str(folder / "ladder.cubin")], source.name, errors=True)
        ptx = next(folder.glob("*.ptx")).read_text(encoding="utf-8")
        made.write_text(json.dumps(_told(told, ptx)), encoding="utf-8")

    return json.loads(cached(cache_folder("ladder"), f"{name}-nvcc", ".json", key, build).read_text(encoding="utf-8"))


def _told(messages: str, ptx: str) -> dict:
    found = {}
    for part in re.split(r"Compiling entry function '", messages)[1:]:
        numbers = {name: re.search(pattern, part) for name, pattern in _TOLD.items()}
        found[part.partition("'")[0]] = {name: int(n[1]) if n and n.groups() else 0 for name, n in numbers.items()}
    for part in re.split(r"\.entry ", ptx)[1:]:
        found[re.match(r"\w+", part)[0]]["tensor"] = len(re.findall(_TOLD["tensor"], part))
    return found


# ---------------------------------------------------------------- the three


def _ceil(n, by):
    return -(-n // by)


def _attention(sizes, seed: int = 0) -> Problem:
    T, d = sizes["T"], sizes["d"]
    q, k, v = np.random.default_rng(seed).standard_normal((3, T, d), np.float32)
    wide = [x[None, None].astype(np.float64) for x in (q, k, v)]
    expected = attention.attention_forward(*wide, scale=d**-0.5, causal=True)[0][0, 0]
    mass = attention.attention_forward(*wide[:2], np.abs(wide[2]), scale=d**-0.5, causal=True)[0][0, 0]
    score = d**-0.5 * np.sqrt(d) * (np.abs(q) @ np.abs(k).max(0))[:, None]
    allowed = 2 * np.finfo(np.float32).eps * (score + np.sqrt(T)) * mass
    # the tensor cores' inputs are float16: 3 roundings of the numbers, and what a score's own error does to p
    half = np.finfo(np.float16).eps * (score / np.sqrt(d) + 3) * mass
    arguments = (q, k, v, None, np.int32(T), np.int32(d))
    return Problem(sizes, arguments, (expected,), (allowed,), 0, "", "", tuple, rounded={"tensor_cores": (half,)})


def _quantized(sizes, seed: int = 0) -> Problem:
    M, N, K = sizes["M"], sizes["N"], sizes["K"]
    random = np.random.default_rng(seed)
    q, s = quantized_gemm.quantize_rows(random.standard_normal((M, K), np.float32))
    c = random.integers(-128, 128, (N, K), np.int8)
    d = random.random(N, np.float32)
    expected = (q.astype(np.int64) @ c.T.astype(np.int64)).astype(np.float32) * d * s[:, None]
    arguments = (q, s, c, d, None, *map(np.int32, (M, N, K)))
    return Problem(sizes, arguments, (expected,), (0,), 0, "", "", tuple)


def _topk(sizes, seed: int = 0) -> Problem:
    rows, n, k = sizes["rows"], sizes["n"], sizes["k"]
    x = np.random.default_rng(seed).standard_normal((rows, n), np.float32)
    x[::2] = np.round(x[::2])  # many equal numbers
    expected = topk_activation.topk_activation(x, k)
    arguments = (x, None, None, *map(np.int32, (rows, n, k)))
    return Problem(sizes, arguments, expected, (0, 0), 0, "", "", tuple, dtypes=(np.float32, np.int32))


@functools.cache
def cuda_ladders() -> dict[str, CudaLadder]:
    """All there are, by name."""
    return {ladder.name: ladder for ladder in (
        CudaLadder("attention", "Causal attention of one head", {"T": 128, "d": 32}, {"T": 512, "d": 64}, _attention, {
            "global_memory": lambda s: Launch((_ceil(s["T"], 128),), (128,)),
            "shared_tiles": lambda s: Launch((_ceil(s["T"], 32),), (32,), 2 * 32 * s["d"] * 4),
            "warps": lambda s: Launch((_ceil(s["T"], 32),), (256,), (2 * 32 * (s["d"] + 1) + 32 * s["d"]) * 4),
            "tensor_cores": lambda s: Launch((_ceil(s["T"], 64),), (128,),
                                             2 * (64 * s["d"] + 64 * (s["d"] + 32)) + 4 * 64 * (32 + s["d"])),
        }, {"d": 16}),
        CudaLadder("topk_activation", "Top-k of each row", {"rows": 16, "n": 512, "k": 77},
                   {"rows": 256, "n": 4096, "k": 4096}, _topk, {
            "global_memory": lambda s: Launch((_ceil(s["rows"], 128),), (128,)),
            "shared_keys": lambda s: Launch((s["rows"],), (128,), 4 * s["n"] + 4 * 128),
            "ballots": lambda s: Launch((_ceil(s["rows"], 4),), (128,), 4 * 4 * s["n"]),
        }),
        CudaLadder("quantized_gemm", "int8 inputs × int8 weight", {"M": 64, "N": 128, "K": 256},
                   {"M": 256, "N": 512, "K": 1024}, _quantized, {
            "global_memory": lambda s: Launch((_ceil(s["N"], 32), _ceil(s["M"], 8)), (32, 8)),
            "warps": lambda s: Launch((_ceil(s["M"] * s["N"], 8),), (256,)),
            "shared_tiles": lambda s: Launch((_ceil(s["N"], 16), _ceil(s["M"], 16)), (16, 16), 2 * 16 * 32),
            "register_tiles": lambda s: Launch((_ceil(s["N"], 64), _ceil(s["M"], 64)), (16, 16), 2 * 64 * 32),
            "tensor_cores": lambda s: Launch((_ceil(s["N"], 64), _ceil(s["M"], 64)), (256,), 64 * 64 * 4),
        }, {"K": 4}),
    )}  # fmt: skip


def as_dict(row: Row) -> dict:
    """A row as JSON has it."""
    told = dataclasses.asdict(row)
    rung = told.pop("rung")
    return {"rung": rung["number"], **{name: rung[name] for name in ("name", "idea", "failed")}, **told}
