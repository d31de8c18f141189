"""lessons/README.md: a row for every section of the source documents, and everything that a row names exists."""

import ast
import re

import pytest

from minitransformer import locate
from minitransformer.cli.learn import read_lesson

from .helpers import LESSONS

ROOT = locate.checkout()
SECTIONS = {
    "D1": "1.1 1.2 1.3 2.1a 2.1b 2.2a 2.2b 3.1 3.2 3.3 4.1a 4.1b 4.2 4.3a 4.3b 5",
    "D2": "1.1 1.2 1.3 2.1 2.2 2.3 3.1 3.2 3.3 4 5",
    "D3": "1.1 1.2 2.1 2.2 2.3 3.1 3.2 4.1 4.2 5",
    "D4": "1.1 1.2 2.1 2.2 3.1 3.2 4.1 4.2 5.1 5.2",
    "D5": "1.1 1.2 1.3 2.1 2.2 2.3 3.1 3.2 3.3 4.1 4.2 4.3",
}
EXPECTED = [f"{document} §{section}" for document, sections in SECTIONS.items() for section in sections.split()]


def read_syllabus():
    text = (locate.lessons() / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return text, [row for row in rows if re.match(r"D\d §", row[0])]


TEXT, ROWS = read_syllabus()


def defined(path, name):
    """Whether a file defines a name: `function`, `Class` or `Class.method` in Python, a word in other files."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return re.search(rf"\b{re.escape(name)}\b", text) is not None
    scope = ast.parse(text).body
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        found = [node for node in scope if isinstance(node, kinds) and node.name == part]
        if not found:
            return False
        scope = found[0].body
    return True


def named(cell):
    """[(path, symbol or "")] of the `path::symbol` in a cell."""
    return [
        (ROOT / path, symbol) for path, _, symbol in (name.partition("::") for name in re.findall(r"`([^`]+)`", cell))
    ]


def test_every_section_has_one_row_in_order():
    assert [row[0] for row in ROWS] == EXPECTED
    assert all(len(row) == 6 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_exists(row):
    section, asks, lesson, code, tests, status = row
    assert asks
    links = re.findall(r"\[(\d\d)\]\(([^)]+)\)", lesson)
    assert lesson == "–" or links
    for number, file in links:
        assert file.startswith(number) and (locate.lessons() / file).is_file(), file
    for cell in (code, tests):
        assert cell == "–" or named(cell), f"{section}: names go in backquotes"
        for path, symbol in named(cell):
            assert path.is_file(), path
            assert not symbol or defined(path, symbol), f"{path} does not define {symbol}"
    assert all(path.name.startswith("test_") for path, _ in named(tests))
    kept = {"done": bool(links) and code != "–" and tests != "–", "partly": code != "–" and tests != "–"}
    kept["open"] = (lesson, code, tests) == ("–", "–", "–")
    assert kept[status], f"{section} is not {status}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_is_in_the_syllabus_and_says_what_it_covers(path):
    assert f"]({path.name}) |" in TEXT.partition("## What covers")[0]
    assert read_lesson(path).question
    covered = {row[0] for row in ROWS if f"({path.name})" in row[2]}
    assert covered
    assert any(section in path.read_text(encoding="utf-8") for section in covered)


def test_the_check_can_fail(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("class A:\n    def f(self): ...\n\ndef g(): ...\n", encoding="utf-8")
    assert defined(file, "A.f") and defined(file, "g")
    assert not any(defined(file, name) for name in ("f", "A.g", "B"))
