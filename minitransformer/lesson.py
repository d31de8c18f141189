"""Predict, run, see: the small API that lessons are written with.

    lesson = Lesson("02", "Attention")
    guess = lesson.predict("MiB of the scores of 8 heads at T = 4096, in float32?", 512, unit="MiB")
    guess.see(measured, allowed=(500, 520))            # shows it beside what was said; outside: the lesson fails
    heatmap(..., path=lesson.figure("scores"))         # out/lessons/02/scores.png
    lesson.claim("C28", measured="...", setup="...", verdict="reproduced")
    lesson.finish()

In a terminal the person is asked for the number first, and sees the lesson's own prediction only where there is no
answer (Enter, CI, a notebook being rendered). Counts, bytes, shapes, losses and accuracies decide whether a lesson
passes; times are told with `note` and never do. What was seen is kept in `out/lessons/NN/results.json`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["Lesson", "LessonFailed", "Prediction", "VERDICTS"]

VERDICTS = ("reproduced", "partly", "not at this scale", "wrong as stated", "open")


class LessonFailed(AssertionError):
    """A measurement lies outside the range that the lesson allows."""


@dataclass
class Prediction:
    """A number asked for before the run; `see` puts the measured one beside it.

    predicted: the lesson's number; answer: the person's, None where nobody gave one.
    """

    question: str
    predicted: float
    unit: str
    lesson: Lesson = field(repr=False)
    answer: float | None = None
    seen: float | None = None
    allowed: tuple[float, float] | None = None

    @property
    def within(self) -> bool:
        return self.seen is not None and self.allows(self.seen)

    def allows(self, value: float) -> bool:
        return self.allowed[0] <= value <= self.allowed[1]

    def see(self, seen, allowed) -> None:
        """Show the measured number beside what was said before. Raises LessonFailed outside allowed = (low, high)."""
        self.seen, self.allowed = float(seen), (float(allowed[0]), float(allowed[1]))
        self.lesson._show(self)
        if not self.within:
            self.lesson.save()
            raise LessonFailed(
                f"lesson {self.lesson.number}: {self.question} saw {_number(self.seen)} {self.unit}".rstrip()
                + f", allowed is {_number(self.allowed[0])} to {_number(self.allowed[1])}"
            )


class Lesson:
    """One run of a lesson: its predictions, figures, notes and claims, kept under `out/lessons/NN/`.

    number: two digits, the file's; title: shown as the heading. folder: where results go, instead of out/lessons/NN.
    """

    def __init__(self, number: str, title: str, folder: str | Path | None = None):
        self.number, self.title = number, title
        self.folder = Path(folder or Path(os.environ.get("MINITRANSFORMER_OUT", "out"), "lessons", number))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        self.predictions: list[Prediction] = []
        self.claims: list[dict] = []
        self.notes: list[dict] = []
        self.figures: list[str] = []
        self._start = time.perf_counter()
        self._asked = 0.0  # seconds spent waiting for the person, not the lesson's
        self.console.rule(Text(f"Lesson {number}: {title}", "bold"), align="left", characters="─")

    def step(self, heading: str) -> None:
        """A heading in the output."""
        self.console.print(Text(f"\n{heading}", "bold cyan"))

    def say(self, text: str) -> None:
        """A sentence or two about what was just seen."""
        self.console.print(text, markup=False)

    def predict(self, question: str, prediction: float, unit: str = "") -> Prediction:
        """Ask for a number before it is measured. At a terminal a person may answer, before seeing our prediction."""
        asked, answer = time.perf_counter(), None
        if _interactive():
            self.console.print(Text(f"\n? {question}", "bold yellow"))
            answer = _ask(unit)
        self._asked += time.perf_counter() - asked
        made = Prediction(question, float(prediction), unit, self, answer)
        self.predictions.append(made)
        return made

    def figure(self, name: str) -> Path:
        """Where a figure goes: pass it as `path` to a view of `minitransformer.visualization`."""
        path = self.folder / f"{name}.png"
        self.figures.append(path.as_posix())
        self.console.print(Text("  figure ", "dim").append(path.as_posix(), "underline"))
        return path

    def note(self, what: str, value, unit: str = "") -> None:
        """Something measured that decides nothing, such as a time."""
        self.notes.append({"what": what, "value": value, "unit": unit})
        self.console.print(Text(f"  {what}: ").append(f"{_number(value)} {unit}".strip(), "bold"))

    def claim(self, claim: str, *, measured: str, setup: str, verdict: str) -> None:
        """A row of the claims ledger. verdict: one of VERDICTS, by what was measured. Raises ValueError otherwise."""
        if verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, got {verdict!r}")
        self.claims.append(
            {"claim": claim, "measured": measured, "setup": setup, "verdict": verdict, "lesson": self.number}
        )
        colour = {"reproduced": "green", "partly": "yellow"}.get(verdict, "red" if "wrong" in verdict else "cyan")
        self.console.print(
            Text(f"\n{claim}: ", "bold").append(verdict, f"bold {colour}").append(f": {measured} ({setup})")
        )

    def finish(self) -> None:
        """Say how it went and keep the results. Raises LessonFailed where a prediction was never looked at."""
        unseen = [p.question for p in self.predictions if p.seen is None]
        if unseen:
            raise LessonFailed(f"lesson {self.number}: predicted but never measured: {'; '.join(unseen)}")
        path = self.save()
        done = f"{len(self.predictions)} predictions, {len(self.figures)} figures, {self.seconds:.0f} s; {path}"
        self.console.print(Text("\n✓ ", "bold green").append(done))

    @property
    def seconds(self) -> float:
        """How long the lesson has run, without the time that a person thought."""
        return time.perf_counter() - self._start - self._asked

    def save(self) -> Path:
        results = {
            "lesson": self.number,
            "title": self.title,
            "seconds": round(self.seconds, 1),
            "predictions": [
                {key: value for key, value in vars(p).items() if key != "lesson"} | {"within": p.within}
                for p in self.predictions
            ],
            "notes": self.notes,
            "claims": self.claims,
            "figures": self.figures,
        }
        path = self.folder / "results.json"
        partial = path.with_name(f".results-{os.getpid()}.tmp")  # of our own: the lesson may run twice at once
        partial.write_text(json.dumps(results, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    def _show(self, p: Prediction) -> None:
        """One line: the question, what was said, what was seen; a range that was missed in a line of its own."""
        if p.answer is None:
            said = Text(f"predicted {_number(p.predicted)}", "dim")
        elif p.allows(p.answer):
            said = Text("✓ as you said", "bold green")
        else:
            said = Text(f"you said {_number(p.answer)}", "yellow")
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row(
            Padding(Text(p.question), (0, 0, 0, 2)), said, Text(f"seen {_number(p.seen)} {p.unit}".rstrip(), "bold")
        )
        self.console.print(table)
        if not p.within:
            allowed = f"outside the allowed range, {_number(p.allowed[0])} to {_number(p.allowed[1])}"
            self.console.print(Text(f"  ✗ {allowed}", "bold red"))


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty() and not os.environ.get("CI")


def _ask(unit):
    while True:
        try:
            text = input(f"  your prediction{f' in {unit}' if unit else ''} (Enter to skip): ").strip()
        except EOFError:
            return None
        if not text:
            return None
        try:
            return float(text.replace(",", ""))
        except ValueError:
            print("  a number, please, such as 3.5 or 1e6")


def _number(value) -> str:
    """Four significant digits, thousands separated, no trailing zeros."""
    if isinstance(value, str):
        return value
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
