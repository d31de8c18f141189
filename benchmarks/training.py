"""Training steps of small GPTs (forward, backward, clip, AdamW in float32) beside PyTorch eager with fused AdamW."""

from __future__ import annotations

from .harness import arguments, interleaved, ratio, report, shown_ratio

# layers, heads, width, context, batch, vocabulary; then the ratio of times that is asked for
JOBS = {
    "a": ((4, 4, 128, 64, 12, 65), 0.75),
    "b": ((6, 6, 384, 256, 8, 65), 0.90),
}


def main():
    args = arguments(__doc__)
    rows = []
    for name, (sizes, target) in JOBS.items():
        if args.only and name not in args.only:
            continue
        found = interleaved(
            {
                "minitransformer": ("benchmarks.ours:training_step", *sizes),
                "PyTorch": ("benchmarks.peers:training_step", *sizes),
            },
            args.rounds,
            slice_seconds=0.5 if name == "a" else 2.0,
        )
        layers, heads, width, context, batch, _ = sizes
        ours, tokens = found["minitransformer"], batch * context
        row = {
            "job": f"({name}) {layers} layers, {heads} heads, width {width}, context {context}, batch {batch}",
            "tokens/s": f"{tokens / ours.seconds:,.0f} (best {tokens / ours.best:,.0f})",
            "memory": f"{ours.memory:.0f} MB",
        }
        if "PyTorch" in found:
            theirs = found["PyTorch"]
            row |= {
                "PyTorch tokens/s": f"{tokens / theirs.seconds:,.0f} (best {tokens / theirs.best:,.0f})",
                "PyTorch memory": f"{theirs.memory:.0f} MB",
                "time ratio": shown_ratio(ratio(ours, theirs)),
                "target": f"{target:.2f}",
                "met": "yes" if ours.seconds / theirs.seconds <= target else "no",
            }
        rows.append(row)
    report("training", "Training step", rows, args)


if __name__ == "__main__":
    main()
