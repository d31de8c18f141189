import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data import BPETokenizer, CharTokenizer
from minitransformer.inference import inspect
from minitransformer.visualization import explore

from ..models.helpers import small_gpt

TEXT = "the cat sat on the mat"


def read(text=TEXT, **sizes):
    tokenizer = CharTokenizer.train(TEXT)
    model = small_gpt(vocab_size=tokenizer.vocab_size, context=32, **sizes)
    ids = tokenizer.encode(text)
    return model, np.array(ids), inspect(model, tokenizer, ids)


def test_it_holds_what_the_page_shows():
    model, ids, view = read()
    T = len(ids)
    logits, maps = model(ids[None], capture_attention=True)
    assert np.array_equal(view.attention, np.stack(maps)[:, 0]) and view.labels == list(TEXT)
    assert {name: m.shape for name, m in view.maps.items()} == {
        "value-weighted norm": (2, 2, T, T), "gradient × attention": (2, 2, T, T), "relevance": (2, 1, T, T)
    }  # fmt: skip
    p = mt.softmax(logits).numpy()[0]
    lens = view.lens
    assert lens.names == ("input", "layer 0", "layer 1") and lens.probabilities.shape == (3, T, 5)
    np.testing.assert_allclose(lens.probabilities[-1], -np.sort(-p)[:, :5], rtol=1e-12)
    likeliest = CharTokenizer.train(TEXT).token_bytes(int(p[3].argmax())).decode()
    assert lens.tokens[-1][3][0] == likeliest
    page = explore(view.attention, view.labels, **view.beside)
    assert page.worst_error < 0.004


def test_norms_are_of_what_the_links_add_to_the_stream():
    """The sum of the links' vectors, and the bias, is what the layer adds; a norm is that of one link."""
    model, ids, view = read()
    recording = mt.nn.Recording()
    model(ids[None], capture_attention=recording)
    out, v = model.blocks[1].attention.output, recording.values[1][0]  # (H, T, d)
    parts = [out.weight.data[:, 8 * h : 8 * h + 8] for h in range(2)]
    links = np.stack([view.attention[1, h][:, :, None] * (v[h] @ parts[h].T) for h in range(2)])  # (H, T, T, D)
    np.testing.assert_allclose(view.maps["value-weighted norm"][1], np.linalg.norm(links, axis=-1), rtol=1e-10)
    added = model.blocks[1].attention(model.blocks[1].attention_norm(recording.streams[1]))
    np.testing.assert_allclose(links.sum(axis=(0, 2)) + out.bias.data, added.numpy()[0], rtol=1e-9, atol=1e-12)


def test_it_leaves_no_trace():
    tokenizer = CharTokenizer.train(TEXT)
    model = small_gpt(vocab_size=tokenizer.vocab_size, context=32, dropout=0.5)
    ids = np.array(tokenizer.encode(TEXT))
    model.loss(ids[None, :-1], ids[None, 1:]).backward()
    before, state = [p.grad.copy() for p in model.parameters()], model.generator.state_dict()
    first, second = (inspect(model, tokenizer, ids) for _ in range(2))
    assert all(np.array_equal(a, p.grad) for a, p in zip(before, model.parameters(), strict=True))
    frozen = inspect(model.requires_grad_(False), tokenizer, ids)
    assert not any(p.requires_grad for p in model.parameters())
    assert np.array_equal(frozen.maps["relevance"], first.maps["relevance"])
    assert model.training and model.generator.state_dict() == state
    assert all(np.array_equal(first.maps[name], second.maps[name]) for name in first.maps)


def test_short_and_wrong_input():
    _, _, view = read("t")
    assert list(view.maps) == ["value-weighted norm"] and explore(view.attention, view.labels, **view.beside)
    tokenizer = CharTokenizer.train(TEXT)
    model = small_gpt(vocab_size=tokenizer.vocab_size, context=32)
    with pytest.raises(ValueError, match=r"one sequence \(T,\), got shape \(1, 3\)"):
        inspect(model, tokenizer, np.zeros((1, 3), np.int64))
    with pytest.raises(ValueError, match="more than the context of 32"):
        inspect(model, tokenizer, np.zeros(33, np.int64))


def test_labels_are_the_text_and_parts_of_characters_are_named():
    tokenizer = BPETokenizer.train("ab ab ab", 257)
    model = small_gpt(vocab_size=tokenizer.vocab_size, context=32)
    assert inspect(model, tokenizer, tokenizer.encode(" é·")).labels == [" ", "é₁", "é₂", "·₁", "·₂"]
