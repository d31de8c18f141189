"""Models: one architecture a file, readable in one sitting."""

from .gpt import GPT, GPTConfig
from .language_model import LanguageModel
from .llama import Llama, LlamaConfig
from .recurrent import RecurrentLM, RecurrentLMConfig

__all__ = ["GPT", "GPTConfig", "LanguageModel", "Llama", "LlamaConfig", "RecurrentLM", "RecurrentLMConfig"]
