"""Activation checkpointing: pay a second forward to keep nothing but the inputs."""

from __future__ import annotations

from .function import Function
from .graph import enable_grad, no_grad, run_backward
from .random import record, replay
from .tensor import Tensor

__all__ = ["checkpoint"]


class Checkpoint(Function):
    """y = f(x) without remembering anything inside f;   dx: run f again, recorded, and walk back through that.

    The second run sees the randomness, the kernel set and the inputs of the first, so it does the same arithmetic.
    Gradients of parameters that f closes over are added where they live.   Source: Chen et al. 2016; document D5 §4.2.
    """

    def forward(self, *arrays, function):
        self.function = function
        self.save(*arrays)
        with no_grad(), record() as self.tape:
            outputs = function(*[None if a is None else Tensor(a) for a in arrays])
        self.several = isinstance(outputs, tuple)
        return tuple(t.data for t in outputs) if self.several else outputs.data

    def reaches_outside(self):
        return True  # f may close over parameters, which the engine cannot see

    def backward(self, *cotangents):
        inputs = [
            None if a is None else Tensor(a, requires_grad=need) for a, need in zip(self.saved, self.needs, strict=True)
        ]
        with enable_grad(), replay(self.tape):
            outputs = self.function(*inputs)
        for y, dy in zip(outputs if self.several else (outputs,), cotangents, strict=True):
            if y.requires_grad:
                run_backward(y, dy, retain_graph=self.several)
        return tuple(None if x is None else x.grad for x in inputs)


def checkpoint(function, *inputs):
    """function(*inputs), with its inside recomputed during backward instead of remembered.

    function takes and returns tensors (one, or a tuple). It runs twice, so it must not have side effects; random
    numbers drawn from a `Generator` are the same both times.
    """
    return Checkpoint.apply(*inputs, function=function)
