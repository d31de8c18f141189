"""What the engine itself costs: the time of `import minitransformer`, and the overhead of an op."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .harness import arguments, interleaved, report

OPS = 200


def _start(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main():
    args = arguments(__doc__)
    seconds = {"pass": [], "import numpy": [], "import minitransformer": []}
    for _ in range(args.rounds):
        for code in seconds:
            seconds[code].append(_start(code))
    bare, numpy, ours = (statistics.median(s) for s in seconds.values())
    best = min(a - b for a, b in zip(seconds["import minitransformer"], seconds["pass"], strict=True))
    rows = [
        {
            "job": "import minitransformer, beyond starting Python",
            "measured": f"{ours - bare:.3f} s (best {best:.3f}; of it NumPy {numpy - bare:.3f})",
            "target": "0.30 s",
            "met": "yes" if ours - bare <= 0.3 else "no",
        }
    ]
    found = interleaved(
        {
            "forward": ("benchmarks.ours:op_overhead", False, OPS),
            "both": ("benchmarks.ours:op_overhead", True, OPS),
            "numpy": ("benchmarks.ours:numpy_additions", OPS),
        },
        args.rounds,
        slice_seconds=0.2,
    )
    base = found["numpy"].seconds
    for label, key in (("forward", "forward"), ("forward + backward", "both")):
        overhead = (found[key].seconds - base) / OPS * 1e6
        best = (found[key].best - found["numpy"].best) / OPS * 1e6
        rows.append(
            {
                "job": f"overhead of an op, {label}, beyond NumPy's own {base / OPS * 1e6:.2f} µs",
                "measured": f"{overhead:.1f} µs (best {best:.1f})",
                "target": "8 µs",
                "met": "yes" if overhead <= 8 else "no",
            }
        )
    report("engine", "The engine itself", rows, args)


if __name__ == "__main__":
    main()
