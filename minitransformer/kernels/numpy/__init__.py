"""The readable definition of correct: every routine of the contract in plain NumPy.

Written to be read and to be right in float64; the other kernel sets are measured against it.
"""

from ..contract import ROUTINES as _CONTRACT
from . import (
    activation,
    adamw,
    attention,
    cross_entropy,
    dropout,
    embedding,
    matmul,
    normalization,
    quantized_gemm,
    random,
    softmax,
)

_MODULES = (
    matmul, attention, softmax, normalization, activation, cross_entropy, embedding, dropout, random, adamw,
    quantized_gemm,
)  # fmt: skip
ROUTINES = {name: getattr(module, name) for name in _CONTRACT for module in _MODULES if hasattr(module, name)}
