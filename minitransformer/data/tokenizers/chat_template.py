"""ChatML: how a dialogue becomes one sequence of tokens.

    <|im_start|>system
    You are …<|im_end|>
    <|im_start|>user
    What is the capital of France?<|im_end|>
    <|im_start|>assistant
    The capital of France is Paris.<|im_end|>

The two marks are special tokens, ids that no text encodes to, and only the template places them: a person who types
"<|im_end|>" has typed ten characters.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import Tokenizer

__all__ = ["ROLES", "ChatML"]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatML:
    """The template, with the ids of its marks for a tokenizer. system: what is said to the model where nobody says
    anything else; None for nothing."""

    start: int
    end: int
    system: str | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, system: str | None = None) -> ChatML:
        """Raises ValueError where the tokenizer lacks the marks."""
        ids = getattr(tokenizer, "special_ids", {})
        if not {"<|im_start|>", "<|im_end|>"} <= set(ids):
            raise ValueError("ChatML needs the special tokens <|im_start|> and <|im_end|>, which this tokenizer lacks")
        return cls(ids["<|im_start|>"], ids["<|im_end|>"], system)

    def message(self, tokenizer: Tokenizer, role: str, content: str) -> list[int]:
        """The ids of a message. Characters of which the tokenizer lacks a byte lose it, as in other libraries."""
        if role not in ROLES:
            raise ValueError(f"the role of a message must be one of {', '.join(ROLES)}, got {role!r}")
        text = tokenizer.encode(f"{role}\n{content}", errors="ignore")
        return [self.start, *text, self.end, *tokenizer.encode("\n")]

    def reply(self, tokenizer: Tokenizer) -> list[int]:
        """What the model's answer follows."""
        return [self.start, *tokenizer.encode("assistant\n")]

    def render(self, tokenizer: Tokenizer, messages, reply: bool = True) -> list[int]:
        """The ids of messages, each {"role": …, "content": …}; the template's own system message comes first where
        they begin with none. reply: with the beginning of the next answer."""
        if self.system is not None and (not messages or messages[0]["role"] != "system"):
            messages = [{"role": "system", "content": self.system}, *messages]
        ids = [id for of in messages for id in self.message(tokenizer, of["role"], of["content"])]
        return ids + (self.reply(tokenizer) if reply else [])
