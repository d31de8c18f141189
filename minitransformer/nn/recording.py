"""What an onlooker may want to know of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..tensor import Tensor

__all__ = ["Recording"]


@dataclass
class Recording:
    """Filled by `model(ids, capture_attention=recording)`: one entry a layer, and the residual stream between them.

    probabilities: arrays (B, H, Tq, Tk); values: arrays (B, H, Tk, d); outputs: what the heads say, o = P v, tensors
    (B, H, Tq, d) that keep their gradient; streams: tensors (B, T, D), the embeddings and then x after each block.
    """

    probabilities: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    streams: list[Tensor] = field(default_factory=list)

    def add(self, probabilities, values, outputs):
        """One layer's attention."""
        if outputs.requires_grad:
            outputs.retain_grad()
        self.probabilities.append(probabilities)
        self.values.append(values)
        self.outputs.append(outputs)

    def attention_gradients(self) -> list[np.ndarray]:
        """After backward, the gradient of every attention probability: dP_ij = do_i·v_j, arrays (B, H, Tq, Tk).

        The fused kernel never has P in memory, so autograd has no gradient of it; but o = P v says what it is.
        Raises RuntimeError before a backward.
        """
        if not self.outputs or any(o.grad is None for o in self.outputs):
            raise RuntimeError("attention_gradients: run backward() on something computed from the recorded pass first")
        return [o.grad @ v.swapaxes(2, 3) for o, v in zip(self.outputs, self.values)]
