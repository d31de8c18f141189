"""How weights start: random enough to differ, scaled so that signals neither die nor explode on their way through.

Each is a function (shape, generator) -> float32 array; options are bound with `functools.partial(normal, std=0.02)`.
A matrix has the layout of `Linear`: (fan_out, fan_in).
"""

from __future__ import annotations

import math

import numpy as np

from ..random import Generator

__all__ = ["later", "normal", "ones", "xavier_normal", "xavier_uniform", "zeros"]


def xavier_uniform(shape, generator: Generator, gain: float = 1.0) -> np.ndarray:
    """Uniform on (-a, a), a = gain √(6 / (fan_in + fan_out)), whose variance is gain² 2 / (fan_in + fan_out).

    Var(Wx) = fan_in Var(W) Var(x) asks for 1/fan_in to keep the size of signals on the way forward, and 1/fan_out to
    keep that of gradients on the way back; this is the compromise.
    Source: Glorot & Bengio 2010, eq. 16; document D5 §4.3.
    """
    bound = gain * math.sqrt(6.0 / sum(_fans(shape)))
    return generator.uniform(shape, -bound, bound)


def xavier_normal(shape, generator: Generator, gain: float = 1.0) -> np.ndarray:
    """Normal of variance gain² 2 / (fan_in + fan_out).   Source: Glorot & Bengio 2010, eq. 12."""
    return generator.normal(shape, std=gain * math.sqrt(2.0 / sum(_fans(shape))))


def normal(shape, generator: Generator, std: float = 0.02) -> np.ndarray:
    """Normal of mean 0; GPT-2 starts from std = 0.02.   Source: Radford et al. 2018, §4.1."""
    return generator.normal(shape, std=std)


def zeros(shape, generator: Generator | None = None) -> np.ndarray:
    """For biases: nothing is to be preferred at the start."""
    return np.zeros(shape, np.float32)


def ones(shape, generator: Generator | None = None) -> np.ndarray:
    """For the scale of a normalisation."""
    return np.ones(shape, np.float32)


def later(shape, generator: Generator | None = None) -> np.ndarray:
    """No numbers and no memory yet, one 0 seen everywhere: for a model whose weights are about to come from a file."""
    return np.broadcast_to(np.float32(0), shape)


def _fans(shape):
    if len(shape) != 2:
        raise ValueError(f"xavier initialisation is for matrices (fan_out, fan_in), got shape {tuple(shape)}")
    return shape
