"""Attention, 512 channels, batch 1, float32, beside PyTorch's scaled_dot_product_attention; and what its variants save.

A job is named T-width, with "-forward" where it has no backward: `--only 1024-64 window`.
"""

from __future__ import annotations

from .harness import arguments, interleaved, ratio, report, shown_ratio

CHANNELS = 512
# Our time over PyTorch's, at most: forward, forward + backward.
TARGETS = {1024: (1 / 1.7, 1 / 1.7), 4096: (1 / 1.3, 1 / 1.45), 16384: (1 / 1.3, 1 / 1.45)}
OURS, PEER = "benchmarks.ours:attention", "benchmarks.peers:attention"


def causal(T, width, backward, rounds):
    """Full causal attention beside PyTorch's."""
    heads = CHANNELS // width
    setups = {"minitransformer": (OURS, 1, heads, T, width, backward), "PyTorch": (PEER, 1, heads, T, width, backward)}
    if (T, width) == (1024, 64):
        setups["NumPy kernels"] = (OURS, 1, heads, T, width, backward, {}, "numpy")
    found = interleaved(setups, rounds)
    outputs = (4 if backward else 1) * T * CHANNELS * 4 / 2**20
    # Two products of 2 d FLOP a score forward, five backward; causal attention needs half of the scores.
    flops = (7 if backward else 2) * 2 * CHANNELS * T * T / 2
    ours = found["minitransformer"]
    row = {
        "job": f"causal, T = {T}, width {width}, " + ("forward + backward" if backward else "forward"),
        "ms": _time(ours),
        "GFLOP/s": f"{flops / ours.seconds / 1e9:.0f}",
        "memory beyond outputs": f"{max(ours.growth - outputs, 0):.0f} MB",
    }
    row |= _beside(found, "PyTorch", TARGETS[T][backward])
    if "PyTorch" in found:
        row["its memory"] = f"{max(found['PyTorch'].growth - outputs, 0):.0f} MB"
    if "NumPy kernels" in found:
        row["our NumPy kernels"] = f"{found['NumPy kernels'].seconds * 1e3:.0f} ms"
    return row


def window(rounds, backward):
    """A window of 256 in 16384 tokens, beside our own full causal attention."""
    shape = (1, 8, 16384, 64, backward)
    found = interleaved({"window": (OURS, *shape, {"window": 256}), "full causal": (OURS, *shape)}, rounds)
    job = "window 256, T = 16384, width 64, " + ("forward + backward" if backward else "forward")
    return {"job": job, "ms": _time(found["window"])} | _beside(found, "full causal", 1 / 20)


def grouped(rounds):
    """8 query heads on 2 key/value heads."""
    shape = (1, 8, 4096, 64, True, {"groups": 2})
    found = interleaved({"minitransformer": (OURS, *shape), "PyTorch": (PEER, *shape)}, rounds)
    job = "8 heads on 2 key/value heads, T = 4096, width 64, forward + backward"
    return {"job": job, "ms": _time(found["minitransformer"])} | _beside(found, "PyTorch", None)


def paged(rounds):
    """One token for each of 8 texts of 2048 tokens, 8 heads on 2, from pages of 16 tokens that lie in any order."""
    shape = (8, 8, 2, 2048, 64)
    found = interleaved(
        {
            "pages": ("benchmarks.ours:decoding", *shape, 16),
            "contiguous": ("benchmarks.ours:decoding", *shape),
            "PyTorch": ("benchmarks.peers:decoding", *shape),
        },
        rounds,
    )
    keys = 2 * 8 * 2 * 2048 * 64 * 4
    row = {"job": "decoding, 8 texts of 2048 tokens, 8 heads on 2", "ms": _time(found["pages"])}
    row |= {"GB/s": f"{keys / found['pages'].seconds / 1e9:.1f}"} | _beside(found, "PyTorch", None)
    return row | {"without pages": _time(found["contiguous"])}


def _time(found):
    return f"{found.seconds * 1e3:.2f} (best {found.best * 1e3:.2f})"


def _beside(found, peer, target):
    """The peer's time and ours over it; a target is the largest ratio allowed."""
    row = {"beside": peer if peer in found else f"{peer}: not installed"}
    if peer in found:
        ours, theirs = found[next(iter(found))], found[peer]
        row |= {"its ms": _time(theirs), "time ratio": shown_ratio(ratio(ours, theirs))}
        if target:
            row |= {"target": f"{target:.2f}", "met": "yes" if ours.seconds / theirs.seconds <= target else "no"}
    return row


def main():
    args = arguments(__doc__)
    few = max(3, args.rounds // 5)  # for jobs of seconds
    jobs = {}
    for T in TARGETS:
        for width in (32, 64, 128):
            for backward in (False, True):
                rounds = args.rounds if T < 16384 else few
                name = f"{T}-{width}" + ("" if backward else "-forward")
                jobs[name] = lambda of=(T, width, backward, rounds): causal(*of)
    jobs["window-forward"], jobs["window"] = lambda: window(few, False), lambda: window(few, True)
    jobs["grouped"], jobs["paged"] = lambda: grouped(args.rounds), lambda: paged(args.rounds)
    if unknown := set(args.only or ()) - set(jobs):
        raise SystemExit(f"no job {', '.join(sorted(unknown))}; there are {', '.join(jobs)}")
    report("attention", "Attention", [jobs[name]() for name in args.only or jobs], args)


if __name__ == "__main__":
    main()
