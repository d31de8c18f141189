"""Weights: the models of others, from their files to modules that run.

model, tokenizer = load("smollm2")      # a name of the catalogue, a GGUF file, or a folder of Hugging Face's
save_folder(model, "mine", tokenizer)   # such a folder
file = open_gguf("model.gguf")          # metadata and tensors, mapped into memory
"""

from .catalogue import CATALOGUE
from .download import obtain
from .gguf import GGUF, GGUFError, GGUFTensor, open_gguf
from .hugging_face import load_folder, save_folder
from .load import load
from .safetensors import SafetensorsError, open_safetensors

__all__ = [
    "CATALOGUE",
    "GGUF",
    "GGUFError",
    "GGUFTensor",
    "SafetensorsError",
    "load",
    "load_folder",
    "obtain",
    "open_gguf",
    "open_safetensors",
    "save_folder",
]
