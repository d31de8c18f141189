"""Inference: from logits to tokens, from tokens to text; and a look inside while it happens."""

from .chat import Chat
from .embedding import embed
from .generation import generate, generate_text
from .inspection import Inspection, inspect
from .sampling import probabilities, sample

__all__ = ["Chat", "Inspection", "embed", "generate", "generate_text", "inspect", "probabilities", "sample"]
