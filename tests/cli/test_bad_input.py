"""What goes wrong is told in one line, with exit code 2 (130 for Ctrl-C), and nothing is lost."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from minitransformer.cli import main

from .conftest import SENTENCE, SMALL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean `train`?"),
        (["--nonsense"], "unknown option --nonsense"),
        (["train", "--layers", "0"], "argument --layers: must be a positive integer, got '0'"),
        (["train", "--layers", "two"], "argument --layers: must be a positive integer, got 'two'"),
        (["train", "--heads", "3", "--width", "64"], "heads"),
        (["train", "--lr", "0"], "argument --lr: must be a number above 0, got '0'"),
        (["train", "--lr", "nan"], "must be a number above 0, got 'nan'"),
        (["train", "--dropout", "1"], "must be at least 0 and below 1"),
        (["train", "--seed", "-1"], "must be an integer in 0..2**64-1"),
        (["train", "--batch", "2", "--accumulation", "3"], "at most batch_size = 2 parts"),
        (["train", "--tokenizer", "words"], "invalid choice: 'words'"),
        (["train", "--vocab", "300"], "add --tokenizer bpe"),
        (["train", "--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["train", "--text", "nowhere.txt"], "no such file or folder: nowhere.txt"),
        (["train", "--kernels", "abacus"], "no kernel set named 'abacus'; known are numpy, native"),
        (["train", "--device", "gpu"], "no device named 'gpu'; known are cpu, cuda, cuda-emulated"),
        (["train", "--kernels", "nowhere.py"], "no such file: nowhere.py"),
        (["train", "--resume"], "there is no trained model in"),
        (["train", "--resume", "--out", "nowhere"], "no checkpoint at nowhere"),
        (["generate"], "there is no trained model in"),
        (["generate", "--model", "nowhere"], "no checkpoint at nowhere"),
        (["generate", "--temperature", "-1"], "must be a number of at least 0, got '-1'"),
        (["generate", "--top-k", "0"], "must be a positive integer"),
        (["generate", "--top-p", "1.5"], "must be a number above 0 and at most 1, got '1.5'"),
        (["attention"], "the following arguments are required: TEXT"),
        (["attention", "hello"], "train one first"),
        (["gradcheck", "nonsense"], "no op named 'nonsense'"),
        (["where", "sofmax"], "nothing is named 'sofmax' on any floor; close: softmax"),
        (["where"], "required: NAME"),
        (["learn", "-3"], "must be an integer, 0 or more, got '-3'"),
        (["learn", "first"], "must be an integer, 0 or more, got 'first'"),
    ],
)
def test_arguments(wrong, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in wrong(*arguments)
    assert list(tmp_path.iterdir()) == []  # what is wrong is found before anything is written


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"GIF89a\x00\x01", "is binary: NUL byte at offset 6"),
        ("Größe".encode("latin-1") * 50, "is not UTF-8: byte 0xf6 at offset 2"),
        (SENTENCE.encode(), "is too short: 51 characters, but a context of 64"),
    ],
)
def test_text_files(wrong, tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert message in wrong("train", "--text", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_tokens_of_many_characters(wrong, tmp_path, text):
    """Long enough as characters, too short once it is tokens."""
    message = wrong(
        "train", "--text", text, "--tokenizer", "bpe", "--vocab", 400, "--context", 200, "--out", tmp_path / "run"
    )
    assert "a context of 200 needs at least 201 tokens" in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def softmax(x:\n", "mine.py:1:"),
        ("import nothing_of_that_name\n", "mine.py:1: ModuleNotFoundError"),
        ("x = 1\n\ny = 1 / 0\n", "mine.py:3: ZeroDivisionError"),
        ("def soft_max(x, axis): ...\n", "mine defines no routine of the kernel contract"),
    ],
)
def test_kernel_files(wrong, tmp_path, source, message):
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    assert message in wrong("gradcheck", "softmax", "--kernels", path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def layer_norm_forward(x, *_):\n    y = 1\n    return y / 0\n", ":3 {}: ZeroDivisionError: division by zero"),
        ("\ndef layer_norm_forward(x):\n    return x\n", ":2 {}: TypeError: {}() takes 1 positional argument"),
        ("from operator import neg as layer_norm_forward\n", " {}: TypeError: "),
        ("def layer_norm_forward(*a):\n    import nowhere\n", ":2 {}: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_kernels_that_raise(wrong, text, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    expected = "error: mine.py" + message.replace("{}", "layer_norm_forward")
    assert wrong("train", "--text", text, *SMALL, "--kernels", "mine.py").startswith(expected)
    with pytest.raises(RuntimeError) as raised:
        main(["train", "--text", str(text), *SMALL, "--kernels", "mine.py", "--debug"])
    assert raised.value.__cause__ is not None


def test_names_of_runs(wrong, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "out/ holds no run" in wrong("generate", "--model", "cat")
    for name in ("cats", "dogs"):
        shutil.copytree(trained, tmp_path / "out" / name)
    os.utime(tmp_path / "out/cats/checkpoints/step-00000008.safetensors")
    for command in (["generate"], ["attention", "the"]):
        assert "no checkpoint at cat: " in (message := wrong(*command, "--model", "cat"))
        assert message.endswith("the runs in out/ are cats, dogs\n")


def test_prompts(wrong, trained):
    model = ["--model", trained]
    message = wrong("generate", *model, "--prompt", "the 你")
    assert "character 4 of the text, '你' (U+4F60), is not among the" in message and "`--tokenizer bpe`" in message
    assert "--prompt is empty" in wrong("generate", *model, "--prompt", "")
    assert "'Q'" in wrong("attention", *model, "the Q")
    assert "is 32 tokens long, but the model's context is 16" in wrong("attention", *model, "cat " * 8)
    assert "the text is empty" in wrong("attention", *model, "")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "text", "other sizes"])
def test_checkpoints(wrong, trained, tmp_path, damage):
    path = tmp_path / "step-00000008.safetensors"
    data = (trained / "checkpoints" / path.name).read_bytes()
    expected = "no checkpoint, or was cut short"
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "foreign":
        save_file({"weight": np.zeros(3)}, path)
        expected = "no checkpoint of minitransformer"
    elif damage == "text":
        path.write_text("not a checkpoint at all", encoding="utf-8")
    else:
        from minitransformer.training import checkpoints

        found = checkpoints.read(trained / "checkpoints" / path.name)
        info = {**found.info, "model": {"name": "GPT", "config": {**found.info["model"]["config"], "layers": 2}}}
        checkpoints.write(tmp_path, 8, found.tensors, info)
        expected = "of another size: blocks.1."
    for command in (["generate"], ["attention", "the"]):
        message = wrong(*command, "--model", path)
        assert expected in message and str(path) in message


def test_a_damaged_newest_checkpoint_costs_a_line(run, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "checkpoints/step-00000008.safetensors").write_bytes(b"")
    code, out, error = run("generate", "--model", folder, "--prompt", "the ", "--tokens", 5)
    assert code == 0 and out.startswith("the ")
    warning, source = error.splitlines()
    assert warning.startswith("warning: ") and "going back to step-00000004" in warning
    assert source.endswith("step-00000004.safetensors, step 4")


def test_runs_are_not_mixed(wrong, trained):
    assert "holds a run already: add --resume" in wrong("train", "--out", trained)
    resume = ["train", "--resume", "--out", trained]
    assert "--width 32 is not the run's, 16: leave it out" in wrong(*resume, "--width", 32)
    assert "is finished (8 steps): give more --steps" in wrong(*resume)
    assert "leave them out to resume" in wrong(*resume, "--steps", 20, "--tokenizer", "bpe")


def test_out_that_is_no_folder(wrong, trained, tmp_path, text, monkeypatch):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "is a file" in wrong("train", "--text", text, *SMALL, "--out", tmp_path / "file")
    assert "file" in wrong("train", "--text", text, *SMALL, "--out", tmp_path / "file" / "run")
    assert "file" in wrong("tour", "--quick", "--out", tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    for out in ("file/run", "file/a/b"):  # in the words that were typed
        assert out in wrong("train", "--text", text, *SMALL, "--out", out)
        assert out in wrong("attention", "the", "--model", trained, "--out", out)
        assert f"{out}.html" in wrong("attention", "the", "--model", trained, "--out", f"{out}.html")


def test_full_disk(run, text, tmp_path, monkeypatch):
    """The disk fills up at the second checkpoint: one line, the first is kept, and the run goes on from it."""
    real, count = os.fsync, []

    def fsync(handle):
        count.append(handle)
        if len(count) > 2:  # a checkpoint is two: the file, the folder
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    arguments = ["train", "--text", text, "--steps", 8, "--out", tmp_path / "run", *SMALL]
    code, _, error = run(*arguments)
    assert code == 2 and error.count("\n") == 1
    assert "step-00000008.safetensors: No space left on device; earlier checkpoints are untouched" in error
    monkeypatch.undo()
    code, out, error = run("train", "--resume", "--out", tmp_path / "run")
    assert (code, error) == (0, "") and "after step 4" in out


@pytest.mark.parametrize("out", [[], ["--out", "./here"]])
def test_full_disk_in_the_log(wrong, text, tmp_path, monkeypatch, out):
    """A write that fails after the file was opened: its OSError holds no name."""

    def write(log, **values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minitransformer.training.history.Log.write", write)
    message = wrong("train", "--text", text, *SMALL, *out)
    assert message == f"error: cannot write {out[1] if out else 'out'}: No space left on device\n"


def test_ctrl_c_while_it_writes(run, trained, monkeypatch):
    def interrupted(*_, **options):
        yield 0
        raise KeyboardInterrupt

    monkeypatch.setattr("minitransformer.inference.generate", interrupted)
    code, out, error = run("generate", "--model", trained, "--prompt", "the")
    assert code == 130 and out.startswith("the") and out.endswith("\n")
    assert error.splitlines()[-1].startswith("interrupted: ")


def test_ctrl_c(run, text, tmp_path, monkeypatch):
    from minitransformer.models import GPT

    real = GPT.loss

    def interrupted(model, ids, targets):
        signal.raise_signal(signal.SIGINT)
        return real(model, ids, targets)

    monkeypatch.setattr(GPT, "loss", interrupted)
    code, _, error = run("train", "--text", text, "--out", tmp_path / "run", *SMALL)
    assert code == 130 and error.startswith("interrupted: ") and error.count("\n") == 1


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="no op named"):
        main(["gradcheck", "nonsense", "--debug"])


# ---------------------------------------------------------------- as a process


def start(*arguments, **options):
    command = [sys.executable, "-m", "minitransformer", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **options
    )


def test_exit_code_of_the_process(tmp_path):
    process = start("train", "--layers", "0", cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert error.count("\n") == 1 and error.startswith("error: argument --layers")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a group")
def test_ctrl_c_of_a_training_process(tmp_path, text):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = start("train", "--text", text, "--steps", 1_000_000, "--out", tmp_path / "run", *SMALL, env=env)
    checkpoints = tmp_path / "run" / "checkpoints"
    for _ in range(600):
        if list(checkpoints.glob("step-*")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("interrupted: stopped after step") and error.count("\n") == 1
    from minitransformer.training import find

    step = find(tmp_path / "run").info["step"]
    assert f"step {step:,} of 1,000,000 and saved" in error
