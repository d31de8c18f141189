"""The progress file: readable, safe with two runs at once, and nothing lost when it is damaged."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minitransformer
from minitransformer.practice import progress

EMPTY = {"version": 1, "lessons": {}, "exercises": {}}


def test_reading_writes_nothing(folder):
    assert progress.read() == EMPTY
    assert list(folder.iterdir()) == []


def test_entries_are_merged_and_sorted():
    progress.record("exercises", "02.1", state="started", checks=progress.one_more)
    progress.record("exercises", "01.1", state="passed")
    progress.record("exercises", "02.1", state="passed", checks=progress.one_more)
    progress.record("lessons", "03", state="done")
    assert progress.read() == {
        "version": 1,
        "lessons": {"03": {"state": "done"}},
        "exercises": {"01.1": {"state": "passed"}, "02.1": {"state": "passed", "checks": 2}},
    }
    assert list(json.loads(progress.path().read_text(encoding="utf-8"))["exercises"]) == ["01.1", "02.1"]
    assert "\n" in progress.path().read_text(encoding="utf-8").strip()  # to be read by a person


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b'{"version": 1, "lessons": {', b"\xff\xfe\x00", b"[]", b"null", b'{"version": 2}', b"[" * 100_000,
     b'{"version": 1, "lessons": [], "exercises": {}}', b'{"version": 1, "lessons": {"01": 3}, "exercises": {}}'],
    ids=lambda b: repr(b[:20]),
)  # fmt: skip
def test_a_damaged_file_is_kept_and_said(damaged, caplog):
    progress.path().parent.mkdir()
    progress.path().write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert progress.read() == EMPTY
        assert progress.read() == EMPTY  # said once
    (message,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in message and "was kept as progress.unreadable-1.json" in message
    assert progress.path().with_name("progress.unreadable-1.json").read_bytes() == damaged
    progress.path().write_bytes(damaged)
    progress.record("lessons", "01", state="done")
    assert progress.path().with_name("progress.unreadable-2.json").read_bytes() == damaged  # over nothing
    assert progress.read()["lessons"] == {"01": {"state": "done"}}


def test_the_command_says_it_in_one_line(run):
    progress.path().parent.mkdir()
    progress.path().write_text("{ not JSON", encoding="utf-8")
    code, _, error = run("practice")
    assert code == 0 and error.count("\n") == 1 and error.startswith("warning: ") and "unreadable-1" in error


def test_what_cannot_be_written_is_a_warning(folder, caplog):
    (folder / "practice").write_text("a file where the folder should be", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        progress.record("lessons", "01", state="done")
    assert "could not be kept" in caplog.text


def test_processes_at_once_lose_nothing(folder):
    code = (
        "import sys\nfrom minitransformer.practice import progress\n"
        "for i in range(10): progress.record('exercises', '01.1', checks=progress.one_more, **{sys.argv[1]: i})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(minitransformer.__file__).parents[1])}
    runs = [subprocess.Popen([sys.executable, "-c", code, name], env=environment) for name in "abc"]
    assert [process.wait() for process in runs] == [0, 0, 0]
    assert progress.read()["exercises"]["01.1"] == {"checks": 30, "a": 9, "b": 9, "c": 9}
    assert sorted(p.name for p in progress.path().parent.iterdir()) == [".progress.lock", "progress.json"]
