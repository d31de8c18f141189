"""From a text to a trainer: tokens, split, model, optimiser, in one call."""

from __future__ import annotations

import numpy as np

from ..data import split
from ..models.gpt import GPT, GPTConfig
from ..random import Generator
from .trainer import Trainer, TrainingConfig

__all__ = ["assemble"]


def assemble(
    text: str, tokenizer, training: TrainingConfig, *, recompute: bool = False, sizes: dict | None = None,
    device: str = "cpu", **options,
) -> Trainer:  # fmt: skip
    """A trainer of a new GPT on a text, nine tenths of it for training and the last tenth for validation.

    sizes: layers, heads, width, context, dropout of `GPTConfig`. device: where to train. options: those of `Trainer`
    (folder, console, …). The weights are drawn from `training.seed`. Raises ValueError for sizes that make no model and
    a text too short.
    """
    config = GPTConfig(vocab_size=tokenizer.vocab_size, **(sizes or {}))
    train, validation = split(np.array(tokenizer.encode(text), np.int32))
    characters = len(tokenizer.decode(validation)) / max(1, len(validation))
    model = GPT(config, Generator(training.seed), recompute).to(device)
    return Trainer(model, train, validation, training, tokenizer=tokenizer, characters_per_token=characters, **options)
