"""Every op, forward and backward by hand. The package exports the functions; many are methods of Tensor too."""

from __future__ import annotations

from ..kernels.devices import names_a_device, same_device
from ..tensor import Tensor, plain
from . import (
    activation,
    arithmetic,
    attention,
    cross_entropy,
    dropout,
    elementary,
    embedding,
    indexing,
    loss,
    matmul,
    move,
    normalization,
    quantized_gemm,
    reduction,
    rotary,
    shape,
    softmax,
    topk_activation,
)

MODULES = (
    arithmetic, elementary, activation, matmul, reduction, shape, indexing, embedding, softmax, normalization,
    cross_entropy, loss, dropout, attention, rotary, topk_activation, quantized_gemm, move,
)  # fmt: skip
FUNCTIONS = {name: getattr(module, name) for module in MODULES for name in module.__all__}

_METHODS = (
    "abs clamp cumsum exp expand flip gather log log_softmax logsumexp matmul max mean min permute pow relu reshape "
    "scatter_add sigmoid softmax split sqrt sum tanh transpose var"
).split()
for _name in _METHODS:
    setattr(Tensor, _name, FUNCTIONS[_name])


def _reflected(function):
    def operator(self, other):
        return function(other, self)

    return operator


for _operator, _name in {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow", "matmul": "matmul",
}.items():  # fmt: skip
    setattr(Tensor, f"__{_operator}__", FUNCTIONS[_name])
    setattr(Tensor, f"__r{_operator}__", _reflected(FUNCTIONS[_name]))
Tensor.__neg__, Tensor.__abs__ = FUNCTIONS["neg"], FUNCTIONS["abs"]
Tensor.__getitem__ = FUNCTIONS["index"]


def _mask(symbol):
    def operator(self, other):
        other = plain(other)
        same_device(symbol.strip("_"), self.data, other)
        return Tensor(getattr(self.data, symbol)(other))

    operator.__doc__ = "A boolean tensor; no gradient. Between integers, & | ^ act on their bits."
    return operator


for _symbol in "lt le gt ge eq ne and rand or ror xor rxor".split():
    setattr(Tensor, f"__{_symbol}__", _mask(f"__{_symbol}__"))
Tensor.__hash__ = object.__hash__
Tensor.__invert__ = lambda self: Tensor(~self.data)


@property
def _T(self):
    return FUNCTIONS["permute"](self, *reversed(range(self.ndim)))


@property
def _mT(self):
    return FUNCTIONS["transpose"](self, -2, -1)


def _to(self, target):
    """In another dtype or on another device; itself where nothing changes.

    Raises ValueError for an unknown device, RuntimeError for one that is not here.
    """
    return FUNCTIONS["move" if names_a_device(target) else "cast"](self, target)


def _cpu(self):
    """In the computer's own memory: `.to("cpu")`."""
    return _to(self, "cpu")


def _cuda(self):
    """On the GPU: `.to("cuda")`. Raises RuntimeError where there is none."""
    return _to(self, "cuda")


Tensor.T, Tensor.mT, Tensor.to, Tensor.cpu, Tensor.cuda = _T, _mT, _to, _cpu, _cuda
