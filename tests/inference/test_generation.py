import itertools

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator
from minitransformer.inference import generate, generate_text

from ..models.helpers import small_gpt

PROMPT = [3, 1, 4, 1, 5]


def tokens(model, prompt=PROMPT, n=40, **options):
    return list(generate(model, prompt, n, **options))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.2}, {"top_k": 4}, {"top_p": 0.7}])
def test_with_and_without_cache_the_text_is_the_same(options):
    """40 tokens through a context of 12: the window moves on several times."""
    model = small_gpt()
    cached = tokens(model, generator=Generator(5), **options)
    assert cached == tokens(model, generator=Generator(5), use_cache=False, **options)
    assert len(cached) == 40 and all(0 <= t < 11 for t in cached) and len(set(cached)) > 1


def test_greedy_is_the_argmax_of_the_full_forward():
    model = small_gpt()
    text = PROMPT + tokens(model, n=7, temperature=0)
    for t in range(len(PROMPT), 12):
        assert text[t] == model(np.array([text[:t]])).numpy()[0, -1].argmax()


def test_a_full_window_keeps_its_newer_half():
    """What the model reads before each token: all of the text up to 12 tokens, then 6 to 12 of its end."""
    model, read = small_gpt(), []
    forward = model.forward
    model.forward = lambda ids, *rest, **options: read.append(ids[0].tolist()) or forward(ids, *rest, **options)
    text = PROMPT + tokens(model, n=20, use_cache=False)
    starts = [0] * 8 + [7] * 7 + [14] * 5  # before token 5 .. 24
    assert read == [text[start:end] for start, end in zip(starts, range(5, 25))]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_prompt_longer_than_the_context_counts_by_its_end(use_cache):
    model = small_gpt()
    prompt = Generator(1).integers(0, 11, 30)
    assert tokens(model, prompt, 5, temperature=0, use_cache=use_cache) == tokens(model, prompt[-12:], 5, temperature=0)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_context_of_one_token(use_cache):
    model = small_gpt(context=1)
    found = tokens(model, [2], 6, temperature=0, use_cache=use_cache)
    for before, after in itertools.pairwise([2, *found]):
        assert after == model(np.array([[before]])).numpy()[0, -1].argmax()


def test_the_seed_decides():
    model = small_gpt()
    assert tokens(model, generator=Generator(1)) == tokens(model, generator=Generator(1))
    assert tokens(model, generator=Generator(1)) != tokens(model, generator=Generator(2))
    assert tokens(model) == tokens(model, generator=Generator(0))


def test_a_stop_token_ends_the_text_and_is_not_in_it():
    model = small_gpt()
    whole = tokens(model)
    stop = whole[10]
    assert tokens(model, stop={stop}) == whole[: whole.index(stop)]


def test_it_is_a_stream():
    """One forward a token, when it is asked for; between two tokens the model is as its owner left it."""
    model = small_gpt(dropout=0.5)
    calls, forward = [], model.forward
    model.forward = lambda ids, *rest, **options: calls.append(ids.shape) or forward(ids, *rest, **options)
    stream = generate(model, PROMPT, 5)
    assert calls == []
    next(stream)
    assert calls == [(1, 5)] and model.training and model.dropout.training and mt.is_grad_enabled()
    next(stream)
    assert calls == [(1, 5), (1, 1)]
    assert model.generator.offset == small_gpt(dropout=0.5).generator.offset  # dropout drew nothing
    assert list(generate(model, PROMPT, 0)) == []


def test_text_in_text_out():
    class Letters:
        def encode(self, text):
            return ["abcdefghijk".index(c) for c in text]

        def decode(self, ids):
            return "".join("abcdefghijk"[i] for i in ids)

    model = small_gpt()
    text = generate_text(model, Letters(), "face", 20, temperature=0.5, generator=Generator(3))
    assert text == "face" + Letters().decode(tokens(model, [5, 0, 2, 4], 20, temperature=0.5, generator=Generator(3)))
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_text(model, Letters(), "", 5)


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ([], {}, ValueError, "one or more token ids"),
        ([[1, 2]], {}, ValueError, r"one or more token ids, got shape \(1, 2\)"),
        ([1.5], {}, ValueError, "of float64"),
        ([11], {}, IndexError, r"ids in 11\.\.11, the model knows 0\.\.10"),
        ([-1], {}, IndexError, r"ids in -1\.\.-1"),
        (PROMPT, {"max_new_tokens": -1}, ValueError, "max_new_tokens must not be negative, got -1"),
        (PROMPT, {"top_k": 0}, ValueError, "top_k"),
        (PROMPT, {"temperature": -1.0}, ValueError, "temperature"),
    ],
)
def test_bad_input_is_refused_before_the_first_token(prompt, options, error, message):
    with pytest.raises(error, match=message):
        generate(small_gpt(), prompt, **{"max_new_tokens": 3, **options})  # not iterated over
