"""Tokenizers: text to ids and back, trained by hand-written code, saved as JSON."""

from .base import Tokenizer, load_tokenizer, tokenizer_from_json
from .bpe import BPETokenizer
from .char import CharTokenizer
from .chat_template import ChatML
from .from_tokenizer_json import bpe_from_tokenizer_json
from .labels import readable, readable_sequence
from .wordpiece import WordPieceTokenizer

__all__ = [
    "BPETokenizer",
    "ChatML",
    "CharTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "bpe_from_tokenizer_json",
    "load_tokenizer",
    "readable",
    "readable_sequence",
    "tokenizer_from_json",
]
