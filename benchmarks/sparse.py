"""Top-k against PyTorch's, and a feed-forward layer with 15 % of its neurons against our own best dense one."""

from __future__ import annotations

from .harness import arguments, interleaved, ratio, report, shown_ratio

WIDTH, HIDDEN, ACTIVE, RANK = 2048, 5632, 0.15, 128
WAYS = {  # options of the layer -> the speed it should reach against dense
    "top-k of the gate": ({}, 2.0),
    "predictor": ({"rank": RANK}, 4.0),
    "top-k of the gate, shared": ({"shared": True}, 2.0),
    "predictor, shared": ({"rank": RANK, "shared": True}, 4.0),
}


def top_k(args):
    found = interleaved(
        {"minitransformer": ("benchmarks.ours:topk", 4096, 614), "PyTorch": ("benchmarks.peers:topk", 4096, 614)},
        args.rounds,
    )
    ours, row = found["minitransformer"], {"job": "top-k of 4096 × 4096, k = 614"}
    row["ms"] = f"{ours.seconds * 1e3:.2f}"
    if "PyTorch" in found:
        row |= {"beside": f"PyTorch {found['PyTorch'].seconds * 1e3:.1f} ms"}
        row |= {"time ratio": shown_ratio(ratio(ours, found["PyTorch"])), "target": "0.33"}
        row["met"] = "yes" if ours.seconds / found["PyTorch"].seconds <= 1 / 3 else "no"
    return row


def feed_forward(args, tokens):
    """Rows for one number of tokens. Bytes are those of the weights read; the error is ‖y - dense‖ / ‖dense‖."""
    from . import ours as job

    setups = {"dense": ("benchmarks.ours:sparse_feed_forward", tokens, WIDTH, HIDDEN, None, {})}
    for way, (options, _) in WAYS.items():
        if tokens > 1 or "shared" not in options:
            setups[way] = ("benchmarks.ours:sparse_feed_forward", tokens, WIDTH, HIDDEN, ACTIVE, options)
    found = interleaved(setups, args.rounds, slice_seconds=0.2)
    dense = found["dense"]
    for way, measured in found.items():
        row = {"job": f"SwiGLU {WIDTH} × {HIDDEN}, {tokens} token{'s' * (tokens > 1)}: {way}"}
        row["ms"] = f"{measured.seconds * 1e3:.2f}"
        if way == "dense":
            row["MB read"] = f"{3 * WIDTH * HIDDEN * 4 / 1e6:.0f}"
        else:
            megabytes, error, recall = job.sparse_facts(tokens, WIDTH, HIDDEN, ACTIVE, WAYS[way][0])
            target = WAYS[way][1]
            row |= {"MB read": f"{megabytes:.0f}", "beside": f"our dense {dense.seconds * 1e3:.2f} ms"}
            row |= {"time ratio": shown_ratio(ratio(measured, dense)), "target": f"{1 / target:.2f}"}
            row["met"] = "yes" if measured.seconds * target <= dense.seconds else "no"
            row |= {"output error": f"{error:.2f}", "true top-k found": f"{recall:.0%}"}
        yield row


def main():
    args = arguments(__doc__)
    rows = [top_k(args)]
    for tokens in (1, 8):
        rows += feed_forward(args, tokens)
    report("sparse", "Top-k sparse activation", rows, args)


if __name__ == "__main__":
    main()
