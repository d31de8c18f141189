"""Chat: a dialogue with a model, of which every token is computed once.

    chat = Chat(model, tokenizer)
    for text in chat.say("What is the capital of France?"):
        print(text, end="", flush=True)
    chat.messages       # [{"role": "user", "content": …}, {"role": "assistant", "content": …}]

The keys and values of all that was said stay in the cache. A turn feeds only what is new: the end of the last answer,
the question, the head of the answer to come.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..random import Generator
from .generation import generate
from .sampling import check_options

__all__ = ["Chat", "Turn"]


@dataclass
class Turn:
    """What the last answer took: tokens read and written, seconds until the first and for the others."""

    read: int = 0
    written: int = 0
    first: float = 0.0
    others: float = 0.0
    ended: bool = False  # by the model itself, not by a limit or the reader

    @property
    def tokens_per_second(self) -> float:
        """Of decoding, that is of all tokens but the first; 0 where there are none."""
        return (self.written - 1) / self.others if self.written > 1 and self.others > 0 else 0.0


class Chat:
    """A dialogue. template: a `ChatML`; the tokenizer's own unless given. system: what the model is told first, in
    place of the template's. The other options are those of `generate`; max_new_tokens is the most of one answer.

    Raises ValueError for a tokenizer without a chat template, and for options out of range.
    """

    def __init__(
        self, model, tokenizer, system: str | None = None, *, template=None, max_new_tokens: int = 1024,
        generator: Generator | None = None, **options,
    ):  # fmt: skip
        check_options(**options)
        self.template = tokenizer.chat if template is None else template
        if self.template is None:
            raise ValueError("this model has no chat template: it was not made for dialogues; use generate")
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.generator = Generator(0) if generator is None else generator
        self.options, self.system, self.last = options, system, Turn()
        self.clear()

    def clear(self) -> None:
        """Begin anew: nothing has been said."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.ids: list[int] = []  # all that was said; of these the cache holds the first cache.length
        self.cache = self.model.new_cache()

    def say(self, text: str) -> Iterator[str]:
        """The answer to a text, in pieces as they are written; a character spread over tokens comes whole.

        Stopping early (closing the iterator, or an interrupt) keeps what was written as the answer. Raises ValueError,
        before anything is said, for a text that does not fit into what is left of the context.
        """
        question = {"role": "user", "content": text}
        if self.ids:
            new = self.template.message(self.tokenizer, **question) + self.template.reply(self.tokenizer)
        else:
            new = self.template.render(self.tokenizer, [*self.messages, question])
        ids = self.ids + new
        if len(ids) >= self.model.config.context:
            raise ValueError(
                f"the dialogue and this text have {len(ids):,} tokens, the model's context is "
                f"{self.model.config.context:,}; begin anew, or say less"
            )
        self.messages.append(question)
        self.ids = ids
        return self._answer(ids[self.cache.length :])

    def _answer(self, new):
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.last = turn = Turn(read=len(new))
        written, pieces, begun = [], [], time.perf_counter()
        tokens = generate(
            self.model, new, self.max_new_tokens, cache=self.cache, stop=(self.template.end,),
            generator=self.generator, **self.options,
        )  # fmt: skip
        special = set(self.tokenizer.special_ids.values())
        try:
            for token in tokens:
                now = time.perf_counter()
                turn.first, turn.others = turn.first or now - begun, now - begun - (turn.first or now - begun)
                written.append(token)
                turn.written = len(written)
                piece = "" if token in special else decode(self.tokenizer.token_bytes(token))
                if piece:
                    pieces.append(piece)
                    yield piece
            turn.ended = len(written) < self.max_new_tokens and len(self.ids) + len(written) < self.model.config.context
            if rest := decode(b"", final=True):
                pieces.append(rest)
                yield rest
        finally:
            # An interrupt may have come between two layers: what not all of them hold is fed again.
            self.cache.truncate(min(layer.length for layer in self.cache.layers))
            self.ids = [*self.ids, *written, self.template.end, *self.tokenizer.encode("\n")]
            self.messages.append({"role": "assistant", "content": "".join(pieces)})
