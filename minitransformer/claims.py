"""The claims ledger: what the source documents say, beside what was measured here.

    python -m minitransformer.claims            # out/lessons/*/results.json -> lessons/CLAIMS.md

Run the lessons first; each keeps what it measured in its results. The ledger is written from those alone: nothing in
it is edited by hand, and a claim that no lesson has measured is open. A lesson that was not run this time keeps the
row that it had.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import locate
from .lesson import VERDICTS

__all__ = ["CLAIMS", "Row", "ledger", "measured", "parse", "render", "write"]

# id -> (section, the document's figure in our words)
CLAIMS = {
    "C01": ("D1 §1.1", "RNN/LSTM fail beyond some 10 time steps; attention does not"),
    "C02": ("D5 §1.1", "parallel training is 3-5× faster than recurrence"),
    "C03": ("D1 §1.3", "dynamic routing attention: +2.3 % accuracy"),
    "C04": ("D1 §2.1", "data cleaning: noise from 15 % to under 3 %"),
    "C05": (
        "D1 §1.2, §2.1, D4 §2.1",
        "3D parallelism: 92 % / 78 % utilisation, 3.2× over data parallel alone; 30 → 7 days by better all-reduce",
    ),
    "C06": (
        "D1 §2.2, D2 §3.2",
        "LoRA with 0.7 % of the parameters reaches 92 % of full fine-tuning; D2: 175B → 10M trained at 90 %",
    ),
    "C07": ("D1 §3.2", "progressive training: VQA 68 → 81 %"),
    "C08": ("D1 §3.3", "distillation and routing: latency 1200 → 280 ms"),
    "C09": ("D1 §4.1", "AWQ: 98 % of the accuracy at a quarter of the size"),
    "C10": ("D1 §4.1", "top-k activation at 15 %: 3.2× throughput"),
    "C11": ("D1 §4.3", "value alignment: 99.2 % of outputs comply"),
    "C12": ("D1 §4.3", "Gaussian noise σ = 0.5: membership inference 78 → 12 % (which metric, is not said)"),
    "C13": ("D1 §5", "attention's cost grows quadratically past 32K; first token under 200 ms"),
    "C14": ("D2 §2.3, D3 §3.2", "INT8: 75 % smaller, 3-4× faster"),
    "C15": ("D2 §3.3", "graph optimisation and fusion: up to 5×"),
    "C16": ("D2 §4", "pruning and dynamic graphs: 40 % less energy"),
    "C17": ("D4 §1.2", "the S-shaped scaling curve"),
    "C18": ("D4 §2.2", "gradient compression: 90 % less traffic; share of communication 35 → 12 %, 2.1×"),
    "C19": ("D4 §3.1", "quantisation-aware training: under 1 % accuracy lost"),
    "C20": ("D4 §3.2", "MoE: 3-5× throughput at equal parameters"),
    "C21": ("D4 §4.2", "the evaluation loop: intent accuracy 89 → 94 %, latency -40 %"),
    "C22": ("D5 §1.2", "losing one head does not change overall behaviour"),
    "C23": ("D5 §2.2", "20 % of the heads removed: under 1 % lost"),
    "C24": ("D5 §2.3", "GPTQ error under 2 %; 4-bit: 75 % less memory"),
    "C25": ("D5 §4.2", "activation checkpointing: 30 % less activation memory; PowerSGD: 90 % less traffic"),
    "C26": ("D5 §1.2", "eight heads have 8× the parameters"),
    "C27": ("D2 §1.3", "RoPE keeps long-range dependence at lower cost"),
    "C28": ("D3 §1.1", "1/√d prevents vanishing gradients"),
    "C29": ("D4 §3.1", "BF16 loses less than FP16"),
    "C30": ("D4 §1.2", "abilities emerge between 1B and 10B parameters"),
}
HEADER = ("claim", "section", "the document says", "measured here", "set-up", "verdict", "lesson")
UNNUMBERED = "–"
INTRODUCTION = """# Claims ledger

What the source documents say (in our words, by section) beside what the lessons measured, at the scale of one machine.
Verdicts: {verdicts}.
Claims are measured as they are and never tuned to agree; numbers vary a little between machines.

