"""Randomness as a value: a counter-based generator, the same bits on every kernel set and thread count.

A `Generator` is a key (the seed) and an offset (how many blocks of four words were drawn). Drawing reserves a range of
offsets and computes its bits from (key, offset) alone, by Philox 4×32-10. So a random op needs to remember two
integers, not a mask: its backward, or a recomputation under `checkpoint`, asks for the same range and gets the same
bits. There is no global generator and NumPy's global state is never touched.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os

import numpy as np

from . import kernels
from .kernels.devices import device as open_device

__all__ = ["Generator"]

# While a checkpointed function runs, every generator notes here the offset that it started from.
_tape: contextvars.ContextVar[dict | None] = contextvars.ContextVar("random_tape", default=None)


class Generator:
    """A stream of random numbers: `Generator(seed)` always yields the same ones.

    seed: 0..2⁶⁴-1, or None for a fresh one from the operating system. Raises ValueError for any other.
    """

    __slots__ = ("__weakref__", "key", "offset")

    def __init__(self, seed: int | None = 0):
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise ValueError(f"a seed is an integer in 0..2**64-1, got {seed!r}")
        self.key, self.offset = int(seed), 0

    def __repr__(self):
        return f"Generator(key={self.key}, offset={self.offset})"

    def reserve(self, count: int) -> tuple[int, int]:
        """Take the next `count` words; returns (key, offset), from which `kernels.random_bits` computes them."""
        tape = _tape.get()
        if tape is not None:
            tape.setdefault(self, self.offset)
        start = self.offset
        self.offset = (start + (count + 3) // 4) % 2**64
        return self.key, start

    def bits(self, shape, device="cpu") -> np.ndarray:
        """uint32 words of the given shape, uniform over 0..2³²-1; made on a device, the same on each."""
        shape = _shape(shape)
        count = math.prod(shape)
        return kernels.random_bits(*self.reserve(count), count, str(device)).reshape(shape)

    def uniform(self, shape=(), low=0.0, high=1.0, dtype=np.float32, device="cpu") -> np.ndarray:
        """Uniform on [low, high): 24 random bits, for float64 32; what rounds to `high` is the number below it."""
        xp, dtype = open_device(device).arrays, np.dtype(dtype)
        bits = self.bits(shape, device)
        unit = bits * 2.0**-32 if dtype == np.float64 else (bits >> 8).astype(np.float32) * np.float32(2**-24)
        values = xp.asarray(low + (high - low) * unit, dtype=dtype)
        top = dtype.type(high)
        return xp.where(values == top, np.nextafter(top, dtype.type(low)), values)

    def normal(self, shape=(), mean=0.0, std=1.0, dtype=np.float32, device="cpu") -> np.ndarray:
        """Normal by Box-Muller: r = √(-2 ln u₁), angle = 2π u₂, from pairs of words; computed in float64."""
        xp, shape = open_device(device).arrays, _shape(shape)
        count = math.prod(shape)
        pairs = self.bits(2 * ((count + 1) // 2), device).reshape(-1, 2)
        radius = xp.sqrt(-2.0 * xp.log((pairs[:, 0] + 0.5) * 2.0**-32))
        angle = (2.0 * math.pi * 2.0**-32) * pairs[:, 1]
        values = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1).reshape(-1)[:count]
        return (mean + std * values).reshape(shape).astype(dtype)

    def integers(self, low: int, high: int, shape=()) -> np.ndarray:
        """int64 uniform on low..high-1, by the upper bits of a product (bias below (high - low)/2⁶⁴).

        Raises ValueError unless low < high <= low + 2³².
        """
        span = high - low
        if not 0 < span <= 2**32:
            raise ValueError(f"integers needs low < high <= low + 2**32, got low={low}, high={high}")
        shape = _shape(shape)
        words = self.bits((math.prod(shape), 2)).astype(np.uint64)
        # floor(word * span / 2**64) for a 64-bit word, in two 32-bit halves that cannot overflow.
        carried = words[:, 0] * np.uint64(span) >> np.uint64(32)
        return (low + ((words[:, 1] * np.uint64(span) + carried) >> np.uint64(32)).astype(np.int64)).reshape(shape)

    def permutation(self, n: int) -> np.ndarray:
        """0..n-1 in random order, int64: the argsort of n 64-bit words."""
        words = self.bits((n, 2)).astype(np.uint64)
        return np.argsort(words[:, 0] << np.uint64(32) | words[:, 1], kind="stable")

    def spawn(self) -> Generator:
        """A new generator with a key drawn from this one."""
        high, low = (int(word) for word in self.bits(2))
        return Generator(high << 32 | low)

    def state_dict(self) -> dict:
        return {"key": self.key, "offset": self.offset}

    def load_state_dict(self, state: dict) -> None:
        restored = Generator(state["key"])  # checks the key
        self.key, self.offset = restored.key, int(state["offset"])


def _shape(shape) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)


@contextlib.contextmanager
def record():
    """Note for every generator that the body draws from the offset that it started at; yields {generator: offset}."""
    outer = _tape.get()
    tape: dict[Generator, int] = {}
    token = _tape.set(tape)
    try:
        yield tape
    finally:
        _tape.reset(token)
        if outer is not None:
            for generator, offset in tape.items():
                outer.setdefault(generator, offset)


@contextlib.contextmanager
def replay(tape):
    """Run the body with every generator of a recording set back to where it started; then they stand as before."""
    now = {generator: generator.offset for generator in tape}
    for generator, offset in tape.items():
        generator.offset = offset
    try:
        yield
    finally:
        for generator, offset in now.items():
            generator.offset = offset
