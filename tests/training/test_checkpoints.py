"""Checkpoint files: whole or not at all, verified to the last byte, and never the last good one lost."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitransformer.training import checkpoints
from minitransformer.training.checkpoints import CheckpointError, describe, latest, paths, prune, read, write

TENSORS = {
    "model.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "model.empty": np.zeros((0, 3), np.float64),
    "history.step": np.arange(5),
}


def test_what_is_written_comes_back(tmp_path, same):
    path = write(
        tmp_path, 7, {**TENSORS, "model.view": TENSORS["model.weight"].T[::-1]}, {"note": "naïve ✓", "x": [1, None]}
    )
    found = read(path)
    same(found.tensors, {**TENSORS, "model.view": TENSORS["model.weight"].T[::-1]})
    assert (found.info["step"], found.info["note"], found.info["x"]) == (7, "naïve ✓", [1, None])
    assert found.part("model.").keys() == {"weight", "empty", "view"}
    assert describe(path) == found.info
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000007.safetensors"]


def test_a_file_has_the_same_bytes_when_written_again(tmp_path):
    a, b = (write(tmp_path / name, 1, TENSORS, {"k": 1}).read_bytes() for name in "ab")
    assert a == b


def test_newest_is_by_step_not_by_name_or_time(tmp_path):
    for step in (5, 100_000_000, 20):
        write(tmp_path, step, TENSORS, {})
    assert latest(tmp_path).info["step"] == 100_000_000
    assert [read(p).info["step"] for p in paths(tmp_path)] == [5, 20, 100_000_000]


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated(tmp_path, keep):
    path = write(tmp_path, 1, TENSORS, {})
    data = path.read_bytes()
    cut = keep if isinstance(keep, int) else int(keep * len(data))
    path.write_bytes(data[:cut])
    with pytest.raises(CheckpointError, match="cut short") as error:
        read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_any_changed_byte_is_noticed(tmp_path):
    path = write(tmp_path, 1, TENSORS, {"note": "x" * 40})
    data = path.read_bytes()
    rng = random.Random(0)
    for position in {8, len(data) - 1, *rng.sample(range(len(data)), 60)}:
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = read(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        # The one change that may pass: white space at the end of the header, which says nothing.
        path.write_bytes(data)
        assert found.info == read(path).info and data[position : position + 1] == b" "


def test_foreign_files(tmp_path):
    path = tmp_path / "step-00000001.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match="no checkpoint of minitransformer"):
        read(path)
    save_file(TENSORS, path, metadata={"minitransformer": "0" * 64 + " {}"})
    with pytest.raises(CheckpointError, match="damaged or was edited"):
        read(path)
    path.write_bytes(b"PK\x03\x04 a zip file, as pickled weights are")
    with pytest.raises(CheckpointError, match="no checkpoint, or was cut short"):
        read(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="train a model first"):
        latest(tmp_path / "empty")


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    path = write(tmp_path, 1, TENSORS, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="version 2; this release reads version 1"):
        read(path)


def test_falls_back_to_the_previous_good_one_and_says_so(tmp_path, caplog):
    for step in (10, 20, 30):
        newest = write(tmp_path, step, TENSORS, {})
    newest.write_bytes(newest.read_bytes()[:-3])
    (tmp_path / "step-00000020.safetensors").write_bytes(b"")
    with caplog.at_level("WARNING"):
        assert latest(tmp_path).info["step"] == 10
    assert "step-00000030" in caplog.text and "going back to step-00000010" in caplog.text
    (tmp_path / "step-00000010.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        latest(tmp_path)


def test_keeps_the_last_and_the_best(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: 2.5, 6: 2.4}
    for step, loss in losses.items():
        path = write(tmp_path, step, TENSORS, {"validation_loss": loss})
    damaged = tmp_path / "step-00000003.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:10])
    prune(tmp_path, 2, written=path)
    assert [int(p.name[5:13]) for p in paths(tmp_path)] == [2, 3, 5, 6]  # the damaged one is not ours to judge
    early = write(tmp_path, 1, TENSORS, {"validation_loss": 9.0})
    prune(tmp_path, 1, written=early)
    assert early.exists()


# ---------------------------------------------------------------- what goes wrong during a write


class Stop(BaseException):
    """Stands for Ctrl-C and for anything else that is no Exception."""


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), Stop()])
def test_a_failed_write_loses_nothing(tmp_path, monkeypatch, function, fault, same):
    write(tmp_path, 1, TENSORS, {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise fault

    if function == "write":
        monkeypatch.setattr("builtins.open", lambda *args, **kwargs: FullFile(fault))
    else:
        monkeypatch.setattr(os, function, fail)
    for step in (1, 2):  # over an earlier file, and beside it
        expected = OSError if isinstance(fault, OSError) else type(fault)
        with pytest.raises(expected) as error:
            write(tmp_path, step, {"model.weight": np.zeros(3)}, {})
        if isinstance(fault, OSError):
            assert error.value.errno == errno.ENOSPC and "No space left" in str(error.value)
            assert "earlier checkpoints are untouched" in str(error.value)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    same(latest(tmp_path).tensors, TENSORS)


class FullFile:
    """A file whose disk is full."""

    def __init__(self, fault):
        self.fault = fault

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def write(self, data):
        raise self.fault


def test_a_left_over_of_a_killed_process_is_removed(tmp_path):
    (tmp_path / ".step-00000001.safetensors.partial").write_bytes(b"half")
    write(tmp_path, 2, TENSORS, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002.safetensors"]


WRITER = """
import sys
import numpy as np
from minitransformer.training.checkpoints import prune, write
for step in range(1, 10_000):
    path = write(sys.argv[1], step, {"model.weight": np.full(500_000, step, np.float32)}, {"validation_loss": -step})
    print(step, flush=True)
    prune(sys.argv[1], 2, written=path)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_at_random_points(tmp_path):
    """After SIGKILL the newest checkpoint is one that was announced, or the one after it, and whole."""
    rng = random.Random(1)
    for trial in range(4):
        folder = tmp_path / str(trial)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        announced = [int(process.stdout.readline())]
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        announced += [int(line) for line in process.stdout]
        process.wait()
        process.stdout.close()
        found = latest(folder)
        assert found.info["step"] in (announced[-1], announced[-1] + 1)
        assert (found.tensors["model.weight"] == found.info["step"]).all()
        for path in paths(folder):
            read(path)
