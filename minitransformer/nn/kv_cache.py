"""The keys and values of the tokens so far, so that decoding computes each of them once.

Without a cache, token t costs a forward pass over t tokens; with it, over one token that looks at t - 1 stored keys.
The memory is 2 · layers · B · G · capacity · d numbers, taken once; G is the number of key/value heads.
"""

from __future__ import annotations

from ..graph import xp
from ..kernels.devices import device as open_device
from ..kernels.devices import same_device
from ..tensor import Tensor, as_dtype
from .module import check_size

__all__ = ["KVCache", "LayerCache"]


class LayerCache:
    """One layer's keys and values: (B, G, capacity, d) arrays of which the first `length` positions are filled."""

    def __init__(self, batch: int, heads: int, capacity: int, head_width: int, dtype="float32", device="cpu"):
        check_size("KVCache", batch=batch, heads=heads, capacity=capacity, head_width=head_width)
        shape = batch, heads, capacity, head_width
        self.keys = open_device(device).arrays.empty(shape, dtype=as_dtype(dtype))
        self.values = xp(self.keys).empty_like(self.keys)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values (B, G, T, d) of T new tokens; returns views of all (B, G, length, d).

        Raises ValueError where they do not fit: another B, G or d, or more tokens than are free; TypeError for another
        dtype; RuntimeError while gradients are recorded, because none would flow to what is stored.
        """
        if key.requires_grad or value.requires_grad:
            raise RuntimeError("KV cache: no gradient flows through it; decode under mt.no_grad()")
        keys, values = self.store(key.data, value.data)
        return Tensor(keys), Tensor(values)

    def store(self, key, value):
        """`append` of arrays."""
        B, G, capacity, d = self.keys.shape
        T, end = key.shape[2], self.length + key.shape[2]
        if tuple(key.shape) != (B, G, T, d) or value.shape != key.shape:
            raise ValueError(f"KV cache: made for shapes ({B}, {G}, T, {d}), got {key.shape} and {value.shape}")
        if key.dtype != self.keys.dtype:
            raise TypeError(f"KV cache: made for {self.keys.dtype}, got {key.dtype}")
        same_device("KV cache", self.keys, key, value)
        if end > capacity:
            raise ValueError(f"KV cache: {self.length} of {capacity} positions are filled, {T} more do not fit")
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """A `LayerCache` for every layer of a model; `model.new_cache()` makes one that fits. heads: of keys and values."""

    def __init__(
        self, layers: int, batch: int, heads: int, capacity: int, head_width: int, dtype="float32", device="cpu"
    ):  # fmt: skip
        check_size("KVCache", layers=layers)
        self.layers = [LayerCache(batch, heads, capacity, head_width, dtype, device) for _ in range(layers)]

    @property
    def length(self) -> int:
        """How many tokens are stored."""
        return self.layers[0].length

    @property
    def capacity(self) -> int:
        return self.layers[0].capacity

    @property
    def nbytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def truncate(self, length: int = 0) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"KV cache: holds {self.length} tokens, cannot keep {length}")
        for layer in self.layers:
            layer.length = length
