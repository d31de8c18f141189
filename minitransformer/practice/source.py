"""Exercises, read from the lessons: the one place where task, stub, hints, solution and mistakes live.

An exercise is a markdown cell at the end of a lesson, so it does nothing when the lesson runs, and a notebook shows it
with its hints and solution folded away:

    # %% [markdown] exercise="02.1"
    # ### Exercise 02.1: `attention_forward`
    #
    # The task, in a paragraph or two.
    #
    # ```python
    # import numpy as np
    #
    #
    # def attention_forward(q, k, v, *, scale, causal=False, mask=None):
    #     '''Shapes and what is promised.'''
    #     raise NotImplementedError("what to write")
    # ```
    #
    # <details><summary>Hint 1</summary>Three of them, from a nudge to nearly all.</details>
    #
    # <details><summary>Solution</summary>
    #
    # ```python
    # def attention_forward(q, k, v, *, scale, causal=False, mask=None):
    #     ...
    # ```
    #
    # </details>
    # <details><summary>Mistakes that the check must find</summary>
    #
    # * no factor: `* scale` → `* 1`
    #
    # </details>
    #
    # Milestone: `train --kernels practice/attention_forward.py`: a GPT learns with your attention.

What stands above the definition in the stub (imports, a given class) belongs to the solution too. A mistake is one
replacement in the solution, found there exactly once: a *mutant*, which the checks must reject.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from .. import locate

__all__ = ["Exercise", "Mistake", "exercises", "find", "parse", "without_exercises"]

CELL = re.compile(r'^# %% \[markdown\] exercise="(\d\d\.\d)"\n((?:#(?! %%).*(?:\n|\Z))*)', re.M)
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
FOLDED = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.S)
MISTAKE = re.compile(r"^\* (.+?): `([^`]+)` → `([^`]+)`$", re.M)
MILESTONE = re.compile(r"^Milestone: `([^`]+)`: (.+?)(?:\n\n|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Mistake:
    """A replacement in the solution that makes it wrong."""

    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Exercise:
    """One exercise. stub and solution are whole files; milestone is (arguments of `minitransformer`, what it does)."""

    number: str  # "02.1"
    name: str  # of the function or class, and of the person's file
    task: str
    stub: str
    hints: tuple[str, ...]
    solution: str
    mistakes: tuple[Mistake, ...]
    milestone: tuple[str, str] | None
    lesson: Path

    def mutant(self, mistake: Mistake) -> str:
        """The solution with one mistake in it. Raises ValueError unless what it replaces is there exactly once."""
        if (count := self.solution.count(mistake.old)) != 1:
            raise ValueError(
                f"exercise {self.number}: `{mistake.old}` must be in the solution once, is there {count} times"
            )
        return self.solution.replace(mistake.old, mistake.new)


def exercises(folder: Path | None = None) -> list[Exercise]:
    """Every exercise of a folder of lessons (None: this installation's), by number."""
    folder = locate.lessons() if folder is None else folder
    found = [e for path in sorted(folder.glob("[0-9][0-9]_*.py")) for e in parse(path)]
    return sorted(found, key=lambda exercise: exercise.number)


def find(number: str, among: list[Exercise] | None = None) -> Exercise:
    """The exercise "02.1", also as "2.1" or by its name. Raises ValueError, naming what is near, for any other."""
    among = exercises() if among is None else among
    wanted = f"{int(m[1]):02}.{m[2]}" if (m := re.fullmatch(r"(\d{1,2})\.(\d)", number)) else number
    for exercise in among:
        if wanted in (exercise.number, exercise.name):
            return exercise
    near = difflib.get_close_matches(number, [e.name for e in among], 1)
    numbers = [e.number for e in among if e.number.startswith(wanted[:2])] or [e.number for e in among]
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(numbers) or 'none here'}"
    raise ValueError(f"there is no exercise {number!r}; {known}")


def parse(path: Path) -> list[Exercise]:
    """The exercises of one lesson. Raises ValueError, naming file and exercise, where a part is missing."""
    return [_exercise(m[1], m[2], path) for m in CELL.finditer(path.read_text(encoding="utf-8"))]


def without_exercises(source: str) -> str:
    """A lesson's text without its exercise cells, which do not count for its length."""
    return CELL.sub("", source)


def _exercise(number, cell, path):
    text = re.sub(r"^# ?", "", cell, flags=re.M)

    def need(found, what):
        if not found:
            raise ValueError(f"{path.name}: exercise {number} has no {what}")
        return found

    name = need(re.search(r"^### Exercise [\d.]+: `(\w+)`$", text, re.M), "heading ### Exercise NN.N: `name`")
    stub = need(CODE.search(text), "stub")
    folded = {title: body.strip() for title, body in FOLDED.findall(text)}
    hints = tuple([" ".join(folded[title].split()) for title in sorted(folded) if title.startswith("Hint ")])
    solution = need(CODE.search(need(folded.get("Solution"), "solution") + "\n"), "code in its solution")
    listed = need(folded.get("Mistakes that the check must find"), "mistakes")
    listed = re.sub(r"\n  +", " ", listed)  # one may go on in the next line
    mistakes = tuple([Mistake(*m.groups()) for m in MISTAKE.finditer(listed)])
    if len(mistakes) != len(re.findall(r"^\* ", listed, re.M)):
        raise ValueError(f"{path.name}: exercise {number}: every mistake reads * what: `old` → `new`")
    milestone = MILESTONE.search(text)
    return Exercise(
        number=number,
        name=name[1],
        task=text[name.end() : stub.start()].strip(),
        stub=stub[1],
        hints=need(hints, "hints"),
        solution=_given(stub[1], name[1]) + solution[1],
        mistakes=mistakes,
        milestone=(milestone[1], " ".join(milestone[2].split())) if milestone else None,
        lesson=path,
    )


def _given(stub, name):
    """What stands above the definition that the person writes."""
    for node in ast.parse(stub).body:
        if getattr(node, "name", None) == name:
            return "".join(stub.splitlines(keepends=True)[: node.lineno - 1])
    raise ValueError(f"the stub defines no {name}")
