"""`minitransformer ladder NAME --cuda`: the CUDA rungs, checked and counted on a machine without a GPU."""

from __future__ import annotations

import json

from rich.text import Text

from .ladder import digits
from .screen import facts, files, marks, new_console, next_commands, table


def run_cuda(args):
    from ..kernels.ladder import cuda

    ladder = cuda.cuda_ladders()[args.name]
    sizes = ladder.checked(dict(args.size))
    args.out.mkdir(parents=True, exist_ok=True)
    problem = ladder.problem(sizes)
    least = sum(a.nbytes for a in problem.arguments if getattr(a, "ndim", 0))
    rows = cuda.climb(args.name, problem)
    figure = draw(ladder, sizes, rows, least, args.out / f"{args.name}-cuda.png")
    if args.json:
        told = {
            "ladder": ladder.name, "title": ladder.title, "cuda": True, "sizes": sizes, "least_bytes": least,
            "rungs": [cuda.as_dict(row) for row in rows], "figure": str(figure),
        }  # fmt: skip
        print(json.dumps(told, ensure_ascii=False))
    else:
        show(new_console(), ladder, sizes, rows, least, figure)


def draw(ladder, sizes, rows, least, path):
    """Bytes that each rung reads from global memory, beside those of its inputs."""
    from ..visualization import bars

    told = ", ".join(f"{name} = {n:,}" for name, n in sizes.items())
    failed = [f"{r.rung.number}  {r.rung.name}" for r in rows if not r.rung.failed]
    bars(
        [f"{r.rung.number}  {r.rung.name}" for r in rows], [r.loaded / 1024 for r in rows], log=True, highlight=failed,
        reference={f"each input once: {least / 1024:,.0f}": least / 1024}, path=path,
        xlabel="KiB read from global memory, log scale", title=f"{ladder.title} on a GPU, {told}",
    )  # fmt: skip
    return path


def show(console, ladder, sizes, rows, least, figure):
    from ..kernels.ladder import cuda

    console.print(Text(f"{ladder.title}: from {rows[0].rung.name} to {rows[-1].rung.name}", "head"))
    facts(console, [
        ("sizes", ", ".join(f"{name} = {n:,}" for name, n in sizes.items())),
        ("inputs", f"{least / 1024:,.1f} KiB"),
        ("run by", "the emulator on this CPU: what is right and what is counted, no times"),
    ])  # fmt: skip
    number = {"justify": "right", "no_wrap": True}
    columns = [("", number), ("rung", {"no_wrap": True}), ("read", number), ("written", number),
               ("barriers", number), ("shared", number)]  # fmt: skip
    by_nvcc = rows[0].registers is not None
    if by_nvcc:
        columns += [("regs", number), ("local", number), ("mma", number)]
    made = table(*columns)
    for row in rows:
        cells = [
            marks(console)["bad"] if row.rung.failed else str(row.rung.number), row.rung.name,
            digits(row.loaded / 1024), digits(row.stored / 1024), f"{row.barriers / row.blocks:,.0f}",
            f"{row.shared:,}",
        ]  # fmt: skip
        if by_nvcc:
            spilled = f" + {row.spilled}" if row.spilled else ""
            cells += [str(row.registers) + spilled, str(row.local), str(row.tensor)]
        made.add_row(*cells, style="quiet" if row.rung.failed else "")
    console.print(made)
    for row in rows:
        mark = marks(console)["bad"] if row.rung.failed else str(row.rung.number)
        console.print(Text(f"  {mark}  {row.rung.idea}", "quiet" if row.rung.failed else ""))
    about = "Read, written: KiB of global memory in a launch; barriers and bytes of shared memory: of a block."
    if by_nvcc:
        about += (f" As nvcc compiles it for {cuda.ARCHITECTURE}: registers (+ bytes spilled) and bytes of local "
                  "memory of a thread, tensor-core instructions (mma).")  # fmt: skip
    console.print(Text(f"\n{about}", "quiet"))
    files(console, [(figure, "the figure"), (ladder.source, "the rungs, to be read from the top")])
    next_commands(console, [(f"ladder {ladder.name}", "the same on this CPU, timed")])
