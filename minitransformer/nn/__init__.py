"""Layers: modules that hold parameters and call ops. Activations are functions: `mt.gelu`, `mt.relu`, ..."""

from . import initialization
from .attention import MultiHeadAttention, alibi_slopes
from .block import Block
from .dropout import Dropout
from .embedding import Embedding
from .feed_forward import FeedForward
from .gated_feed_forward import GatedFeedForward
from .kv_cache import KVCache, LayerCache
from .linear import Linear
from .module import Buffer, Module, Parameter
from .normalization import LayerNorm, RMSNorm
from .paged_cache import PagedCache, PagedLayer
from .positions import RotaryEmbedding
from .quantized_embedding import QuantizedEmbedding
from .quantized_linear import QuantizedLinear
from .recording import Recording
from .recurrent import LSTM, RNN
from .sparse_feed_forward import SparseFeedForward

__all__ = [
    "LSTM",
    "RNN",
    "Block",
    "Buffer",
    "Dropout",
    "Embedding",
    "FeedForward",
    "GatedFeedForward",
    "KVCache",
    "LayerCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "PagedCache",
    "PagedLayer",
    "Parameter",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "Recording",
    "RotaryEmbedding",
    "SparseFeedForward",
    "alibi_slopes",
    "initialization",
]
