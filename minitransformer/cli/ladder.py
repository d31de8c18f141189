"""From the naive loop to the shipped kernel, rung by rung: checked, timed, and drawn beside the machine's ceilings.

Without a name: the ladders and their rungs. The rungs are C++ (csrc/ladder/), compiled for this machine on first use.
With --cuda: the CUDA kernels, run on the CPU; no times, but what they read, write and wait for is counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.text import Text

from .screen import facts, files, marks, new_console, next_commands, table

LADDERS = ("attention", "topk_activation", "quantized_gemm")
OUT = Path("out/ladder")


def configure(parser):
    parser.add_argument("name", nargs="?", choices=LADDERS, metavar="NAME", help=", ".join(LADDERS))
    parser.add_argument("--cuda", action="store_true", help="the CUDA ladder, through the emulator")
    parser.add_argument("--size", type=size, nargs="+", default=[], metavar="T=1024", help="other sizes than the usual")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--out", default=OUT, type=Path, metavar="DIR", help=f"where the figure goes ({OUT})")


def size(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not name or not number.isdecimal() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"must be a name and a positive integer such as T=1024, got {text!r}")
    return name, int(number)


def run(args):
    if args.name is None:
        if args.size or args.json or args.cuda:
            raise ValueError(f"name a ladder: {', '.join(LADDERS)}")
        return show_all(new_console())
    if args.cuda:
        from .cuda_ladder import run_cuda

        return run_cuda(args)
    from ..kernels import native
    from ..kernels.ladder import ladders, library, threads

    ladder = ladders()[args.name]
    sizes = ladder.checked(dict(args.size))
    args.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is found out before anything runs
    count = native.thread_count() if native.ROUTINES else usable_processors()
    threads(library(ladder.name), count)
    result = climb(ladder, sizes, count)
    figure = draw(result, args.out / f"{ladder.name}.png")
    if args.json:
        print(json.dumps({**result, "figure": str(figure)}, ensure_ascii=False))
    else:
        show(new_console(), ladder, result, figure)


# ---------------------------------------------------------------- measuring


def climb(ladder, sizes: dict[str, int], threads: int) -> dict:
    """Checks every rung, on odd sizes and on these, measures the ceilings and the rungs: what --json prints.

    Raises WrongRung where a rung is not right: then nothing is timed.
    """
    from ..kernels import current
    from ..kernels.ladder import ceilings, times

    rungs = ladder.rungs()
    problem = ladder.problem(**sizes)
    for checked in (ladder.small(), problem):
        for rung in rungs:
            checked.check(rung, ladder.run(rung, checked))
    counts = sorted({1, threads})
    peaks = ceilings.measure(["fp32", "int8", "memory"], counts)
    taken = times(ladder, problem, rungs=rungs)
    peaks = ceilings.measure([problem.ceiling], counts, before=peaks)  # the machine may have been slow before
    rows, last = [], None
    for rung in rungs:
        seconds = statistics.median(taken[rung])
        speed, used = problem.work / seconds / 1e9, threads if rung.threaded else 1
        rows.append({
            "rung": rung.number, "name": rung.name, "idea": rung.idea, "failed": rung.failed, "threads": used,
            "ms": seconds * 1e3, "best_ms": min(taken[rung]) * 1e3, "runs": len(taken[rung]), "speed": speed,
            "of_ceiling": speed / peaks[problem.ceiling, used], "times_before": speed / last if last else None,
        })  # fmt: skip
        last = last if rung.failed else speed
    return {
        "ladder": ladder.name, "title": ladder.title, "sizes": sizes, "kernels": current().name, "unit": problem.unit,
        "ceiling": problem.ceiling, "threads": threads, "work": problem.work,
        "ceilings": [{"name": name, "threads": n, "value": value} for (name, n), value in peaks.items()],
        "rungs": rows,
    }  # fmt: skip


def usable_processors() -> int:
    from .doctor import usable_processors

    return usable_processors()


# ---------------------------------------------------------------- showing


def ceiling_of(result, threads):
    return next(c["value"] for c in result["ceilings"] if (c["name"], c["threads"]) == (result["ceiling"], threads))


def cores(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def draw(result, path: Path) -> Path:
    """The rungs' speeds as bars on a log scale beside the ceilings."""
    from ..visualization import ladder as ladder_figure

    rungs = result["rungs"]
    what = {"fp32": "fp32 peak", "int8": "int8 peak", "memory": "memory"}[result["ceiling"]]
    limits = {f"{what}, {cores(n)}": ceiling_of(result, n) for n in sorted({1, result["threads"]})}
    sizes = ", ".join(f"{name} = {n:,}" for name, n in result["sizes"].items())
    ladder_figure(
        [f"{r['rung']}  {r['name']}" for r in rungs], [r["speed"] for r in rungs], limits,
        failed=[r["failed"] for r in rungs], xlabel=f"{result['unit']} (log scale), and how often the rung above",
        title=f"{result['title']}, {sizes}", path=path,
    )  # fmt: skip
    return path


