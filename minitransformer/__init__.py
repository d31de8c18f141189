"""minitransformer: the large-language-model stack by hand on NumPy and C++.

    import minitransformer as mt
    x = mt.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                                      # array([2., 4.], dtype=float32)

Tensors and ops are here; `mt.nn`, `mt.optim`, `mt.models`, `mt.data`, `mt.training`, `mt.inference`, `mt.kernels`,
`mt.visualization` and `mt.weights` are imported when first used; `mt.load("smollm2")` is a real model.
"""

from __future__ import annotations

import importlib

from . import kernels, ops
from .function import ElementWise, Function
from .graph import enable_grad, is_grad_enabled, no_grad
from .kernels.devices import Device, device
from .random import Generator
from .recomputation import checkpoint
from .tensor import Tensor, arange, as_tensor, full, ones, tensor, zeros

__version__ = "0.1.0"

_LAZY = ("data", "gradient_check", "inference", "models", "nn", "optim", "training", "visualization", "weights", "cli")
_LAZY_NAMES = {"gradcheck": "gradient_check", "load": "weights"}

globals().update(ops.FUNCTIONS)

__all__ = [
    "Device", "ElementWise", "Function", "Generator", "Tensor", "arange", "as_tensor", "checkpoint", "device",
    "enable_grad", "full", "gradcheck", "is_grad_enabled", "kernels", "load", "no_grad", "ones", "tensor", "zeros",
    *ops.FUNCTIONS, *_LAZY,
]  # fmt: skip


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(f".{_LAZY_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'minitransformer' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
