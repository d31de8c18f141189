"""Weights: the models of others, from their files to modules that run.

model, tokenizer = load("smollm2")      # a name of the catalogue, or a file
file = open_gguf("model.gguf")          # metadata and tensors, mapped into memory
"""

from .catalogue import CATALOGUE
from .download import obtain
from .gguf import GGUF, GGUFError, GGUFTensor, open_gguf
from .load import load

__all__ = ["CATALOGUE", "GGUF", "GGUFError", "GGUFTensor", "load", "obtain", "open_gguf"]
