"""The ladder of the top-k activation."""

import numpy as np

from ... import kernels
from ..numpy import topk_activation as reference
from . import Ladder, Problem


class TopkActivation(Ladder):
    name = "topk_activation"
    title = "Top-k of each row"
    kernel = "topk_activation"
    sizes = {"rows": 256, "n": 4096, "k": 614}  # 15 %
    most = {"rows": 1 << 16, "n": 1 << 16, "k": 1 << 16}
    odd = {"rows": 5, "n": 77, "k": 11}

    def checked(self, sizes):
        sizes = super().checked(sizes)
        if sizes["k"] > sizes["n"]:
            raise ValueError(f"the size k of {self.name} must be at most n = {sizes['n']}, got {sizes['k']}")
        if sizes["rows"] * sizes["n"] > 1 << 26:
            many = sizes["rows"] * sizes["n"]
            raise ValueError(f"the sizes of {self.name} must make rows × n at most 2²⁶, got {many}")
        return sizes

    def small(self) -> Problem:
        return self.problem(ties=True, **self.odd)

    def problem(self, seed: int = 0, ties: bool = False, **sizes) -> Problem:
        """x (rows, n) -> y (rows, n), indices (rows, k). Work: the bytes of these three. ties: many equal numbers."""
        sizes = self.checked(sizes)
        rows, n, k = sizes["rows"], sizes["n"], sizes["k"]
        x = np.random.default_rng(seed).standard_normal((rows, n), np.float32)
        if ties:
            x = np.round(x, 1)  # 0 and -0 among them
        expected = reference.topk_activation(x, k)
        work, dtypes = x.nbytes * 2 + expected[1].nbytes, (np.float32, np.int32)

        def shipped():
            return kernels.topk_activation(x, k)

        return Problem(sizes, (rows, n, k, x), expected, (0, 0), work, "GB/s", "memory", shipped, dtypes)
