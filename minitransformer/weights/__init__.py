"""Weights: reading model files of others.

file = open_gguf("model.gguf")          # metadata and tensors, mapped into memory
"""

from .gguf import GGUF, GGUFError, GGUFTensor, open_gguf

__all__ = ["GGUF", "GGUFError", "GGUFTensor", "open_gguf"]