Written by `python -m minitransformer.claims` from the results of the lessons. Do not edit by hand.
"""


@dataclass(frozen=True)
class Row:
    """One claim of the ledger; measured, setup and lesson are empty while the verdict is "open"."""

    claim: str
    section: str
    document: str
    measured: str = ""
    setup: str = ""
    verdict: str = "open"
    lesson: str = ""


def measured(results: Path) -> dict[str, list[Row]]:
    """{lesson: its claims} of all `results.json` in the folders below `results`.

    A claim is "C22" (words may follow it), or one of a section that is not numbered here: "D2 §3.1: what it says".
    Raises ValueError, naming the file, for results that are damaged, of a run that failed, or with an unknown verdict.
    """
    found = {}
    for path in sorted(results.glob("*/results.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            failed = [p["question"] for p in run["predictions"] if not p["within"]]
            found[run["lesson"]] = [_row(claim) for claim in run["claims"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no lesson's results ({error}); run the lesson again") from None
        if failed:
            raise ValueError(f"{path} is of a run that failed ({failed[0]}); run the lesson again")
    return found


def ledger(found: dict[str, list[Row]], before: Iterable[Row] = ()) -> list[Row]:
    """All rows: C01 … C30, then those without a number. A lesson that is not in `found` keeps its rows of `before`."""
    kept = [row for row in before if row.lesson and row.lesson not in found]
    rows = sorted([*kept, *(row for rows in found.values() for row in rows)], key=lambda row: row.lesson)
    numbered = []
    for claim in CLAIMS:
        numbered += [row for row in rows if row.claim == claim] or [Row(claim, *CLAIMS[claim])]
    return numbered + [row for row in rows if row.claim == UNNUMBERED]


def render(rows: list[Row]) -> str:
    """The ledger as Markdown."""
    cells = [HEADER, ["---"] * len(HEADER), *([_cell(value) for value in vars(row).values()] for row in rows)]
    count = len({row.claim for row in rows if row.verdict != "open"} & set(CLAIMS))
    head = [INTRODUCTION.format(verdicts=", ".join(VERDICTS)), f"{count} of {len(CLAIMS)} claims are measured.", ""]
    return "\n".join(head + ["| " + " | ".join(row) + " |" for row in cells]) + "\n"


def parse(text: str) -> list[Row]:
    """The rows of a ledger's text: the inverse of `render`. Raises ValueError for a row of another shape."""
    rows = []
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| --- ", f"| {HEADER[0]} ")):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]  # a "\|" belongs to its cell
            if len(cells) != len(HEADER):
                raise ValueError(f"a row of the ledger has {len(HEADER)} cells, got {len(cells)}: {line}")
            rows.append(Row(*(cell.replace("\\|", "|") for cell in cells)))
    return rows


def write(path: Path, results: Path) -> list[Row]:
    """Write the ledger to `path` from the results below `results` and the rows that it had; returns its rows."""
    before = parse(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows = ledger(measured(results), before)
    partial = path.with_suffix(".partial")
    partial.write_text(render(rows), encoding="utf-8")
    partial.replace(path)
    return rows


def _row(claim):
    if claim["verdict"] not in VERDICTS:
        raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, got {claim['verdict']!r}")
    name, what = claim["claim"], (claim["measured"], claim["setup"], claim["verdict"], claim["lesson"])
    numbered = re.match(r"C\d\d\b", name)
    if numbered and numbered[0] in CLAIMS:
        return Row(numbered[0], *CLAIMS[numbered[0]], *what)
    section, separator, figure = name.partition(": ")
    if not separator or not re.fullmatch(r"D[1-5] §.+", section):
        raise ValueError(f'a claim is one of C01 to C30 or "D2 §3.1: what it says", got {name!r}')
    return Row(UNNUMBERED, section, figure, *what)


def _cell(value):
    return " ".join(value.split()).replace("|", "\\|")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minitransformer.claims", description="Writes lessons/CLAIMS.md.")
    results = Path(os.environ.get("MINITRANSFORMER_OUT", "out"), "lessons")
    parser.add_argument("--results", type=Path, default=results, metavar="DIR", help=f"of the lessons ({results})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the ledger (lessons/CLAIMS.md)")
    options = parser.parse_args(arguments)
    try:
        path = options.out or locate.lessons() / "CLAIMS.md"
        rows = write(path, options.results)
    except (ValueError, OSError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    open_rows = sum(row.verdict == "open" for row in rows)
    print(f"{path}: {len(rows) - open_rows} measured, {open_rows} open")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
