"""A GPT small enough for exact tests, with weights far enough from zero that attention is not uniform."""

import pytest

from minitransformer import Generator, kernels
from minitransformer.models import GPT, GPTConfig

# What `parametrize` runs a test on: every kernel set, those that are not available skipped with the reason.
KERNEL_SETS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=f"kernel set {name}: {reason}"))
    for name, reason in kernels.available("cpu").items()
]


def small_gpt(dtype="float64", dropout=0.0, seed=0, recompute=False, **sizes) -> GPT:
    sizes = {"vocab_size": 11, "context": 12, "layers": 2, "heads": 2, "width": 16, **sizes}
    model, noise = GPT(GPTConfig(**sizes, dropout=dropout), Generator(seed), recompute), Generator(seed + 1)
    for parameter in model.parameters():
        parameter.data += noise.normal(parameter.shape, std=0.3)
    return model.to(dtype)


def random_ids(model, batch, length, seed=0):
    return Generator(seed).integers(0, model.config.vocab_size, (batch, length))
