"""Models: one architecture a file, readable in one sitting."""

from .gpt import GPT, GPTConfig
from .recurrent import RecurrentLM, RecurrentLMConfig

__all__ = ["GPT", "GPTConfig", "RecurrentLM", "RecurrentLMConfig"]
