"""The trainer: bit-exact resume, accumulation, validation, and what it does when things go wrong."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.training import CheckpointError, Trainer, TrainingConfig, find, last_run, load_model
from minitransformer.training.history import Log

from .conftest import SIZES, TEXT, new_trainer

# ---------------------------------------------------------------- resuming

RESUME = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.training.conftest import new_trainer
from minitransformer.training import find
trainer = new_trainer(sys.argv[1])
trainer.restore(find(sys.argv[1]))
trainer.run()
"""


@pytest.mark.parametrize("stop", [4, 5])  # at a validation, and between two
def test_resuming_in_a_new_process_continues_bit_for_bit(trainer, tmp_path, same, stop):
    """12 steps = `stop` steps, a checkpoint, another process, the rest: every array and every random state."""
    whole = trainer("whole")
    whole.run()
    trainer("parts").run(until=stop)
    assert find(tmp_path / "parts").info["step"] == stop
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", RESUME, str(tmp_path / "parts"), str(root)], check=True, cwd=root)
    expected, found = find(tmp_path / "whole"), find(tmp_path / "parts")
    same(found.tensors, expected.tensors)
    assert found.info == expected.info
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").open(encoding="utf-8")]
        for run in ("whole", "parts")
    ]
    for line in (*logs[0], *logs[1]):
        line.pop("tokens_per_second", None)
    assert logs[0] == logs[1]


def test_dropout_and_data_are_part_of_the_state(trainer, tmp_path, same):
    """The resumed half differs when the random state or the place in the data is not restored."""
    whole = trainer("whole")
    whole.run()
    trainer("parts").run(until=6)
    checkpoint = find(tmp_path / "parts")
    for forgotten in ("generators", "sampler"):
        other = trainer()
        fresh = {"generators": [{"key": 0, "offset": 0}], "sampler": other.sampler.state_dict()}[forgotten]
        checkpoint.info[forgotten], kept = fresh, checkpoint.info[forgotten]
        other.restore(checkpoint)
        other.run()
        checkpoint.info[forgotten] = kept
        assert not np.array_equal(other.history.loss[6:], whole.history.loss[6:])
        assert np.array_equal(other.history.loss[:6], whole.history.loss[:6])


def test_another_kernel_set_is_said(trainer, tmp_path, caplog):
    with kernels.use("numpy"):
        trainer("run").run(until=4)
    checkpoint = find(tmp_path / "run")
    checkpoint.info["kernels"] = "abacus"
    with caplog.at_level("WARNING"):
        trainer().restore(checkpoint)
    assert "abacus" in caplog.text and "not bit for bit" in caplog.text


def test_of_another_size_text_or_optimiser(trainer, tmp_path):
    trainer("run").run(until=4)
    checkpoint = find(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"of another size: .* is \(16,\) there and \(32,\)"):
        trainer(sizes={**SIZES, "width": 32}).restore(checkpoint)
    with pytest.raises(CheckpointError, match=r"of another size: blocks.1.* is absent there"):
        trainer(sizes={**SIZES, "layers": 2}).restore(checkpoint)
    with pytest.raises(CheckpointError, match="cannot be resumed here: the batches cannot be resumed"):
        trainer(text=TEXT[::-1]).restore(checkpoint)
    del checkpoint.info["optimizer"]
    with pytest.raises(CheckpointError, match="cannot be resumed here"):
        trainer().restore(checkpoint)


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("accumulation", [2, 4, 6])  # 4 cuts 6 rows unevenly
def test_accumulation_is_the_big_batch(accumulation):
    """One step's gradient in float64: equal up to rounding, whatever the parts."""
    gradients = []
    for parts in (1, accumulation):
        trainer = new_trainer(sizes={**SIZES, "dropout": 0.0}, accumulation=parts, clip=0)
        trainer.model.to("float64")
        trainer.train_step()
        gradients.append([p.grad for p in trainer.model.parameters()])
        losses = trainer.history.loss
    assert math.isfinite(losses[0])
    for one, several in zip(*gradients):
        scale = np.abs(one).max()
        assert scale > 0 and np.abs(one - several).max() <= 64 * np.finfo(np.float64).eps * max(scale, 1e-3)


def test_gradient_norm_is_recorded_before_clipping():
    free, clipped = new_trainer(clip=0), new_trainer(clip=1e-3)
    free.train_step()
    clipped.train_step()
    assert free.history.gradient_norm[0] == clipped.history.gradient_norm[0] > 1e-3
    norm = math.sqrt(sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in clipped.model.parameters()))
    assert norm == pytest.approx(1e-3, rel=1e-4)


def test_it_learns_and_measures():
    trainer = new_trainer(steps=120, sizes={**SIZES, "dropout": 0.0, "width": 32}, evaluate_every=60, batch_size=12)
    history = trainer.run()
    assert list(history.validation_step) == [0, 60, 120] and list(history.step) == list(range(1, 121))
    start, middle, end = history.validation_loss
    assert abs(start - math.log(trainer.model.config.vocab_size)) < 0.3
    assert end < middle < start and end < 1.5
    assert trainer.bits_per_character(end) == pytest.approx(end / math.log(2))  # one character a token
    assert history.lr.argmax() == 3 and history.lr[-1] < 0.05 * history.lr.max() + 1e-4


