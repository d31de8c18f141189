"""The CUDA kernels (`csrc/cuda/*.cu`) through CuPy, or, on the CPU, through the emulator.

One launch code serves both sets, "cuda" and "cuda-emulated": it is written against the arrays that it is given, and
`launch.py` finds what runs the sources for them. To add a routine: csrc/cuda/NAME.cu, a file NAME.py here that launches
it under the contract's name, and NAME in the list below.
"""

from ..contract import ROUTINES as _CONTRACT
from ..devices import no_gpu
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
    topk_activation,
)  # fmt: skip

_MODULES = (
    matmul, attention, topk_activation, quantized_gemm, softmax, normalization, activation, cross_entropy, embedding,
    dropout, random, adamw,
)  # fmt: skip
ROUTINES = {name: getattr(module, name) for name in _CONTRACT for module in _MODULES if hasattr(module, name)}


def reason(name: str) -> str:
    """Why a set ("cuda" or "cuda-emulated") cannot be used here; "" when it can."""
    if name == "cuda":
        return no_gpu()
    from .build import compiler

    try:
        compiler()
    except RuntimeError as error:
        return str(error)
    return ""
