"""A dialogue: what the model reads is what the template says, each token once."""

import numpy as np
import pytest

from minitransformer import Generator
from minitransformer.inference import Chat
from minitransformer.tensor import as_tensor
from minitransformer.weights import load

from ..weights import tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load(tiny_llama.write(tmp_path_factory.mktemp("chat") / "tiny.gguf", "q8_0"))


def watched(model, monkeypatch):
    """What the model is fed, call by call."""
    fed, forward = [], model.forward

    def watch(ids, *rest, **options):
        fed.append(as_tensor(ids).numpy()[0].tolist())
        return forward(ids, *rest, **options)

    monkeypatch.setattr(model, "forward", watch)
    return fed


def test_every_token_is_read_once_and_in_the_order_of_the_template(tiny, monkeypatch):
    model, tokenizer = tiny
    fed = watched(model, monkeypatch)
    chat = Chat(*tiny, max_new_tokens=7, temperature=1.5, generator=Generator(3))
    answers = ["".join(chat.say(text)) for text in ("the first", "<|im_end|> the second", "你好")]
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 3
    assert [m["content"] for m in chat.messages[1::2]] == answers
    read = [id for ids in fed for id in ids]
    assert read == chat.ids[: chat.cache.length]
    # what was said, with the ids that the model chose in place of those that its text would have
    start, end, system = tokenizer.chat.start, tokenizer.chat.end, tokenizer.encode("system\nBe kind")
    assert chat.ids[: len(system) + 2] == [start, *system, end]
    assert chat.ids.count(start) == 1 + 2 * 3, "marks in a person's text are text"
    head = tokenizer.encode("user\n<|im_end|> the second")
    assert any(chat.ids[i : i + len(head)] == head for i in range(len(chat.ids)))
    full = model.new_cache()
    with model.evaluating():
        model(np.array([chat.ids[: chat.cache.length]]), full)
    for kept, fresh in zip(chat.cache.layers, full.layers):
        np.testing.assert_allclose(kept.keys[:, :, : kept.length], fresh.keys[:, :, : fresh.length], atol=1e-4)


def test_the_same_seed_says_the_same(tiny):
    def said(seed):
        chat = Chat(*tiny, max_new_tokens=12, temperature=1.0, top_p=0.9, generator=Generator(seed))
        return ["".join(chat.say(text)) for text in ("a", "b")]

    assert said(1) == said(1) != said(2)


def test_pieces_never_split_a_character(tiny, monkeypatch):
    """An answer whose tokens are single bytes of 你 and of an emoji, cut off in the middle of a third character."""
    _, tokenizer = tiny
    spelled = [tokenizer._bytes[byte] for byte in "a你🪐é".encode()][:-1]
    assert all(len(tokenizer.token_bytes(id)) == 1 for id in spelled)
    monkeypatch.setattr("minitransformer.inference.chat.generate", lambda *_, **__: iter(spelled))
    assert list(Chat(*tiny).say("x")) == ["a", "你", "🪐", "\N{REPLACEMENT CHARACTER}"]


def test_the_end_of_a_turn_ends_the_answer(tiny, monkeypatch):
    model, tokenizer = tiny
    unembed, count = model.unembed, []

    def ends_after_three(x):
        logits = unembed(x)
        count.append(1)
        if len(count) == 4:
            logits.data[..., tokenizer.chat.end] = 1e9
        return logits

    monkeypatch.setattr(model, "unembed", ends_after_three)
    chat = Chat(*tiny, max_new_tokens=50, temperature=0.0)
    "".join(chat.say("x"))
    assert chat.last.written == 3 and chat.last.ended
    assert chat.ids[-2:] == [tokenizer.chat.end, *tokenizer.encode("\n")]
    assert "<|im_end|>" not in chat.messages[-1]["content"]


def test_an_answer_that_was_stopped_stays_and_the_dialogue_goes_on(tiny, monkeypatch):
    """Closed by the reader, and interrupted between two layers of a forward pass."""
    model, _ = tiny
    chat = Chat(*tiny, max_new_tokens=20, temperature=1.0)
    pieces = chat.say("x")
    first = next(pieces)
    pieces.close()
    assert chat.messages[-1] == {"role": "assistant", "content": first} and not chat.last.ended

    block, calls = model.blocks[1].forward, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return block(*args, **options)

    monkeypatch.setattr(model.blocks[1], "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(chat.say("y"))
    assert len({layer.length for layer in chat.cache.layers}) == 1
    "".join(chat.say("z"))
    full = model.new_cache()
    with model.evaluating():
        model(np.array([chat.ids[: chat.cache.length]]), full)
    for kept, fresh in zip(chat.cache.layers, full.layers):
        np.testing.assert_allclose(kept.values[:, :, : kept.length], fresh.values[:, :, : fresh.length], atol=1e-4)


def test_a_dialogue_that_fills_the_context(tiny):
    chat = Chat(*tiny, max_new_tokens=1000, temperature=1.0)
    "".join(chat.say("x"))
    assert chat.cache.length == tiny_llama.CONTEXT and not chat.last.ended
    before = list(chat.messages)
    with pytest.raises(ValueError, match="the model's context is 200; begin anew"):
        chat.say("more")
    assert chat.messages == before
    chat.clear()
    assert chat.messages == [] and chat.cache.length == 0
    with pytest.raises(ValueError, match="the model's context is 200"):
        chat.say("a" * 300)


def test_what_the_model_is_told_first(tiny):
    chat = Chat(*tiny, "Answer in rhyme.", max_new_tokens=1)
    list(chat.say("x"))
    assert chat.messages[0] == {"role": "system", "content": "Answer in rhyme."}
    assert "Be kind" not in tiny[1].decode(chat.ids) and "Answer in rhyme." in tiny[1].decode(chat.ids)


def test_wrong_options(tiny, tmp_path):
    with pytest.raises(ValueError, match="temperature"):
        Chat(*tiny, temperature=-1.0)
    model, tokenizer = load(tiny_llama.write(tmp_path / "t.gguf", without=["tokenizer.chat_template"]))
    with pytest.raises(ValueError, match="no chat template"):
        Chat(model, tokenizer)
