"""Practice: a person writes a component, checks that cannot be fooled grade it, offline.

    source      exercises as the lessons state them: task, stub, hints, solution, mistakes
    checks/     what a right answer must do, one file a lesson
    grading     runs the checks on a person's file, in a process of its own with a time limit
    milestones  training runs with a file that passed
    workspace   the person's files: practice/NAME.py, never overwritten
    progress    what was done, passed and how long it took, in one readable file

Nothing here is needed to use the engine; `minitransformer.cli.practice` and `.learn` are what a person calls.
"""

from .grading import Report, grade
from .source import Exercise, exercises, find
from .workspace import folder, start

__all__ = ["Exercise", "Report", "exercises", "find", "folder", "grade", "start"]