def test_bits_per_character_of_a_bpe_model():
    from minitransformer.data import BPETokenizer
    from minitransformer.training import assemble

    trainer = assemble(TEXT, BPETokenizer.train(TEXT, 300), TrainingConfig(steps=1), sizes=SIZES)
    ids = trainer.validation_ids
    assert trainer.characters_per_token == len(trainer.tokenizer.decode(ids)) / len(ids) > 1.5
    assert trainer.bits_per_character(1.0) == pytest.approx(1 / math.log(2) / trainer.characters_per_token)


def test_validation_changes_nothing(trainer):
    a, b = trainer(), trainer()
    for _ in range(3):
        b.validation_loss()
        assert b.validation_loss() == b.validation_loss()
        assert a.train_step() == b.train_step()


def test_seconds_end_the_run_early(trainer, tmp_path):
    run = trainer("run", steps=50)
    run.run(seconds=0.0)
    assert run.step == 1 and find(tmp_path / "run").info["validation_loss"] == run.history.validation_loss[-1]


# ---------------------------------------------------------------- when things go wrong


def test_ctrl_c_finishes_the_step_and_saves(trainer, tmp_path, same, monkeypatch):
    whole, run = trainer("whole"), trainer("run")
    whole.run()
    loss = run.model.loss

    def interrupted(ids, targets):
        if run.step == 5 and run.model.training:
            signal.raise_signal(signal.SIGINT)  # in the middle of step 6
        return loss(ids, targets)

    monkeypatch.setattr(run.model, "loss", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 6 of 12 and saved; --resume goes on"):
        run.run()
    assert signal.getsignal(signal.SIGINT) is before
    again = trainer("run")
    again.restore(find(tmp_path / "run"))
    assert again.step == 6
    again.run()
    same(again.model.state_dict(), whole.model.state_dict())


def test_a_second_ctrl_c_stops_at_once(trainer, tmp_path, monkeypatch):
    run = trainer("run")
    run.run(until=4)
    monkeypatch.setattr(run.model, "loss", lambda ids, targets: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt, match="stopped at once"):
        run.run()
    assert find(tmp_path / "run").info["step"] == 4


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(trainer, tmp_path, monkeypatch):
    run = trainer("run")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(t, _):
        if t.step == 8:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="earlier checkpoints are untouched"):
        run.run(on_evaluation=fill)
    monkeypatch.undo()
    assert find(tmp_path / "run").info["step"] == 4
    again = trainer("run")
    again.restore(find(tmp_path / "run"))
    again.run()
    assert again.step == 12


def test_a_diverging_run_says_so_and_keeps_its_weights(trainer):
    run = trainer()
    run.model.norm.weight.data[0] = np.nan
    before = run.model.state_dict()["token_embedding.weight"]
    with pytest.raises(RuntimeError, match="loss is nan at step 1: lower the learning rate"):
        run.run()
    assert np.array_equal(run.model.state_dict()["token_embedding.weight"], before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"lr": -1.0}, "lr must be a number of at least 0"),
        ({"lr": math.nan}, "lr must be a number of at least 0"),
        ({"accumulation": 13}, "at most batch_size = 12 parts"),
        ({"beta2": 1.0}, "must lie below 1"),
        ({"keep": True}, "keep must be an integer"),
    ],
)
def test_configuration_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def test_too_little_text():
    with pytest.raises(ValueError, match="a context of 8 needs at least 9 tokens"):
        new_trainer(text="short text, long enough to train but not to validate")


# ---------------------------------------------------------------- files beside the checkpoints


def test_run_leaves_log_and_curve(trainer, tmp_path):
    trainer("run").run()
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").open(encoding="utf-8")]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 4, 8, 12]
    assert (tmp_path / "run/loss.png").read_bytes().startswith(b"\x89PNG")


def test_log_rewinds_over_a_torn_line(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    with log:
        for step in (1, 2, 3):
            log.write(step=step, loss=math.inf if step == 2 else 0.5)
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    log.rewind(2)
    with log:
        log.write(step=3, loss=0.25)
    lines = [json.loads(line) for line in log.path.open(encoding="utf-8")]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.25}]


def test_load_model(trainer, tmp_path):
    run = trainer("a")
    run.run()
    os.utime(run.folder / "checkpoints/step-00000012.safetensors", ns=(10**18, 10**18))
    trainer("b").run(until=4)
    model, tokenizer, checkpoint = load_model(tmp_path / "a")
    assert not model.training and tokenizer == run.tokenizer and checkpoint.info["step"] == 12
    ids = np.array([tokenizer.encode("the fox")])
    with run.model.evaluating():
        assert np.array_equal(model(ids).data, run.model(ids).data)
    assert last_run(tmp_path) == tmp_path / "b"
    with pytest.raises(CheckpointError, match="no trained model"):
        last_run(tmp_path / "a")


def test_a_model_that_is_not_what_it_says(trainer, tmp_path):
    trainer("run").run(until=4)
    checkpoint = find(tmp_path / "run")
    checkpoint.info["model"]["config"]["width"] = 64
    with pytest.raises(CheckpointError, match="another size"):
        load_model(checkpoint)
    checkpoint.info["model"]["config"]["heads"] = 5
    with pytest.raises(CheckpointError, match=r"not usable: GPT: .*heads"):
        load_model(checkpoint)
    checkpoint.info["model"]["name"] = "__import__"
    with pytest.raises(CheckpointError, match="not of a GPT"):
        load_model(checkpoint)


def test_a_trainer_takes_any_model(trainer):
    """Only `loss`, `config` and Module's methods are asked for."""
    made = trainer()
    run = Trainer(made.model, made.sampler.ids, made.validation_ids, TrainingConfig(steps=2, batch_size=2))
    assert len(run.run()) == 2
