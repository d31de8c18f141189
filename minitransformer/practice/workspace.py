"""A person's own files: practice/NAME.py in the working folder, or in the folder MINITRANSFORMER_PRACTICE."""

from __future__ import annotations

import os
from pathlib import Path

from .source import Exercise

__all__ = ["file_of", "folder", "start"]


def folder() -> Path:
    return Path(os.environ.get("MINITRANSFORMER_PRACTICE") or "practice")


def file_of(exercise: Exercise) -> Path:
    return folder() / f"{exercise.name}.py"


def start(exercise: Exercise) -> tuple[Path, bool]:
    """Write the stub: (its path, whether it was written). A file that is there already is left as it is."""
    path = file_of(exercise)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding="utf-8") as file:  # x: never over a person's work
            file.write(_text(exercise))
    except FileExistsError:
        return path, False
    return path, True


def _text(exercise):
    about = [f"Exercise {exercise.number}: {exercise.name}, of lesson {exercise.lesson.name}", "", exercise.task, ""]
    about += [f"    minitransformer practice {verb} {exercise.number}" for verb in ("check", "hint")]
    text = "\n".join(about).replace("\\", "\\\\")
    return f'"""{text}\n"""\n\n{exercise.stub}'
