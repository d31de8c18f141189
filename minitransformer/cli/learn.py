"""The syllabus: every lesson with its question; `learn NUMBER` runs one.

A lesson is a plain Python script, to be read beside its output: open the file that the first line names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from .. import locate
from .options import non_negative
from .screen import new_console, shown


@dataclass(frozen=True)
class Lesson:
    """A lesson's number, title and opening line, from its first markdown cell."""

    number: int
    title: str
    question: str
    path: Path


def configure(parser):
    parser.add_argument(
        "number", nargs="?", type=non_negative, metavar="NUMBER", help="run this lesson; left out: the syllabus"
    )


def run(args):
    found = lessons()
    if args.number is None:
        return syllabus(new_console(), found)
    chosen = [lesson for lesson in found if lesson.number == args.number]
    if not chosen:
        known = ", ".join(str(lesson.number) for lesson in found) or "none"
        raise ValueError(f"there is no lesson {args.number}; the lessons are {known}")
    return run_lesson(new_console(), chosen[0])


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
    return Lesson(int(path.name[:2]), plain(title), sentence[0] if sentence else question, path)


def plain(markdown: str) -> str:
    """A sentence of markdown with $formulas$ as a terminal can show it."""
    for command, sign in (("\\times", "×"), ("\\cdot", "·"), ("\\sqrt", "√"), ("\\to", "→"), ("\\,", " ")):
        markdown = markdown.replace(command, sign)
    return re.sub(r"[*`$\\{}]", "", markdown)


def syllabus(console, found) -> None:
    console.print(Text("Lessons: predict a number, run the real thing, see it in a figure.\n", "head"))
    for lesson in found:
        console.print(Text(f"{lesson.number:>3}  ", "bold").append(lesson.title, "bold"))
        if lesson.question:
            console.print(Text("     ").append(lesson.question, "quiet"), soft_wrap=not console.is_terminal)
        console.print(Text(f"     {shown(lesson.path)}", "written"), soft_wrap=True)
    if not found:
        console.print("There are no lessons in this installation.")
        return
    console.print(Text("\nRun one:  minitransformer learn ").append(str(found[0].number)))
    readme = found[0].path.with_name("README.md")
    if readme.is_file():
        console.print(Text(f"What each covers, beside the source documents: {shown(readme)}", "quiet"), soft_wrap=True)


def run_lesson(console, lesson) -> int:
    """Run a lesson as the script it is, in a process of its own; its exit code is ours."""
    console.print(Text(f"Lesson {lesson.number}: {lesson.title}", "head"))
    console.print(Text(f"Read along: {shown(lesson.path)}\n", "quiet"), soft_wrap=True)
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, str(lesson.path)], env={**os.environ, "PYTHONUTF8": "1"})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the lesson got the Ctrl-C too; let it end by itself
            process.wait()
            raise KeyboardInterrupt(f"lesson {lesson.number} was stopped") from None
