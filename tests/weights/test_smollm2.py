"""The real SmolLM2, where it has been fetched: the exact path's greedy tokens are those of float64."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.inference import Chat
from minitransformer.weights import CATALOGUE
from minitransformer.weights.download import kept

from .greedy_tokens import PROMPTS, Float64Llama, first_difference, greedy

PATH = kept(CATALOGUE["smollm2"])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PATH is None, reason="SmolLM2 is not here: `minitransformer models smollm2` gets it"),
]


@pytest.fixture(scope="module")
def smollm2():
    return mt.load("smollm2")


def test_greedy_tokens_are_those_of_float64(smollm2):
    reference = Float64Llama(PATH)
    for prompt in PROMPTS[:3]:
        ids, tokens = greedy(*smollm2, prompt, 60)
        assert first_difference(reference, ids, tokens)[0] is None, prompt
    tokens[30] = (tokens[30] + 1) % 49152
    assert first_difference(reference, ids, tokens)[0] == 30, "the check sees a wrong token"


def test_it_knows_what_was_said(smollm2):
    """The second answer needs the first question, which is only in the cache."""
    chat = Chat(*smollm2, temperature=0.0, max_new_tokens=40)
    assert "Paris" in "".join(chat.say("What is the capital of France?"))
    answer = "".join(chat.say("And of Italy?"))
    assert "Rome" in answer and chat.last.read < 20
    fresh = np.array([chat.ids[: chat.cache.length]])
    with chat.model.evaluating():
        full = chat.model(fresh, last_only=True).numpy()
        chat.cache.truncate(chat.cache.length - 1)
        kept_logits = chat.model(fresh[:, -1:], chat.cache, last_only=True).numpy()
    np.testing.assert_allclose(kept_logits, full, atol=2e-3)
