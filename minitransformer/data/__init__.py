"""Data: text, tokens, batches.

text = default_corpus()                                   # or load_text("a file or folder")
tokenizer = BPETokenizer.train(text, 1024)                # or CharTokenizer.train(text)
train, validation = split(tokenizer.encode(text))
x, y = next(BatchSampler(train, batch_size=12, context=64, generator=Generator(0)))
"""

from .batches import BatchSampler, evaluation_batches, split, tokens_needed
from .corpus import TEXT_SUFFIXES, default_corpus, load_text
from .masking import hide_tokens, pad
from .tokenizers import (
    BPETokenizer,
    CharTokenizer,
    ChatML,
    Tokenizer,
    WordPieceTokenizer,
    load_tokenizer,
    readable,
    readable_sequence,
    tokenizer_from_json,
)

__all__ = [
    "TEXT_SUFFIXES",
    "BPETokenizer",
    "BatchSampler",
    "CharTokenizer",
    "ChatML",
    "Tokenizer",
    "WordPieceTokenizer",
    "default_corpus",
    "evaluation_batches",
    "hide_tokens",
    "load_text",
    "load_tokenizer",
    "pad",
    "readable",
    "readable_sequence",
    "split",
    "tokenizer_from_json",
    "tokens_needed",
]
