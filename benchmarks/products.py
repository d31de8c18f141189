"""Float32 matrix products beside NumPy's OpenBLAS, and what comes with them: bias and GELU, and the gradients.

A job is named M×K×N with a form: AB, AtB (A is a transposed view), ABt. NumPy multiplies in a process of its own, with
as many threads, its OpenBLAS free to choose the kernels for this processor. Both allocate their result in each call, in
processes that keep freed memory, so neither pays for page faults.

The two cores of a shared machine do not always hear equally fast of each other, so that a kernel that hands data from
one to the other may win at one time and lose at another. Each row shows which time it was, before and after: the
microseconds of a parallel region in which all threads must meet, and the speed of products that need nothing from
outside their core (what the multipliers give at the moment).
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np

from .harness import THREADS, arguments, interleaved, ratio, report, shown_ratio

SHAPES = [(128, 384, 128), (768, 128, 512), (2048, 384, 1536), (1024, 1024, 1024), (2048, 2048, 2048)]
FORMS = ("AB", "AtB", "ABt")
FREE = 1.1  # what "for free" may cost: GELU itself is some 25 of the operations that a sum of K = 384 has 384 of

# ---------------------------------------------------------------- the jobs, each built in a process of its own


def _drawn(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _ours():
    from minitransformer import kernels

    kernels.native.set_thread_count(THREADS)
    kernels.native.keep_freed_memory()
    return kernels


def product(which, M, K, N, form):
    """a b in minitransformer or NumPy, one of the two perhaps a transposed view."""
    kernels = _ours()
    a, b = _drawn((M, K), (K, N))
    if form == "AtB":
        a = np.asfortranarray(a)
    if form == "ABt":
        b = np.asfortranarray(b)
    multiply = kernels.matmul if which == "minitransformer" else np.matmul
    return lambda: multiply(a, b)


def linear(M, K, N, how):
    """x Wᵀ + b; "fused": GELU within; "after": GELU in a pass of its own."""
    kernels = _ours()
    x, weight, bias = _drawn((M, K), (N, K), N)
    if how == "after":
        return lambda: kernels.gelu(kernels.linear(x, weight, bias), "tanh")
    activation = "gelu_tanh" if how == "fused" else None
    return lambda: kernels.linear(x, weight, bias, activation)


def gradients(which, M, K, N):
    """dx, dweight and dbias of a linear layer; in NumPy two products and a sum."""
    kernels = _ours()
    dy, x, weight = _drawn((M, N), (M, K), (N, K))
    if which == "minitransformer":
        return lambda: kernels.linear_backward(dy, x, weight)
    return lambda: (dy @ weight, dy.T @ x, dy.sum(axis=0))


# ---------------------------------------------------------------- the machine at the moment


def probe() -> str:
    """Microseconds of a parallel region and GFLOP/s of products in the cache, the medians of a few."""
    kernels = _ours()
    region = statistics.median(kernels.native.region_seconds(200) for _ in range(5))
    side = 96
    (a,) = _drawn((side, side))
    a = np.broadcast_to(a, (64, side, side))
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        kernels.matmul(a, a)
        seconds.append(time.perf_counter() - start)
    return f"{region * 1e6:.2f} µs, {2 * a.shape[0] * side**3 / statistics.median(seconds) / 1e9:.0f} GFLOP/s"


# ---------------------------------------------------------------- the table


def row(name, setups, flops, most, rounds):
    """The first of the setups beside the second; `most`: the largest ratio of times allowed."""
    before = probe()
    found = interleaved(setups, rounds, slice_seconds=0.2)
    mine, peer = list(setups)[:2]
    shown = {
        "job": name,
        "ms": f"{found[mine].seconds * 1e3:.3f} (best {found[mine].best * 1e3:.3f})",
        "GFLOP/s": f"{flops / found[mine].seconds / 1e9:.0f} (best {flops / found[mine].best / 1e9:.0f})",
        "beside": peer,
        "its GFLOP/s": f"{flops / found[peer].seconds / 1e9:.0f} (best {flops / found[peer].best / 1e9:.0f})",
        "time ratio": shown_ratio(ratio(found[mine], found[peer])),
        "target": f"{most:.2f}",
        "met": "yes" if found[mine].seconds <= most * found[peer].seconds else "no",
    }
    for other in list(setups)[2:]:
        shown[other] = f"{found[other].seconds * 1e3:.3f} ms"
    return shown | {"machine before": before, "and after": probe()}


def main():
    for chosen in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # a choice made for reproducible bits, not for speed
        os.environ.pop(chosen, None)
    os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)
    args, here, jobs = arguments(__doc__), "benchmarks.products:", {}
    for M, K, N in SHAPES:
        size, flops = f"{M}×{K}×{N}", 2 * M * K * N
        for form in FORMS:
            setups = {who: (here + "product", who, M, K, N, form) for who in ("minitransformer", "NumPy")}
            jobs[f"{size} {form}"] = (f"{size}, {form}", setups, flops, 1.0)
        setups = {who: (here + "gradients", who, M, K, N) for who in ("minitransformer", "NumPy")}
        jobs[f"{size} gradients"] = (f"{size}, gradients of the linear layer", setups, 2 * flops, 1.0)
    for M, K, N in SHAPES[1:4]:
        setups = {"linear + GELU": (here + "linear", M, K, N, "fused"), "linear": (here + "linear", M, K, N, "alone"),
                  "GELU in a pass of its own": (here + "linear", M, K, N, "after")}  # fmt: skip
        name = f"{M}×{K}×{N} gelu"
        jobs[name] = (f"{M}×{K}×{N}, bias and GELU in the product", setups, 2 * M * K * N, FREE)
    if unknown := set(args.only or ()) - set(jobs):
        raise SystemExit(f"no job {', '.join(sorted(unknown))}; there are {', '.join(jobs)}")
    report("products", "Float32 products", [row(*jobs[name], args.rounds) for name in args.only or jobs], args)


if __name__ == "__main__":
    main()
