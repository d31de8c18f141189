"""The map of the lessons, a run that keeps what it printed, and runs that end badly."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minitransformer
from minitransformer import locate
from minitransformer.cli import learn, transcript
from minitransformer.practice import progress

HEAD = """# %% [markdown]
# # {title}
#
# Why is {title} so? Text.
#
# | | |
# | --- | --- |
# | Builds on | 01, *first* things |

# %%
"""
BODIES = {
    "01_first": "print('counted', 2 + 2)",
    "02_second": "print('10 %', end='\\r')\nprint('100 %\\n\\x1b[31mred\\x1b[0m')\nprint(__name__, __file__)",
    "05_wrong": "print('before')\nassert 1 == 2, 'measured otherwise'",
}


@pytest.fixture(autouse=True)
def lessons(tmp_path, monkeypatch):
    folder = tmp_path / "lessons"
    folder.mkdir()
    for name, body in BODIES.items():
        (folder / f"{name}.py").write_text(HEAD.format(title=name[3:].capitalize()) + body + "\n", encoding="utf-8")
    monkeypatch.setattr(locate, "lessons", lambda: folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINITRANSFORMER_PRACTICE", raising=False)
    monkeypatch.delenv("MINITRANSFORMER_OUT", raising=False)
    return folder


def test_the_map_follows_what_was_done(run):
    _, out, _ = run("learn")
    assert "→  1  First" in out and "   2  Second" in out and "From a gradient" in out and "learn 1" in out
    assert not Path("practice").exists()  # looking changes nothing
    code = run("learn", 2)[0]  # any lesson may come first
    assert code == 0
    entry = progress.read()["lessons"]["02"]
    assert entry["state"] == "done" and entry["runs"] == 1 and entry["last"] == "complete" and entry["seconds"] >= 0
    _, out, _ = run("learn")
    assert "→  1  First" in out and "✓  2  Second" in out and re.search(r" \d+(\.\d)? s here", out)


def test_next_goes_through_them(run, lessons):
    assert run("learn", "--next")[0] == 0 and run("learn", "--next")[0] == 0
    assert list(progress.read()["lessons"]) == ["01", "02"]
    (lessons / "05_wrong.py").unlink()
    assert "All 2 lessons are done" in run("learn", "--next")[1]
    assert "either --next or 1" in run("learn", 1, "--next")[2]


def test_a_run_keeps_what_it_printed(run, lessons):
    run("learn", 2)
    kept = Path("out/lessons/02/output.txt").read_text(encoding="utf-8").splitlines()
    assert kept == ["100 %", "red", f"__main__ {lessons / '02_second.py'}"]


def test_it_says_what_a_lesson_builds_on(run):
    assert "Builds on: 01, first things; it runs by itself" in run("learn", 2)[1]
    assert "Builds on" not in run("learn", 2)[1]  # done once, it is known


def test_a_lesson_that_fails_is_not_done(run):
    assert run("learn", 5)[0] == 1
    kept = Path("out/lessons/05/output.txt").read_text(encoding="utf-8")
    assert "before" in kept and "AssertionError: measured otherwise" in kept and "runpy" not in kept
    assert progress.read()["lessons"]["05"]["state"] == "open"
    assert "last run: failed" in run("learn")[1]
    progress.record("lessons", "05", state="done", seconds=6.0)
    run("learn", 5)
    assert progress.read()["lessons"]["05"]["state"] == "done"  # it was done, and stays so


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (2.46, "2.5 s"), (9.97, "10 s"), (59.4, "59 s"), (59.6, "1.0 min"), (90, "1.5 min"), (None, "")],
)
def test_a_time_is_said_as_a_person_does(seconds, said):
    assert learn.duration(seconds) == said


def test_the_time_leaves_out_what_the_person_thought(tmp_path):
    lesson = learn.Lesson(7, "", "", tmp_path / "07_x.py")
    assert learn.thought_free(lesson, time.time(), 9.0) == 9.0
    lesson.folder.mkdir(parents=True)
    (lesson.folder / "results.json").write_text(json.dumps({"seconds": 2.5}), encoding="utf-8")
    assert learn.thought_free(lesson, time.time(), 9.0) == 2.5
    assert learn.thought_free(lesson, time.time() + 60, 9.0) == 9.0  # those of an earlier run
    (lesson.folder / "results.json").write_text("{", encoding="utf-8")
    assert learn.thought_free(lesson, time.time(), 9.0) == 9.0


def test_an_interrupted_run_leaves_the_last_ones_text(run, monkeypatch, tmp_path):
    kept = Path("out/lessons/01/output.txt")
    run("learn", 1)
    assert kept.read_text(encoding="utf-8") == "counted 4\n"
    stopped = tmp_path / "stopped.py"
    stopped.write_text("print('half')\nraise KeyboardInterrupt", encoding="utf-8")
    assert transcript.main(str(stopped), str(kept)) == 130
    assert kept.read_text(encoding="utf-8") == "counted 4\n"
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self, timeout=None: 130)
    code, _, error = run("learn", 1)
    assert code == 130 and error.startswith("interrupted: lesson 1 was stopped") and error.count("\n") == 1
    entry = progress.read()["lessons"]["01"]
    assert (entry["state"], entry["runs"], entry["last"]) == ("done", 2, "stopped") and "seconds" in entry


def test_two_runs_at_once(lessons, tmp_path):
    lesson = (
        "from minitransformer.lesson import Lesson\nlesson = Lesson('01', 'First')\n"
        "for i in range(20): lesson.note('i', i); lesson.save()\nlesson.finish()"
    )
    (lessons / "01_first.py").write_text(HEAD.format(title="First") + lesson, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(minitransformer.__file__).parents[1])}
    command = [sys.executable, "-m", "minitransformer.cli.transcript", str(lessons / "01_first.py"), "out/output.txt"]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in runs] == [0, 0]
    assert len(json.loads(Path("out/lessons/01/results.json").read_text(encoding="utf-8"))["notes"]) == 20
    assert Path("out/output.txt").read_text(encoding="utf-8").count("Lesson 01") == 1
    assert not list(Path("out").rglob("*.partial")) + list(Path("out").rglob("*.tmp"))


def test_control_codes_leave_the_text():
    assert transcript.plain("\x1b[1mbold\x1b[0m\n 1 %\r 2 %\r\ndone \n") == "bold\n 2 %\ndone\n"
    bars = "before\na bar\nanother\n\r\x1b[1A\x1b[2K\x1b[1A\x1b[2Kafter\n"
    assert transcript.plain(bars) == "before\nafter\n"
