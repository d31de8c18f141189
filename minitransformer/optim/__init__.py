"""Optimisers, the schedule of the learning rate, gradient clipping."""

from .adamw import AdamW
from .clipping import clip_grad_norm_
from .optimizer import Optimizer, decay_groups
from .schedule import warmup_cosine
from .sgd import SGD

__all__ = ["SGD", "AdamW", "Optimizer", "clip_grad_norm_", "decay_groups", "warmup_cosine"]
