"""The ladder of the product with an int8 weight and int8 inputs."""

import ctypes

import numpy as np

from ... import kernels
from ..numpy import quantized_gemm as reference
from ..quantized_weight import QuantizedWeight
from . import Ladder, Problem, library


class QuantizedGemm(Ladder):
    name = "quantized_gemm"
    title = "int8 inputs × int8 weight"
    kernel = "quantized_gemm"
    sizes = {"M": 64, "N": 1024, "K": 1024}
    most = {"M": 4096, "N": 8192, "K": 8192}
    odd = {"M": 13, "N": 51, "K": 77}

    def problem(self, seed: int = 0, **sizes) -> Problem:
        """x (M, K), codes (N, K), scales (N,) -> y (M, N). Work: 2 M N K operations."""
        sizes = self.checked(sizes)
        M, N, K = sizes["M"], sizes["N"], sizes["K"]
        random = np.random.default_rng(seed)
        x = random.standard_normal((M, K), np.float32)
        weight = QuantizedWeight.quantize(random.standard_normal((N, K), np.float32), "int8")
        codes, scales = (np.ascontiguousarray(a[:, 0]) for a in weight.decode()[:2])
        expected = reference.quantized_gemm(x, weight, inputs="int8")
        # the rung that adds floats: each of K additions may round, relative to what is added up
        q, s = reference.quantize_rows(x)
        mass = np.abs(q.astype(np.float64)) @ np.abs(codes.T.astype(np.float64)) * scales * s[:, None]
        rounded = {"naive": (2 * np.finfo(np.float32).eps * np.sqrt(K) * mass,)}
        packed = weight.panels()

        def shipped():
            return (kernels.quantized_gemm(x, packed, inputs="int8"),)

        arguments = (M, N, K, x, codes, scales, _panels(codes))
        work = 2.0 * M * N * K
        return Problem(sizes, arguments, (expected,), (0,), work, "GOP/s", "int8", shipped, rounded=rounded)


def _panels(codes):
    """The codes as the rungs from the fourth on read them, packed by the ladder's own source."""
    compiled = library("quantized_gemm")
    compiled.panel_bytes.restype = ctypes.c_long
    N, K = map(ctypes.c_long, codes.shape)
    panels = np.empty(compiled.panel_bytes(N, K), np.uint8)
    compiled.pack_panels(N, K, ctypes.c_void_p(codes.ctypes.data), ctypes.c_void_p(panels.ctypes.data))
    return panels
