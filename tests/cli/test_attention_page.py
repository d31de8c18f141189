"""`minitransformer attention` writes a page that opens from disk: one model, two models, the steps of a run."""

import base64
import json
import re
import shutil
import zlib

import numpy as np
import pytest

from minitransformer.training import load_model

from .conftest import SENTENCE, SMALL

TEXT = "the cat sat"


def meta(path):
    """What the page says about itself."""
    block = re.search(r'id="meta">([^<]*)<', path.read_text(encoding="utf-8"))[1]
    return json.loads(zlib.decompress(base64.b64decode(block)))


def test_the_page(run, trained, tmp_path):
    page = tmp_path / "look" / "heads.html"
    code, out, error = run("attention", *TEXT.split(), "--model", trained, "--out", page, "--grid")
    assert (code, error) == (0, "") and "heads.html" in out
    assert sorted(p.name for p in page.parent.iterdir()) == ["heads", "heads.html"]
    assert [p.name for p in page.with_suffix("").iterdir()] == ["heads.png"]
    held = meta(page)
    assert [s["name"] for s in held["sources"]] == [
        "attention", "rollout", "value-weighted norm", "gradient × attention", "relevance"
    ]  # fmt: skip
    assert held["query"]["labels"] == list(TEXT.replace(" ", "␣")) and held["caption"].startswith("run, step 8")
    assert held["lens"]["names"] == ["input", "layer 0"]
    assert "induction" in held["sources"][0]["statistics"]


def test_two_models(run, trained, tmp_path):
    page = tmp_path / "both.html"
    older = trained / "checkpoints" / "step-00000004.safetensors"
    code, _, error = run("attention", TEXT, "--model", trained, "--versus", older, "--out", page, "--grid")
    assert (code, error) == (0, "")
    held = meta(page)
    assert [s["name"] for s in held["sources"][:2]] == ["run, step 8", "run, step 4"]
    distances = np.array(held["sources"][0]["statistics"]["JS divergence"])
    assert distances.shape == (1, 2) and (0 < distances).all() and (distances < 1).all()
    assert {"value-weighted norm of A", "relevance of B"} <= {s["name"] for s in held["sources"]}


def test_steps_of_a_run(run, trained, tmp_path):
    page = tmp_path / "steps.html"
    assert run("attention", TEXT, "--model", trained, "--steps", "--out", page, "--grid")[0] == 0
    held = meta(page)
    assert [(s["kind"], s["step"]) for s in held["sources"][:2]] == [("step", 4.0), ("step", 8.0)]
    assert held["start"]["source"] == 1  # the last
    expected = load_model(trained)[0]
    assert held["caption"].endswith(f"{expected.config.layers} layers of 2 heads, width 16")


def test_a_folder_or_a_run_by_name(run, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "out" / "cats")
    assert run("attention", "the", "--model", "cats", "--grid")[0] == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"cats", "attention", "attention.html"}
    assert run("attention", "the", "--out", ".", "--grid")[0] == 0
    assert (tmp_path / "attention.html").is_file() and (tmp_path / "heads.png").is_file()


def test_one_token(run, trained, tmp_path):
    page = tmp_path / "one.html"
    assert run("attention", "t", "--model", trained, "--out", page, "--grid")[0] == 0
    assert [s["name"] for s in meta(page)["sources"]] == ["attention", "rollout", "value-weighted norm"]


@pytest.fixture
def words(run, tmp_path):
    """A model with a tokenizer of its own."""
    text, folder = tmp_path / "words.txt", tmp_path / "words"
    text.write_text(SENTENCE * 20, encoding="utf-8")
    arguments = ["--text", text, "--tokenizer", "bpe", "--vocab", 260, "--steps", 1, "--out", folder, *SMALL]
    assert run("train", *arguments)[0] == 0
    return folder


def test_what_cannot_be_compared(wrong, trained, words, tmp_path):
    model = ("--model", trained)
    message = wrong("attention", "the", *model, "--versus", words)
    assert "words has another tokenizer than" in message
    assert "`train --text FILE --tokenizer bpe`" in message and "two checkpoints of one run" in message
    assert "not both" in wrong("attention", "the", *model, "--versus", words, "--steps")
    assert "--steps needs several checkpoints" in wrong("attention", "the", "--model", words, "--steps")
    assert "no checkpoint at" in wrong("attention", "the", *model, "--versus", tmp_path / "nowhere")
