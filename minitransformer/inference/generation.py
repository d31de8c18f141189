"""Generation: feed the model what it wrote.

Positions are learned for a window of `context` tokens. A longer text moves on in jumps: when the window is full, its
older half is forgotten, and the newer half becomes positions 0, 1, … of the next window. Keys depend on positions, so
the cache starts anew there; in between each token costs one position of work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from ..graph import no_grad
from ..random import Generator
from ..tensor import tensor
from .sampling import check_options, probabilities, sample

__all__ = ["generate", "generate_text"]


def generate(
    model, ids, max_new_tokens: int, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    generator: Generator | None = None, use_cache: bool = True, stop: Collection[int] = (), cache=None,
) -> Iterator[int]:  # fmt: skip
    """Yield up to max_new_tokens tokens that continue the prompt `ids`, each as soon as it is known.

    model: callable as `model(ids (1, T), cache, last_only=True)` -> logits (1, 1, V), with `config.context`,
    `new_cache()` and `device`, to which the tokens go and from which the logits come; it is put into evaluation mode
    for each step, and back. temperature, top_k, top_p: see `sampling.probabilities`. generator: `Generator(0)` unless
    given; the same state gives the same tokens.
    use_cache: False computes the whole window for each token, which gives the same text more slowly.
    stop: token ids that end the text and are not part of it.
    cache: a `KVCache` whose tokens come before the prompt; the prompt and what is written join them, all but the last
    token. Then nothing moves on: a text that fills the context, or the cache, ends.
    Raises ValueError, at once, for an empty prompt, for options out of range, and for a prompt that does not fit behind
    the cache; IndexError for an id outside 0..V-1.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise ValueError(f"generate: the prompt must be one or more token ids, got shape {ids.shape} of {ids.dtype}")
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must not be negative, got {max_new_tokens}")
    if ids.min() < 0 or ids.max() >= model.config.vocab_size:
        known = f"the model knows 0..{model.config.vocab_size - 1}"
        raise IndexError(f"generate: the prompt has ids in {ids.min()}..{ids.max()}, {known}")
    check_options(temperature, top_k, top_p)
    generator = Generator(0) if generator is None else generator

    def choose(logits):
        return int(sample(probabilities(logits[0, -1].to("cpu"), temperature, top_k, top_p), generator))

    if cache is not None:
        room = min(model.config.context, cache.capacity) - cache.length
        if len(ids) > room:
            raise ValueError(
                f"generate: {len(ids)} tokens do not fit behind the {cache.length} in the cache: {room} do"
            )
        return _continue(model, ids.tolist(), max_new_tokens, choose, cache, room, frozenset(stop))
    return _stream(model, ids.tolist(), max_new_tokens, choose, use_cache, frozenset(stop))


def _stream(model, tokens, max_new_tokens, choose, use_cache, stop):
    context = model.config.context
    window = tokens[-context:]
    cache = model.new_cache() if use_cache else None
    for _ in range(max_new_tokens):
        if len(window) > context:
            window = window[-max(1, context // 2) :]
            if use_cache:
                cache.truncate()
        new = window[cache.length :] if use_cache else window
        with model.evaluating():  # never around the yield: the caller may train between two tokens
            logits = model(tensor([new]).to(model.device), cache, last_only=True)
        token = choose(logits)
        if token in stop:
            return
        window.append(token)
        yield token


def _continue(model, new, max_new_tokens, choose, cache, room, stop):
    still = not any(module.training for module in model.modules())  # asked once: such a walk takes long
    for _ in range(min(max_new_tokens, room - len(new) + 1)):
        with no_grad() if still and not model.training else model.evaluating():
            logits = model(tensor([new]).to(model.device), cache, last_only=True)
        token = choose(logits)
        if token in stop:
            return
        new = [token]
        yield token


def generate_text(model, tokenizer, prompt: str, max_new_tokens: int, **options) -> str:
    """The prompt and its continuation as text; options are those of `generate`."""
    ids = tokenizer.encode(prompt)
    if len(ids) == 0:
        raise ValueError("generate_text: the prompt is empty; give it at least one character")
    return tokenizer.decode([*ids, *generate(model, ids, max_new_tokens, **options)])
