"""How to train: the numbers, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Raises ValueError, naming the field, for a value out of range.

    batch_size      sequences a step, in all
    accumulation    parts that a batch is cut into, one forward and backward each: less memory, the same gradient
    lr, min_lr      learning rate at the end of warm-up, and at the end of the cosine
    clip            largest norm of the gradient; 0 for none
    evaluate_every  steps between validations; a checkpoint is written at each
    keep            how many checkpoints stay, besides the best
    """

    steps: int = 1000
    batch_size: int = 12
    accumulation: int = 1
    lr: float = 1e-3
    min_lr: float = 1e-4
    warmup: int = 100
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    clip: float = 1.0
    evaluate_every: int = 250
    evaluation_batches: int = 20
    keep: int = 3
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in ("warmup", "seed") else 1
            if field.type == "int" and (type(value) is not int or value < least):
                raise ValueError(f"{field.name} must be an integer of at least {least}, got {value!r}")
            if field.type == "float" and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"{field.name} must be a number of at least 0, got {value!r}")
        if not self.beta1 < 1 > self.beta2:
            raise ValueError(f"beta1 and beta2 must lie below 1, got {self.beta1} and {self.beta2}")
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation cuts a batch into at most batch_size = {self.batch_size} parts, got {self.accumulation}"
            )
