"""Models: one architecture a file, readable in one sitting."""

from .bert import BERT, BERTConfig
from .gpt import GPT, GPTConfig
from .language_model import LanguageModel
from .llama import Llama, LlamaConfig
from .recurrent import RecurrentLM, RecurrentLMConfig

__all__ = [
    "BERT",
    "BERTConfig",
    "GPT",
    "GPTConfig",
    "LanguageModel",
    "Llama",
    "LlamaConfig",
    "RecurrentLM",
    "RecurrentLMConfig",
]
