"""Check the backward of every op, or of those named, on each kernel set and dtype.

float64 is compared with central differences under a random cotangent: every entry of the Jacobian, or for large ops one
random direction. float32 is compared with the float64 backward of the NumPy kernels. A row that a kernel set did not
serve itself counts as not run, never as a pass.
"""

from __future__ import annotations

import json
import math

from rich.text import Text

from .options import load_kernels
from .screen import marks, new_console

WIDTHS = {"op": 18, "kernels": 8, "dtype": 8, "error": 8}
WIDEST = 20  # of the kernels' column, which the name of one's own file may need


def configure(parser):
    parser.add_argument("ops", nargs="*", metavar="OP", help="ops by name (softmax, LayerNorm, …); all when left out")
    parser.add_argument(
        "--kernels",
        metavar="NAME",
        help="numpy, native, cuda, cuda-emulated, or FILE.py with kernels of yours; all sets when left out",
    )
    parser.add_argument("--all", action="store_true", help="show the rows that were not run too")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list: op, kernels, dtype, method, error, passed"
    )


def run(args):
    from ..gradient_check import check_ops

    chosen = None if args.kernels is None else [load_kernels(args.kernels)]
    rows = check_ops(args.ops or None, chosen)
    width = max(WIDTHS["kernels"], *(len(getattr(which, "__name__", which)) for which in chosen or [""]))
    rows = list(rows) if args.json else show(new_console(), rows, args.all, min(width, WIDEST))
    if args.json:
        print(json.dumps([as_json(row) for row in rows], indent=1))
    failed = any(row.passed is False for row in rows)
    return 1 if failed or not any(row.passed for row in rows) else 0


def as_json(row) -> dict:
    """A row in JSON's types; an infinite error (the function raised, or returned nothing to compare) is null."""
    found = row.as_dict()
    if found["error"] is not None and not math.isfinite(found["error"]):
        found["error"] = None
    return found | ({"detail": row.detail} if row.passed is False else {})


def show(console, rows, everything=False, width=WIDTHS["kernels"]) -> list:
    """Print the table row by row as the checks finish, then the failures and the count; returns the rows."""
    seen, op, widths = [], None, WIDTHS | {"kernels": width}
    for row in rows:
        if not seen:
            console.print(header(widths))
        seen.append(row)
        if row.passed is not None or everything:
            console.print(line(console, row, "" if row.op == op else row.op, widths), soft_wrap=True)
            op = row.op
    summary(console, seen)
    return seen


def header(widths) -> Text:
    names = " ".join(f"{name:{'>' if name == 'error' else '<'}{width}}" for name, width in widths.items())
    return Text(f"{names}  result   checked by", "bold")


def line(console, row, op, widths) -> Text:
    kind, word = {True: ("good", "pass"), False: ("bad", "FAIL"), None: ("quiet", "not run")}[row.passed]
    mark = marks(console)["none" if row.passed is None else kind]
    text = Text(f"{_fitted(op, widths['op'])} ", "bold")
    text.append(f"{_fitted(row.kernels, widths['kernels'])} {row.dtype:<{widths['dtype']}} ", "none")
    text.append(f"{'' if row.error is None else f'{row.error:.1e}':>{widths['error']}}  ", "none")
    text.append(f"{mark} {word:<7}", kind)
    text.append(row.method.removeprefix("finite differences, "), "quiet")
    return text


def _fitted(word, width):
    return word.ljust(width) if len(word) <= width else word[: width - 1] + "…"


def summary(console, rows) -> None:
    """The failures, each with input, index, got and expected; then one line with the counts."""
    failed = [row for row in rows if row.passed is False]
    for row in failed:
        console.print()
        console.print(Text(f"{row.op} on {row.kernels} in {row.dtype} FAILED", "bad"))
        console.print(Text(row.detail), soft_wrap=True)
    passed = sum(row.passed is True for row in rows)
    not_run = len(rows) - passed - len(failed)
    text = Text("\n")
    text.append(f"{passed} passed", "good" if passed else "bad")
    text.append(f", {len(failed)} FAILED" if failed else ", 0 failed", "bad" if failed else "none")
    if not_run:
        text.append(f"; {not_run} need no check here: no kernel of this set runs in them", "quiet")
    if not passed and not failed:
        text.append("; nothing was checked", "bad")
    console.print(text, soft_wrap=True)
