"""Does all of this work on your GPU, and how fast: gradient checks, kernel tests, a GPT and timings, on one page.

    make gpu                                    on the GPU that CuPy finds
    python -m benchmarks.gpu --device cuda-emulated --small --out out/gpu.md        the same page without a GPU

The page is benchmarks/RESULTS_GPU.md, under the GPU's name: please send it in. The exit code is 0 when everything that
ran is right, 1 when something is not, 2 when there is no such device.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import platform
import statistics
import sys
import time
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np

import minitransformer as mt
from minitransformer import kernels
from minitransformer.gradient_check import check_ops, gradcheck
from minitransformer.inference import generate
from minitransformer.kernels.contract import Unsupported
from minitransformer.kernels.devices import fetch, numbers
from minitransformer.models import GPT, GPTConfig
from minitransformer.optim import AdamW, clip_grad_norm_
from tests.kernels.cases import CASES
from tests.kernels.tolerance import IN_PLACE, compare

RESULTS = Path(__file__).resolve().parent / "RESULTS_GPU.md"
DTYPES = tuple(map(np.dtype, (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cuda-emulated: the same kernels, run by the CPU")
    parser.add_argument("--small", action="store_true", help="small sizes, for a look or for the emulator")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the page to write (benchmarks/RESULTS_GPU.md)")
    args = parser.parse_args(argv)
    try:
        device = mt.device(args.device)
    except (RuntimeError, ValueError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    page = Page(machine(device))
    page.add("Gradient checks", gradients(device))
    page.add("Kernels against the float64 NumPy definition", against_numpy(device, args.small))
    page.add("A GPT, beside the same on the CPU", a_gpt(device))
    page.add("Time", timings(device, args.small))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page.text(), encoding="utf-8")
    print(f"\n{'all right' if page.right else 'NOT RIGHT: see above'}; written to {args.out}")
    return 0 if page.right else 1


class Page:
    """Sections of rows, printed as they come; a row with `right: no` makes the whole page wrong."""

    def __init__(self, title):
        self.lines, self.right = [f"# {title}", ""], True
        self.lines.append(f"{datetime.date.today()}, minitransformer {mt.__version__}. Made by `make gpu`.")
        print(self.lines[0])

    def add(self, title, rows):
        print(f"\n## {title}", flush=True)
        self.lines += ["", f"## {title}", ""]
        for number, row in enumerate(rows):
            if number == 0:
                self.lines += [f"| {' | '.join(row)} |", f"| {' | '.join('---' for _ in row)} |"]
            self.lines.append(f"| {' | '.join(str(value).replace('|', '/') for value in row.values())} |")
            self.right = self.right and row.get("right") != "no"
            print("  " + "  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)

    def text(self):
        return "\n".join(self.lines) + "\n"


def machine(device) -> str:
    if device.name != "cuda":
        return f"{device.name} on {platform.processor() or platform.machine()}: no GPU took part"
    cupy = device.arrays
    found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    versions = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    driver, runtime = (f"{v // 1000}.{v % 1000 // 10}" for v in versions)
    name, capability = found["name"].decode(), f"{found['major']}.{found['minor']}"
    memory = f"{found['totalGlobalMem'] / 2**30:.0f} GB"
    versions = f"CUDA {runtime}, driver for {driver}, CuPy {cupy.__version__}"
    return f"{name} ({memory}, compute capability {capability}), {versions}"


def gradients(device):
    """Every op's backward on the device: in array expressions, and through the CUDA kernels where it has some."""
    for kernel_set, what in (("numpy", "array expressions"), (device.name, "CUDA kernels")):
        rows = list(check_ops(None, [kernel_set], device=device))
        failed = [f"{row.op} {row.dtype}" for row in rows if row.passed is False]
        worst = max((row.error for row in rows if row.passed and row.dtype == "float64"), default=0.0)
        yield {
            "ops through": what,
            "checks": sum(row.passed is not None for row in rows),
            "worst float64 error": f"{worst:.1e}",
            "failed": ", ".join(failed) or "none",
            "right": "no" if failed else "yes",
        }


def against_numpy(device, small):
    """Every routine of the set in every dtype, on the cases of the test suite: the worst error over what is allowed."""
    for routine, implementation in kernels.cuda.ROUTINES.items():
        row, right, run = {"routine": routine}, True, functools.partial(there, device, routine, implementation)
        for dtype in DTYPES:
            cases = list(CASES[routine](np.random.default_rng(zlib.crc32(routine.encode())), dtype))
            worst = 0.0
            try:
                device.put(np.zeros(1, dtype))
            except Exception as refusal:
                row[str(dtype)] = f"not run: {type(refusal).__name__}: {str(refusal).splitlines()[0][:80]}"
                continue
            try:
                for case in cases[:: 5 if small else 1]:
                    worst = max(worst, compare(routine, run, case, dtype))
                row[str(dtype)], right = f"{worst:.2f}", right and worst <= 1
            except Unsupported as refusal:
                row[str(dtype)] = f"not run: {str(refusal).splitlines()[0][:80]}"
            except Exception as error:
                row[str(dtype)], right = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}", False
        yield {**row, "right": "yes" if right else "no"}


def there(device, routine, implementation, *args, **kwargs):
    """A routine on the device, for arguments and results that are NumPy's."""
    moved = [device.put(a) if isinstance(a, np.ndarray) else a for a in args]
    if routine == "random_bits":
        kwargs["device"] = device.name
    result = implementation(*moved, **{n: device.put(v) if isinstance(v, np.ndarray) else v for n, v in kwargs.items()})
    for i in IN_PLACE.get(routine, ()):
        args[i][...] = fetch(moved[i])
    if routine == "squared_norm":
        return numbers(result)[0]
    return tuple(map(fetched, result)) if isinstance(result, tuple) else fetched(result)


