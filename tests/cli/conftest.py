"""Runs commands in this process: exit code, stdout and stderr; and one small trained model for all tests."""

import pytest

from minitransformer.cli import main

SENTENCE = "the cat sat on the mat and the dog sat on the log. "
SMALL = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch", "4", "--evaluate-every", "4"]


@pytest.fixture
def wrong(run):
    """wrong(*arguments) -> the one line on stderr of a command that ends with exit code 2."""

    def call(*arguments):
        code, out, error = run(*arguments)
        assert code == 2, (code, out, error)
        assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n"), error
        assert "Traceback" not in out + error
        return error

    return call


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(SENTENCE * 40, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory, text):
    """The folder of a finished run of 8 steps."""
    folder = tmp_path_factory.mktemp("out") / "run"
    assert main(["train", "--text", str(text), "--steps", "8", "--out", str(folder), *SMALL]) == 0
    return folder
