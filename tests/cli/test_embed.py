"""minitransformer embed: a table for people, JSON and a NumPy file for programs."""

import io
import json

import numpy as np
import pytest

from minitransformer import Generator, load
from minitransformer.cli import main
from minitransformer.data import WordPieceTokenizer
from minitransformer.inference import embed
from minitransformer.models import BERT, GPT, BERTConfig, GPTConfig
from minitransformer.weights import save_folder

TOKENIZER = WordPieceTokenizer.train("the cat sat on the mat", 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("a bert")
    save_folder(BERT(BERTConfig(TOKENIZER.vocab_size, 20, 2, 2, 16, 20), Generator(0)), path, TOKENIZER)
    return str(path)


def test_a_table_of_cosines(folder, capsys):
    assert main(["embed", "--model", folder, "the cat", "the mat sat\x1b[31m"]) == 0
    out = capsys.readouterr().out
    assert "the cat" in out and out.count("1.00") >= 2 and "\x1b[31m" not in out


def test_json_and_a_file(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\nsat on\n"))
    assert main(["embed", "--model", folder, "--json", "--out", str(tmp_path / "x.npy")]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = embed(*load(folder), ["the cat", "sat on"])
    assert found["sentences"] == ["the cat", "sat on"]
    np.testing.assert_allclose(found["vectors"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["cosines"], expected @ expected.T, rtol=1e-5)
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)


def test_many_sentences_show_what_is_most_alike(folder, capsys):
    assert main(["embed", "--model", folder, *["cat " * n for n in range(1, 14)]]) == 0
    assert "most like it" in capsys.readouterr().out


def test_what_is_wrong_is_one_line(folder, capsys, tmp_path, monkeypatch):
    save_folder(GPT(GPTConfig(TOKENIZER.vocab_size, 8, 1, 1, 8)), tmp_path, TOKENIZER)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for arguments, said in {
        ("--model", folder): "nothing to embed",
        ("--model", str(tmp_path), "x"): "is no BERT with its tokenizer",
        ("--model", "minilmm", "x"): "did you mean 'minilm'?",
        ("--model", folder, "x", "--out", "a.txt"): "--out must name a .npy file",
        ("--model", folder, "x", "--tokens", "0"): "must be a positive integer",
        ("--model", folder, "x", "--out", str(tmp_path / "no" / "a.npy")): "No such file or directory",
        ("--model", folder, "x", "--tokens", "1"): "most must be at least 2",
    }.items():
        assert main(["embed", *arguments]) == 2, arguments
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, arguments
