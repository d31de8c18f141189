"""Embeddings: the mean over real tokens, whatever the batch; and MiniLM's own, against NumPy in float64."""

import math

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator
from minitransformer.data import WordPieceTokenizer
from minitransformer.inference import embed, embedding
from minitransformer.models import BERT, BERTConfig
from minitransformer.weights import CATALOGUE, open_safetensors
from minitransformer.weights.download import kept

TEXTS = ["the cat", "sat on the mat, the cat", "", "on " * 30, "the mat sat"]
TOKENIZER = WordPieceTokenizer.train(" ".join(TEXTS) * 2, 40)
MINILM = kept(CATALOGUE["minilm"])


@pytest.fixture(scope="module")
def model():
    made = BERT(BERTConfig(TOKENIZER.vocab_size, 20, 2, 2, 16, 20), Generator(0))
    for i, parameter in enumerate(made.parameters()):
        parameter.data += Generator(i).normal(parameter.shape, std=0.3)
    return made


def test_the_mean_of_the_tokens_of_length_one(model):
    found = embed(model, TOKENIZER, TEXTS)
    assert found.shape == (5, 16) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    raw = embed(model, TOKENIZER, TEXTS, normalize=False)
    with model.evaluating():
        for text, row in zip(TEXTS, raw):
            ids, _ = TOKENIZER.sequence(text, most=20)  # the model's context
            np.testing.assert_allclose(row, model(np.array([ids])).numpy()[0].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), found, rtol=1e-6)


@pytest.mark.parametrize("tokens", [1, 30, 4096])
def test_neighbours_change_nothing(model, tokens, monkeypatch):
    alone = np.concatenate([embed(model, TOKENIZER, [text]) for text in TEXTS])
    monkeypatch.setattr(embedding, "TOKENS", tokens)
    np.testing.assert_allclose(embed(model, TOKENIZER, TEXTS), alone, atol=1e-5)
    np.testing.assert_allclose(embed(model, TOKENIZER, TEXTS[::-1])[::-1], alone, atol=1e-5)


def test_cut_to_so_many_tokens(model):
    short = embed(model, TOKENIZER, ["on on", "on " * 9], max_tokens=4)
    assert np.array_equal(short[0], short[1])


def test_the_model_stays_as_it_was(model):
    model.train()
    embed(model, TOKENIZER, ["the cat"])
    assert model.training and embed(model, TOKENIZER, []).shape == (0, 16)


@pytest.mark.parametrize("texts", ["the cat", [b"the cat"], [1]])
def test_what_is_no_list_of_texts(model, texts):
    with pytest.raises(TypeError, match="must be a list of strings"):
        embed(model, TOKENIZER, texts)


# ---------------------------------------------------------------- the real model, where it is here


SENTENCES = ["A cat sits on the mat.", "Ein Kätzchen ruht; 猫が座る 🙂", "", "The market fell.", "word " * 300]


def by_numpy(tensors, ids, layers=6, heads=12):
    """MiniLM in float64, from the names in its file: a text's ids -> its vector."""
    w = {name: tensors.array(name).astype(np.float64) for name in tensors.shapes if "position_ids" not in name}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    table = {one: w[f"embeddings.{one}_embeddings.weight"] for one in ("word", "position", "token_type")}
    x = norm(table["word"][ids] + table["position"][: len(ids)] + table["token_type"][0], "embeddings.LayerNorm")
    for i in range(layers):
        name = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{one}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for one in ("query", "key", "value")
        )
        p = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        o = (p / p.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(o, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        h = linear(x, f"{name}.intermediate.dense")
        h = h * (1 + np.vectorize(math.erf)(h / math.sqrt(2))) / 2
        x = norm(x + linear(h, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    x = x.mean(0)
    return x / np.linalg.norm(x)


@pytest.mark.skipif(MINILM is None, reason="MiniLM is not here: `minitransformer models minilm` gets it")
def test_minilm_against_numpy_in_float64():
    model, tokenizer = mt.load("minilm")
    tensors = open_safetensors(MINILM)
    found = embed(model, tokenizer, SENTENCES)
    for text, row in zip(SENTENCES, found):
        expected = by_numpy(tensors, tokenizer.sequence(text, most=256)[0])
        assert 1 - expected @ row.astype(np.float64) / np.linalg.norm(row.astype(np.float64)) < 1e-10
        np.testing.assert_allclose(row, expected, atol=1e-6)
    cat, kitten, market = embed(model, tokenizer, ["A cat sits here.", "A kitten rests there.", "The market fell."])
    assert cat @ kitten > 0.5 > 0.3 > cat @ market
