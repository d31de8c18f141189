"""Milestones: a model learns with a person's own file, and the file is one that its check has passed.

A pass keeps the fingerprint of the text that was graded. A training run reaches the milestone when it began with that
very text and took at least as many steps with it as the milestone's command asks for.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from . import progress
from .source import Exercise, exercises
from .workspace import file_of

__all__ = ["candidate", "fingerprint", "reach", "reached"]


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def candidate(path: str | None) -> Exercise | None:
    """The exercise with a milestone whose file this is, where the check has passed just this text; before a run."""
    if path is None or not Path(path).is_file():
        return None
    done, now = progress.read()["exercises"], fingerprint(Path(path))
    own = [e for e in exercises() if e.milestone and file_of(e).exists() and file_of(e).samefile(path)]
    return next((e for e in own if done.get(e.number, {}).get("passed_text") == now), None)


def reach(exercise: Exercise | None, steps: int) -> bool:
    """After a run that finished: keep the milestone where there is one and the steps suffice."""
    if exercise is None or steps < _needed(exercise):
        return False
    progress.record("exercises", exercise.number, milestone=True)
    return True


def reached(exercise: Exercise, done: dict) -> bool:
    return done.get(exercise.number, {}).get("milestone") is True


def _needed(exercise):
    """The steps of the milestone's own command."""
    steps = re.search(r"--steps (\d+)", exercise.milestone[0])
    return int(steps[1]) if steps else 1
