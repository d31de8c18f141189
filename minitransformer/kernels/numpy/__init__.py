"""The readable definition of correct: every routine of the contract in plain NumPy.

Written to be read and to be right in float64; the other kernel sets are measured against it. The expressions are those
of the array's own module, `np = xp(x)`: on a GPU the same lines run on CuPy, where no kernel of ours does.
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
    sparse_feed_forward,
    topk_activation,
)

_MODULES = (
    matmul, attention, softmax, normalization, activation, topk_activation, sparse_feed_forward, cross_entropy,
    embedding, dropout, random, adamw, quantized_gemm,
)  # fmt: skip
ROUTINES = {name: getattr(module, name) for name in _CONTRACT for module in _MODULES if hasattr(module, name)}
