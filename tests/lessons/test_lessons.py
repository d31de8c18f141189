"""Every lesson has the parts of one, runs as a script from another folder, and what it predicts comes true."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.cli.learn import read_lesson

from .helpers import LESSONS, calls, cells

CARD = ("You will be able to", "Builds on", "Time", "Files to open", "Source", "Documents", "Next")
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_lessons_are_numbered_without_a_gap():
    assert [int(path.name[:2]) for path in LESSONS] == list(range(1, len(LESSONS) + 1))


@every_lesson
def test_it_opens_with_title_question_and_header_card(path):
    kind, first = cells(path.read_text(encoding="utf-8"))[0]
    lines = first.splitlines()
    assert kind == "markdown" and re.fullmatch(r"# \S.*", lines[0]) and lines[1] == ""
    named = [row.split("|")[1].strip() for row in lines if row.startswith("| ")]
    assert [name for name in named if name in CARD] == list(CARD)
    read = read_lesson(path)  # what `minitransformer learn` shows
    assert read.title == lines[0][2:] and read.question.endswith("?")


@every_lesson
def test_it_has_the_parts_of_a_lesson(path):
    source = path.read_text(encoding="utf-8")
    found = cells(source)
    assert {kind for kind, _ in found} >= {"markdown", "code"}
    assert all(text.strip() for _, text in found)
    headings = re.findall(r"^#+ (.*)$", "\n".join(text for kind, text in found if kind == "markdown"), re.MULTILINE)
    for part in ("Break it", "Questions learners ask", "Exercises", "Quiz"):
        assert any(part in heading for heading in headings), part
    tree = ast.parse(source)
    asserts = [n for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    assert asserts or "assert_allclose" in source
    assert calls(source, "predict") >= 3 and calls(source, "predict") == calls(source, "see")
    assert calls(source, "figure") >= 2 and calls(source, "finish") == 1
    assert calls(source, "claim") >= 1


@every_lesson
def test_it_is_of_one_sitting(path):
    source = path.read_text(encoding="utf-8")
    # What is read: not empty lines, nor the exercises, which are worked on one at a time.
    read = [
        line for kind, text in cells(source) if kind != "exercise" for line in text.splitlines() if line.strip(" #")
    ]
    assert 250 <= len(read) <= 450
    for kind, text in cells(source):
        if kind != "code":
            fences = [line for line in text.splitlines() if line.startswith("```")]
            assert len(fences) % 2 == 0 and text.count("<details>") == text.count("</details>")
            for dollars in re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL).split("\n\n"):
                assert dollars.count("$") % 2 == 0, f"a formula is not closed: {dollars}"


@every_lesson
def test_exercises_have_hints_and_no_solution(path):
    markdown = "\n".join(text for kind, text in cells(path.read_text(encoding="utf-8")) if kind == "markdown")
    exercises = markdown.partition("## Exercises")[2].partition("## Quiz")[0]
    numbered = re.findall(r"^\d\. .*?(?=^\d\. |\Z)", exercises, re.MULTILINE | re.DOTALL)
    assert 3 <= len(numbered) <= 5
    for exercise in numbered:
        assert "<summary>Hint</summary>" in exercise and re.search(r"`[^`]*\w+", exercise)
        assert "solution" not in exercise.lower()
    quiz = re.findall(r"^\d\. .*?(?=^\d\. |\Z)", markdown.partition("## Quiz")[2], re.MULTILINE | re.DOTALL)
    assert len(quiz) == 4
    for question in quiz:
        asked, answered = re.split(r"\s—\s", question, maxsplit=1)
        assert all(asked.count(f"**({letter})**") == 1 for letter in "abc")
        assert all(f"({letter})" in answered for letter in "abc"), f"a choice is not explained: {question}"


@pytest.mark.slow
@every_lesson
def test_it_runs_and_its_predictions_come_true(path, tmp_path):
    out = tmp_path / "out"
    environment = {**os.environ, "CI": "1", "MINITRANSFORMER_OUT": str(out), "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = str(Path(mt.__file__).parents[1])
    here = tmp_path / "some folder"
    here.mkdir()
    run = subprocess.run(
        [sys.executable, str(path)], cwd=here, env=environment, capture_output=True, text=True, encoding="utf-8",
        timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "Warning" not in run.stderr, run.stderr
    folder = out / "lessons" / path.name[:2]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(results["predictions"]) >= 3
    for p in results["predictions"]:
        low, high = p["allowed"]
        assert p["within"] and low <= p["seen"] <= high
        assert low <= p["predicted"] <= high, f"the lesson's own prediction is not one that it allows: {p['question']}"
    pictures = {picture.name for picture in folder.glob("*.png")}
    assert pictures == {name.rpartition("/")[2] for name in results["figures"]} and len(pictures) >= 2
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert results["claims"]
    assert not list(here.iterdir())  # nothing is written but the results
