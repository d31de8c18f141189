"""The map of the lessons: what is done, what is next, and how long each took on this machine.

minitransformer learn            the map
minitransformer learn 5          run a lesson; any may come first, and it says what it builds on
minitransformer learn --next     the first that is not done

A lesson is a plain Python script, to be read beside its output: open the file that the first line names. Figures,
numbers and what it printed are kept in out/lessons/NN/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.text import Text

from .. import locate
from ..practice import exercises, progress
from .options import non_negative
from .screen import marks, new_console, program, shown

PARTS = (  # first lesson, title
    (1, "From a gradient to a GPT"), (5, "Looking inside"), (6, "What makes it work"), (10, "Three kernels"),
)  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A lesson's number, title, opening line and what it builds on, from its first markdown cell."""

    number: int
    title: str
    question: str
    path: Path
    builds_on: str = ""

    @property
    def key(self) -> str:
        return f"{self.number:02}"

    @property
    def folder(self) -> Path:
        """Where a run keeps figures, numbers and text; `minitransformer.lesson` puts its own there too."""
        return Path(os.environ.get("MINITRANSFORMER_OUT", "out"), "lessons", self.key)


def configure(parser):
    parser.add_argument(
        "number", nargs="?", type=non_negative, metavar="NUMBER", help="run this lesson; left out: the map"
    )
    parser.add_argument("--next", action="store_true", help="run the first lesson that is not done")


def run(args):
    found, console = lessons(), new_console()
    if args.next:
        if args.number is not None:
            raise ValueError(f"either --next or {args.number}, not both")
        following = next_lesson(found)
        if following is None:
            return console.print(Text(f"All {len(found)} lessons are done.", "good"))
        return run_lesson(console, following)
    if args.number is None:
        return syllabus(console, found)
    chosen = [lesson for lesson in found if lesson.number == args.number]
    if not chosen:
        known = ", ".join(str(lesson.number) for lesson in found) or "none"
        raise ValueError(f"there is no lesson {args.number}; the lessons are {known}")
    return run_lesson(console, chosen[0])


def lessons(folder: Path | None = None) -> list[Lesson]:
    """The lessons of a folder (None: this installation's), by number."""
    folder = locate.lessons() if folder is None else folder
    return [read_lesson(path) for path in sorted(folder.glob("[0-9][0-9]_*.py"))]


