"""The ladder of causal attention of one head."""

import numpy as np

from ... import kernels
from ..numpy import attention as reference
from . import Ladder, Problem


class Attention(Ladder):
    name = "attention"
    title = "Causal attention of one head"
    kernel = "attention_forward"
    sizes = {"T": 2048, "d": 64}
    most = {"T": 4096, "d": 512}  # the definition's matrices take 128 MiB each
    odd = {"T": 77, "d": 33}

    def problem(self, seed: int = 0, **sizes) -> Problem:
        """q, k, v (T, d) -> o (T, d). Work: 2 T (T + 1) d FLOPs, for the pairs that are seen."""
        sizes = self.checked(sizes)
        T, d = sizes["T"], sizes["d"]
        q, k, v = np.random.default_rng(seed).standard_normal((3, T, d), np.float32)
        scale = d**-0.5

        def shipped():
            return (kernels.attention_forward(*(x[None, None] for x in (q, k, v)), scale=scale, causal=True)[0][0, 0],)

        wide = [x[None, None].astype(np.float64) for x in (q, k, v)]
        expected = reference.attention_forward(*wide, scale=scale, causal=True)[0][0, 0]
        # Σ_c |q_c k_c| / √d bounds a score's rounding errors, which go into o through p; and o is a sum of T itself.
        mass = reference.attention_forward(*wide[:2], np.abs(wide[2]), scale=scale, causal=True)[0][0, 0]
        score = scale * np.sqrt(d) * (np.abs(wide[0][0, 0]) @ np.abs(wide[1][0, 0]).max(0))[:, None]
        allowed = 2 * np.finfo(np.float32).eps * (score + np.sqrt(T)) * mass
        work = 2.0 * T * (T + 1) * d
        return Problem(sizes, (T, d, q, k, v), (expected,), (allowed,), work, "GFLOP/s", "fp32", shipped)