def fetched(array):
    return None if array is None else fetch(array)


def a_gpt(device):
    """Some training steps and a generation, beside the CPU's; the whole model's gradient by finite differences."""
    config = GPTConfig(vocab_size=29, context=16, layers=2, heads=2, width=32, dropout=0.1)
    found = {}
    for place in ("cpu", device.name):
        model = GPT(config).to(place)
        optimizer, ids, losses = AdamW(model.parameters(), lr=1e-2), mt.Generator(1), []
        for _ in range(4):
            window = ids.integers(0, config.vocab_size, (4, config.context + 1))
            optimizer.zero_grad()
            loss = model.loss(mt.tensor(window[:, :-1], device=place), mt.tensor(window[:, 1:], device=place))
            loss.backward()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses += numbers(loss.data, norm)
        found[place] = losses, list(generate(model, [1, 2, 3], 12, top_k=5))
    (here, tokens), (away, tokens_there) = found["cpu"], found[device.name]
    error = max(abs(a / b - 1) for a, b in zip(away, here))
    yield {"what": "losses and gradient norms of 4 training steps", "found": f"largest relative difference {error:.1e}",
           "right": "yes" if error < 1e-4 else "no"}  # fmt: skip
    yield {"what": "12 generated tokens", "found": "the same" if tokens == tokens_there else "others",
           "right": "yes" if tokens == tokens_there else "no"}  # fmt: skip
    model = GPT(config).to("float64").to(device)
    start = model.generator.offset

    def loss(*_):
        model.generator.offset = start
        ids = mt.arange(12, device=device).reshape(1, 12)
        return model.loss(ids, ids)

    result = gradcheck(loss, *model.parameters(), raise_on_failure=False)
    yield {"what": "gradient of the whole model, finite differences",
           "found": f"relative error {result.error:.1e} beyond rounding",
           "right": "yes" if result.passed else "no"}  # fmt: skip


def timings(device, small):
    """Each kernel at a size that fills a GPU: time, bytes it has to move in a second, and array expressions' time."""
    rows, n = (64, 256) if small else (8192, 4096)
    draw = mt.Generator(0)
    x, dy = (draw.normal((rows, n), device=device) for _ in range(2))
    weight, v = draw.normal(n, device=device), x * x
    targets, one = device.arrays.arange(rows) % n, x.nbytes
    y = kernels.softmax(x, -1)
    _, mean, rstd = kernels.layer_norm_forward(x, weight, weight, 1e-5)
    losses, lse = kernels.cross_entropy_forward(x, targets)
    step = {"step": 1, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    jobs = {  # routine -> (arguments, bytes that have to move)
        "softmax": ((x, -1), 2 * one),
        "softmax_backward": ((dy, y, -1), 3 * one),
        "layer_norm_forward": ((x, weight, weight, 1e-5), 2 * one),
        "layer_norm_backward": ((dy, x, weight, mean, rstd), 3 * one),
        "gelu": ((x, "tanh"), 2 * one),
        "gelu_backward": ((dy, x, "tanh"), 3 * one),
        "cross_entropy_forward": ((x, targets), one),
        "cross_entropy_backward": ((losses, x, targets, lse), 2 * one),
        "embedding_backward": ((dy, targets % 512, 512), one),
        "dropout": ((x, 0.1, 1, 2), 2 * one),
        "adamw_step": ((x.copy(), dy, dy.copy(), v), 7 * one),
        "squared_norm": ((x,), one),
    }
    for routine, (arguments, size) in jobs.items():
        seconds = {}
        for kernel_set in (device.name, "numpy"):
            with kernels.use(kernel_set):
                options = step if routine == "adamw_step" else {}
                seconds[kernel_set] = clock(device, lambda: getattr(kernels, routine)(*arguments, **options), small)  # noqa: B023
        ours, expressions = seconds[device.name], seconds["numpy"]
        yield {
            "routine": f"{routine} ({rows}, {n})",
            "ms": f"{ours * 1e3:.3f}",
            "GB/s": f"{size / ours / 1e9:.0f}",
            "array expressions, ms": f"{expressions * 1e3:.3f}",
            "times as fast": f"{expressions / ours:.1f}",
        }
    yield from training_speed(device, small)


def training_speed(device, small):
    names = ("layers", "heads", "width", "context")
    sizes = dict(zip(names, (2, 2, 32, 16) if small else (6, 6, 384, 256), strict=True))
    model, B = GPT(GPTConfig(vocab_size=65, **sizes)).to(device), 2 if small else 64
    optimizer = AdamW(model.parameters())
    ids = mt.tensor(mt.Generator(0).integers(0, 65, (B, sizes["context"]))).to(device)

    def step():
        optimizer.zero_grad()
        model.loss(ids, ids).backward()
        optimizer.step()

    seconds = clock(device, step, small)
    what = f"a training step of a GPT with {model.parameter_count():,} parameters, batch {B} × {sizes['context']}"
    yield {
        "routine": what,
        "ms": f"{seconds * 1e3:.1f}",
        "GB/s": "",
        "array expressions, ms": "",
        "times as fast": f"{ids.size / seconds:,.0f} tokens/s",
    }


def clock(device, job, small) -> float:
    """The median of the seconds a job takes, from a waiting device to a waiting device; compiled and warm."""
    job()
    spent = []
    for _ in range(2 if small else 20):
        device.synchronize()
        start = time.perf_counter()
        job()
        device.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
