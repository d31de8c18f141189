"""Inference: from logits to tokens, from tokens to text."""

from .generation import generate, generate_text
from .sampling import probabilities, sample

__all__ = ["generate", "generate_text", "probabilities", "sample"]
