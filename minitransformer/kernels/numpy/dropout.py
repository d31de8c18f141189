"""Dropout (Srivastava et al. 2014), inverted: what survives is scaled up, so that nothing happens at evaluation."""

from ..devices import device_of, xp
from ..precision import computed_in_float32
from .random import random_bits


@computed_in_float32
def dropout(x, p, key, offset):
    """y_i = x_i / (1 - p) where bits_i >= p 2³², else 0. The mask is recomputed in backward, not stored."""
    p = float(p)
    kept = random_bits(key, offset, x.size, device_of(x)).reshape(x.shape) >= p * 2**32
    return xp(x).where(kept, x / (1 - p), 0)