def read_lesson(path: Path) -> Lesson:
    lines = [
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    heading = next((i for i, line in enumerate(lines) if re.match(r"#+ ", line)), None)
    title = path.stem[3:].replace("_", " ").capitalize() if heading is None else lines[heading].lstrip("# ")
    title = re.sub(r"^(Lesson )?\d+\W+", "", title)
    paragraph = []
    for line in lines[heading + 1 :] if heading is not None else ():
        if line.startswith(("%%", "#")) or (not line and paragraph):
            break
        paragraph += [line] if line else []
    question = plain(" ".join(paragraph))
    sentence = re.match(r".*?[.?!](?=\s|$)", question)
    row = next((m[1] for line in lines if (m := re.fullmatch(r"\|\s*Builds on\s*\|\s*(.*?)\s*\|", line))), "")
    return Lesson(int(path.name[:2]), plain(title), sentence[0] if sentence else question, path, plain(row))


def plain(markdown: str) -> str:
    """A sentence of markdown with $formulas$ as a terminal can show it."""
    for command, sign in (("\\times", "×"), ("\\cdot", "·"), ("\\sqrt", "√"), ("\\to", "→"), ("\\,", " ")):
        markdown = markdown.replace(command, sign)
    return re.sub(r"[*`$\\{}]", "", markdown)


def next_lesson(found, done=None) -> Lesson | None:
    """The first lesson that is not done."""
    done = progress.read()["lessons"] if done is None else done
    return next((lesson for lesson in found if done.get(lesson.key, {}).get("state") != "done"), None)


# ---------------------------------------------------------------- the map


def syllabus(console, found) -> None:
    console.print(Text("Lessons: predict a number, run the real thing, see it in a figure.", "head"))
    if not found:
        console.print("There are no lessons in this installation.")
        return
    kept = progress.read()
    following, passed = next_lesson(found, kept["lessons"]), kept["exercises"]
    total = [e.number[:2] for e in exercises(found[0].path.parent)]
    part = None
    for lesson in found:
        title = next((title for first, title in reversed(PARTS) if lesson.number >= first), "")
        if title != part:
            part = title
            console.print(Text(f"\n{title}", "head"))
        written = sum(n[:2] == lesson.key and e.get("state") == "passed" for n, e in passed.items())
        entry = kept["lessons"].get(lesson.key, {})
        show(console, lesson, entry, lesson is following, written, total.count(lesson.key))
    if following:
        console.print(Text(f"\nNext:  {program()} learn {following.number}", "command"), soft_wrap=True)
    console.print(Text(f"Exercises, checked:  {program()} practice", "quiet"), soft_wrap=True)
    readme = found[0].path.with_name("README.md")
    if readme.is_file():
        console.print(Text(f"What each covers, beside the source documents: {shown(readme)}", "quiet"), soft_wrap=True)


def show(console, lesson, entry, following, written, exercises_of_it) -> None:
    """One lesson: its state, title, question, file, the minutes it took and the exercises that were passed."""
    done = entry.get("state") == "done"
    sign, style = (marks(console)["good"], "good") if done else (("→" if console.encoding.startswith("utf") else ">"),
                                                                "doubt") if following else (" ", "quiet")  # fmt: skip
    console.print(Text(f"{sign} ", style).append(f"{lesson.number:>2}  {lesson.title}", "bold"))
    if lesson.question:
        console.print(Text("      ").append(lesson.question, "quiet"), soft_wrap=not console.is_terminal)
    facts = [shown(lesson.path)]
    if took := duration(entry.get("seconds")):
        facts.append(f"{took} here")
    elif entry.get("last"):
        facts.append(f"last run: {entry['last']}")
    if exercises_of_it:
        facts.append(f"exercises {written} of {exercises_of_it}")
    console.print(Text(f"      {'  ·  '.join(facts)}", "written"), soft_wrap=True)


def duration(seconds) -> str:
    """As a person says it: 0.4 s, 42 s, 1.5 min; nothing where no time was kept."""
    if not isinstance(seconds, (int, float)):
        return ""
    return f"{seconds / 60:.1f} min" if seconds >= 59.5 else f"{seconds:.{0 if seconds >= 9.95 else 1}f} s"


# ---------------------------------------------------------------- a run


def run_lesson(console, lesson) -> int:
    """Run a lesson in a process of its own; its exit code is ours. State and time are kept however it ends."""
    entry = progress.read()["lessons"].get(lesson.key, {})
    console.print(Text(f"Lesson {lesson.number}: {lesson.title}", "head"))
    console.print(Text(f"Read along: {shown(lesson.path)}", "quiet"), soft_wrap=True)
    if lesson.builds_on and entry.get("state") != "done":
        console.print(Text(f"Builds on: {lesson.builds_on}; it runs by itself all the same", "quiet"), soft_wrap=True)
    if took := duration(entry.get("seconds")):
        console.print(Text(f"It took {took} here last time", "quiet"))
    console.print()
    sys.stdout.flush()
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ, "PYTHONUTF8": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    kept = lesson.folder / "output.txt"
    started, clock = time.time(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.transcript", str(lesson.path), str(kept)], env=environment
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the lesson got the Ctrl-C too; let it end by itself
        process.wait()
        code = 130
    seconds = thought_free(lesson, started, time.perf_counter() - clock)
    keep(lesson, code, seconds)
    if code == 130:
        raise KeyboardInterrupt(f"lesson {lesson.number} was stopped; what earlier runs kept is untouched")
    if code == 0:
        console.print(Text(f"\nKept in {shown(lesson.folder)}/", "written").append(
            f": figures, results.json, output.txt  ·  {duration(seconds)}", "quiet"), soft_wrap=True)  # fmt: skip
        numbers = [e.number for e in exercises(lesson.path.parent) if e.number[:2] == lesson.key]
        if numbers:
            console.print(Text(f"Now you:  {program()} practice start {numbers[0]}", "command"), soft_wrap=True)
    return code


def thought_free(lesson, started, elapsed) -> float:
    """Seconds of the run without those that the person thought, where the lesson told them."""
    results = lesson.folder / "results.json"
    try:
        if results.stat().st_mtime >= started - 1:
            return float(json.loads(results.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return elapsed


def keep(lesson, code, seconds) -> None:
    changes = {
        "state": lambda old: "done" if code == 0 or old == "done" else "open",
        "runs": progress.one_more,
        "last": {0: "complete", 130: "stopped"}.get(code, "failed"),
        "when": datetime.now().strftime("%Y-%m-%d %H:%M"),
    }
    if code == 0:
        changes["seconds"] = round(seconds, 1)
    progress.record("lessons", lesson.key, **changes)
