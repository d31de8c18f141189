"""The terminal: one console, and the few shapes that the commands print."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

__all__ = [
    "facts",
    "files",
    "marks",
    "new_console",
    "next_commands",
    "printable",
    "program",
    "section",
    "shown",
    "table",
]

THEME = Theme({
    "head": "bold cyan",
    "good": "bold green",
    "bad": "bold red",
    "doubt": "yellow",
    "quiet": "dim",
    "command": "bold",
    "written": "green",
})  # fmt: skip


def new_console(**options) -> Console:
    """A console on today's stdout. Nothing is highlighted by guessing, and a path is never broken by markup."""
    return Console(theme=THEME, highlight=False, **options)


def marks(console) -> dict[str, str]:
    """The signs for good, bad and not run, in what the terminal can print."""
    return (
        {"good": "✓", "bad": "✗", "none": "–"}
        if console.encoding.startswith("utf")
        else {"good": "+", "bad": "x", "none": "-"}
    )


def section(console, number: int, title: str, about: str = "") -> None:
    console.print()
    line = "─" if console.encoding.startswith("utf") else "-"
    console.print(Rule(Text(f" {number}  {title} ", style="head"), align="left", style="cyan", characters=line))
    if about:
        console.print(Text(about, style="quiet"))
    console.print()


def table(*columns, **options) -> Table:
    """A plain table; a column is a header, or (header, options)."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", **options)
    for column in columns:
        header, keywords = column if isinstance(column, tuple) else (column, {})
        made.add_column(header, **keywords)
    return made


def printable(text: str) -> str:
    """Text that a model wrote, without what would steer a terminal: an untrained one writes any byte."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def shown(path) -> str:
    """A path as a person types it: relative to the working folder where it lies below."""
    path = Path(path)
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return str(path)


def facts(console, rows) -> None:
    """(name, value) rows."""
    for name, value in rows:
        console.print(Text(f"{name:<8} ", "bold").append(value, "none"))


def files(console, rows, title="Written") -> None:
    """(path, what it is) rows."""
    console.print(Text(title, "head"))
    width = max(len(shown(path)) for path, _ in rows)
    for path, about in rows:
        console.print(Text(f"  {shown(path):<{width}}  ", "written").append(about, "quiet"), soft_wrap=True)


def next_commands(console, rows, title="What to do next") -> None:
    """(arguments, what they do) rows, written as they can be pasted."""
    console.print(Text(f"\n{title}", "head"))
    for arguments, about in rows:
        console.print(Text(f"  {program()} {arguments}", "command"), soft_wrap=True)
        console.print(Text(f"      {about}", "quiet"), soft_wrap=True)


def program() -> str:
    """What starts this program from the working folder: on PATH, beside this Python, or through it."""
    if shutil.which("minitransformer"):
        return "minitransformer"
    script = Path(sys.executable).with_name("minitransformer.exe" if os.name == "nt" else "minitransformer")
    return _below(script) if script.is_file() else f"{_below(Path(sys.executable))} -m minitransformer"


def _below(path) -> str:
    """Relative to the working folder, without following links (.venv/bin/python is one)."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