def show(console, ladder, result, figure):
    from ..kernels import native

    console.print(Text(f"{result['title']}: from the naive loop to the shipped kernel", "head"))
    isa = f", {native.isa()}" if result["kernels"] == "native" else ""
    facts(console, [
        ("sizes", ", ".join(f"{name} = {n:,}" for name, n in result["sizes"].items())),
        ("kernels", f"{result['kernels']}{isa}"),
        *((cores(n), "at most " + ", ".join(f"{c['value']:,.0f} {unit(c['name'])} {c['name']}"
                                            for c in result["ceilings"] if c["threads"] == n))
          for n in sorted({1, result["threads"]})),
    ])  # fmt: skip
    number = {"justify": "right", "no_wrap": True}
    made = table(("", number), ("rung", {"no_wrap": True}), ("ms", number), (result["unit"], number), ("peak", number),
                 ("×", number), "what is new")  # fmt: skip
    for r in result["rungs"]:
        style = "quiet" if r["failed"] else "bold" if r is result["rungs"][-1] else ""
        times = "" if r["times_before"] is None else digits(r["times_before"])
        made.add_row(
            marks(console)["bad"] if r["failed"] else str(r["rung"]), r["name"], digits(r["ms"]), digits(r["speed"]),
            f"{r['of_ceiling']:.0%}", times, r["idea"], style=style,
        )  # fmt: skip
    console.print(made)
    first, last = result["rungs"][0], result["rungs"][-1]
    console.print(Text(f"{first['ms'] / last['ms']:,.0f}× from the first rung to the last. ", "bold").append(
        "Medians; peak: share of what as many threads can do at most; ×: against the rung above; "
        f"{marks(console)['bad']} was tried and left.", "quiet"))  # fmt: skip
    if (slow := max(r["ms"] / r["best_ms"] for r in result["rungs"])) > 1.5:
        console.print(Text(f"The machine is busy: a median is up to {slow:.1f}× its best run. Repeat it in a quiet "
                           "moment.", "doubt"))  # fmt: skip
    files(console, [(figure, "the figure"), (ladder.source, "the rungs, to be read from the top")])
    next_commands(console, [(f"ladder {result['ladder']} --cuda", "the same climb on a GPU's terms")])


def unit(ceiling):
    from ..kernels.ladder.ceilings import CEILINGS

    return CEILINGS[ceiling][0]


def digits(value: float) -> str:
    """Three digits, no exponent: 0.05, 3.14, 31.4, 3,140."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def show_all(console):
    from ..kernels.ladder import ladders, parse_rungs

    for ladder in ladders().values():
        console.print(Text(ladder.title, "head").append(f"   {ladder.name}", "quiet"))
        for rung in parse_rungs(ladder.source.read_text(encoding="utf-8")):
            mark = marks(console)["bad"] if rung.failed else str(rung.number)
            text = Text(f"  {mark}  {rung.name:<24}", "quiet" if rung.failed else "").append(rung.idea, "quiet")
            console.print(text, soft_wrap=True)
        console.print()
    next_commands(console, [(f"ladder {name}", about) for name, about in (
        ("attention", "climb it: every rung checked and timed on this machine, in 15 seconds"),
        ("attention --cuda", "the CUDA rungs, run and counted without a GPU"))])  # fmt: skip
