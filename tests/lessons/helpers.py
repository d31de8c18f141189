"""Reading a lesson's file: its cells, and what it calls."""

import ast
import re

from minitransformer import locate

LESSONS = sorted(locate.lessons().glob("[0-9][0-9]_*.py"))


def cells(source):
    """[(kind, text)] of a percent-format script: "code", "markdown" or "exercise", the last two without their "# "."""
    parts = re.split(r"^# %%(.*)$", source, flags=re.MULTILINE)
    assert not parts[0].strip(), "a lesson begins with a cell"
    found = []
    for head, body in zip(parts[1::2], parts[2::2]):
        kind = "exercise" if " exercise=" in head else "markdown" if head.strip() == "[markdown]" else "code"
        assert kind != "code" or not head.strip(), f"an unknown kind of cell: # %%{head}"
        if kind != "code":
            body = "\n".join(re.sub(r"^# ?", "", line) for line in body.strip("\n").splitlines())
        found.append((kind, body))
    return found


def calls(source, name):
    """How many calls of a method there are: `lesson.predict(...)` counts for "predict"."""
    nodes = ast.walk(ast.parse(source))
    return sum(isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == name for n in nodes)
