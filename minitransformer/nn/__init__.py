"""Layers: modules that hold parameters and call ops. Activations are functions: `mt.gelu`, `mt.relu`, ..."""

from . import initialization
from .attention import MultiHeadAttention
from .block import Block
from .dropout import Dropout
from .embedding import Embedding
from .feed_forward import FeedForward
from .kv_cache import KVCache, LayerCache
from .linear import Linear
from .module import Buffer, Module, Parameter
from .normalization import LayerNorm, RMSNorm
from .quantized_linear import QuantizedLinear
from .recording import Recording

__all__ = [
    "Block",
    "Buffer",
    "Dropout",
    "Embedding",
    "FeedForward",
    "KVCache",
    "LayerCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "QuantizedLinear",
    "RMSNorm",
    "Recording",
    "initialization",
]
