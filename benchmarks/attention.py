"""Causal attention, 8 heads × 64, batch 1, float32, beside PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

from .harness import arguments, interleaved, ratio, report, shown_ratio

JOBS = {
    "1024-forward": (1024, False, None),
    "1024": (1024, True, 0.8),
    "4096-forward": (4096, False, None),
    "4096": (4096, True, 0.8),
}
HEADS, WIDTH = 8, 64


def main():
    args = arguments(__doc__)
    rows = []
    for name, (T, backward, target) in JOBS.items():
        if args.only and name not in args.only:
            continue
        setups = {
            "minitransformer": ("benchmarks.ours:attention", 1, HEADS, T, WIDTH, backward),
            "PyTorch": ("benchmarks.peers:attention", 1, HEADS, T, WIDTH, backward),
        }
        if T == 1024:
            setups["NumPy kernels"] = ("benchmarks.ours:attention", 1, HEADS, T, WIDTH, backward, "numpy")
        found = interleaved(setups, args.rounds)
        ours = found["minitransformer"]
        # Two products of 2 d FLOP a score forward, five backward; causal attention needs half of the scores.
        flops = (7 if backward else 2) * 2 * WIDTH * HEADS * T * T / 2
        row = {
            "job": f"T = {T}, " + ("forward + backward" if backward else "forward"),
            "ms": f"{ours.seconds * 1e3:.1f} (best {ours.best * 1e3:.1f})",
            "GFLOP/s": f"{flops / ours.seconds / 1e9:.0f}",
            "memory": f"{ours.memory:.0f} MB",
        }
        if "PyTorch" in found:
            theirs = found["PyTorch"]
            row |= {
                "PyTorch ms": f"{theirs.seconds * 1e3:.1f} (best {theirs.best * 1e3:.1f})",
                "PyTorch memory": f"{theirs.memory:.0f} MB",
                "time ratio": shown_ratio(ratio(ours, theirs)),
                "target": f"{target:.2f}" if target else "",
                "met": "" if target is None else "yes" if ours.seconds / theirs.seconds <= target else "no",
            }
        if "NumPy kernels" in found:
            row["our NumPy kernels"] = f"{found['NumPy kernels'].seconds * 1e3:.0f} ms"
        rows.append(row)
    report("attention", "Causal attention", rows, args)


if __name__ == "__main__":
    main()
