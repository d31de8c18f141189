"""Layer norm, GELU and cross-entropy, forward + backward, beside PyTorch, both through their autograd as users run it.

Equal allocation rules: in each call both make their outputs and gradients anew and let the old ones go, none writes
into a buffer that it was given, and both processes keep freed memory (mallopt), so that nobody pays for page faults.
Without that the large jobs would measure the system's allocator: a cross-entropy that gets its gradient's memory for
nothing is four times as fast as one that has to ask for it.
"""

from __future__ import annotations

import ctypes

import numpy as np

from .harness import THREADS, arguments, interleaved, ratio, report, shown_ratio

LEAST = 2.0  # times PyTorch's speed
# job -> (routine, rows, width)
JOBS = {
    "layer norm": ("layer_norm", 2048, 384),
    "layer norm, wide": ("layer_norm", 2048, 1536),
    "GELU": ("gelu", 2048, 1536),
    "GELU, tanh": ("gelu_tanh", 2048, 1536),
    "cross-entropy": ("cross_entropy", 2048, 384),
    "cross-entropy, GPT-2's vocabulary": ("cross_entropy", 512, 50257),
}


def _drawn(rows, width):
    """x, dy, weight, bias and targets."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((rows, width), np.float32) for _ in range(2))
    return x, dy, np.ones(width, np.float32), np.zeros(width, np.float32), rng.integers(0, width, rows)


def _keep_freed_memory():
    """glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, as `kernels.native.keep_freed_memory` sets them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 1 << 30)
    mallopt(-1, 2**31 - 1)


def ours(routine, rows, width):
    import minitransformer as mt
    from minitransformer.ops.normalization import layer_norm

    mt.kernels.native.set_thread_count(THREADS)
    _keep_freed_memory()
    x, dy, weight, bias, targets = _drawn(rows, width)
    x, weight, bias = (mt.Tensor(a, requires_grad=True) for a in (x, weight, bias))
    forward = {
        "layer_norm": lambda: layer_norm(x, weight, bias),
        "gelu": lambda: mt.gelu(x),
        "gelu_tanh": lambda: mt.gelu(x, approximate="tanh"),
        "cross_entropy": lambda: mt.cross_entropy(x, targets),
    }[routine]

    def job():
        x.grad = weight.grad = bias.grad = None
        y = forward()
        y.backward() if routine == "cross_entropy" else y.backward(dy)

    return job


def pytorch(routine, rows, width):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    _keep_freed_memory()
    x, dy, weight, bias, targets = map(torch.from_numpy, _drawn(rows, width))
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    forward = {
        "layer_norm": lambda: F.layer_norm(x, (width,), weight, bias),
        "gelu": lambda: F.gelu(x),
        "gelu_tanh": lambda: F.gelu(x, approximate="tanh"),
        "cross_entropy": lambda: F.cross_entropy(x, targets),
    }[routine]

    def job():
        x.grad = weight.grad = bias.grad = None
        y = forward()
        y.backward() if routine == "cross_entropy" else y.backward(dy)

    return job


def main():
    args, rows = arguments(__doc__), []
    if unknown := set(args.only or ()) - set(JOBS):
        raise SystemExit(f"no job {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    for name in args.only or JOBS:
        setups = {"minitransformer": ("benchmarks.fused:ours", *JOBS[name]),
                  "PyTorch": ("benchmarks.fused:pytorch", *JOBS[name])}  # fmt: skip
        found = interleaved(setups, args.rounds, slice_seconds=0.2)
        mine, theirs = found["minitransformer"], found.get("PyTorch")
        _, count, width = JOBS[name]
        shown = {"job": f"{name}, {count} × {width}", "ms": f"{mine.seconds * 1e3:.3f} (best {mine.best * 1e3:.3f})"}
        shown["PyTorch ms"] = "not installed"
        if theirs:
            shown["PyTorch ms"] = f"{theirs.seconds * 1e3:.3f} (best {theirs.best * 1e3:.3f})"
            faster = theirs.seconds / mine.seconds
            shown |= {"time ratio": shown_ratio(ratio(mine, theirs)), "times as fast": f"{faster:.2f}"}
            shown |= {"target": f"{LEAST:.2f}", "met": "yes" if faster >= LEAST else "no"}
        rows.append(shown)
    report("fused", "Layer norm, GELU and cross-entropy, forward + backward", rows, args)


if __name__ == "__main__":
    main()
