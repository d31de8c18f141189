"""Models: one architecture a file, readable in one sitting."""

from .gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig"]
