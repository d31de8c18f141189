"""The engine: what every op needs and no op should write itself.

An op is a `Function`: `forward` takes arrays and returns arrays, `backward` takes one cotangent per output and
returns a gradient, or None, per positional input. The object that ran `forward` is the node of the graph. Around
these two methods the engine records the graph, checks dtypes and the shape of every gradient by the op's name,
catches in-place edits of saved arrays, and frees what was saved once it has been used. Gradients are first order
only: `backward` works on arrays, so there is nothing to differentiate again.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import kernels
from .graph import edge, is_grad_enabled, memory, xp
from .kernels.contract import FLOATS
from .kernels.devices import same_device
from .kernels.precision import computed_in_float32
from .tensor import Tensor

__all__ = ["OPS", "ElementWise", "Function", "xp"]

OPS: dict[str, type[Function]] = {}  # every op by class name: what the gradient checks go through

_numbers = itertools.count()


class Function:
    """Base of every op; `ops/` shows what one looks like.

    Positional inputs are tensors (numbers and arrays are converted; None stays None), keyword arguments are static and
    hashable. `self.needs[i]` says whose gradient is wanted: what nobody wants need not be computed, return None for it.
    An attribute set in forward is there in backward.
    """

    keeps_dtype = True  # float inputs share one dtype and float outputs have it; only a cast says False

    __slots__ = (
        "__dict__",
        "_saved",
        "edges",
        "hooks",
        "kernel_set",
        "needs",
        "number",
        "outputs",
        "specs",
        "versions",
    )

    def __init_subclass__(cls, abstract=False, **kwargs):
        super().__init_subclass__(**kwargs)
        if not abstract:
            OPS[cls.__name__] = cls

    # ------------------------------------------------------------ what an op writes and calls

    def forward(self, *arrays, **static):
        raise TypeError(f"{type(self).__name__} does not define forward")

    def backward(self, *cotangents):
        raise TypeError(f"{type(self).__name__} does not define backward")

    def save(self, *arrays) -> None:
        """Keep arrays until backward; whatever else backward needs is an ordinary attribute."""
        self._saved = arrays

    @property
    def saved(self) -> tuple:
        for version, count in self.versions:
            if version.count != count:
                raise RuntimeError(
                    f"{type(self).__name__}: an array saved for backward was edited in place since "
                    f"({version.count - count} edit(s)); edit a copy, or edit after backward()"
                )
        return self._saved

    def reaches_outside(self) -> bool:
        """Whether gradients flow to tensors that are not inputs, as under `checkpoint`."""
        return False

    # ------------------------------------------------------------ forward

    @classmethod
    def apply(cls, *inputs, **static):
        """Run the op and record it if a gradient is wanted. Returns a tensor, or a tuple where forward returned one."""
        tensors = _as_tensors(inputs)
        dtype = _common_dtype(cls, tensors) if cls.keeps_dtype else None
        node = cls()
        node._saved = ()
        recording = is_grad_enabled()
        node.needs = tuple([recording and t is not None and t.requires_grad for t in tensors])
        outputs = node.forward(*[None if t is None else t.data for t in tensors], **static)

        several = type(outputs) is tuple
        arrays = [np.asarray(a) if isinstance(a, np.generic) else a for a in (outputs if several else (outputs,))]
        if dtype is not None:
            for array in arrays:
                if array.dtype != dtype and array.dtype in FLOATS:
                    raise TypeError(
                        f"{cls.__name__}.forward turned {dtype} into {array.dtype}; no op may change a dtype silently"
                        + _integers_beside(tensors, dtype)
                    )
        recorded = True in node.needs or (recording and node.reaches_outside())
        results = tuple(
            [_output(array, tensors, node if recorded else None, slot) for slot, array in enumerate(arrays)]
        )
        if recorded:
            node._record(tensors, results)
        return results if several else results[0]

    def _record(self, tensors, results):
        self.number = next(_numbers)
        self.hooks = None
        self.kernel_set = kernels.current()
        self.edges = [edge(t) if need else None for t, need in zip(tensors, self.needs, strict=True)]
        self.specs = [None if t is None else (t.data.shape, t.data.dtype) for t in tensors]
        # Kept as descriptions, not arrays: enough for the zeros of an output that nobody used.
        self.outputs = [(xp(r.data), r.data.shape, r.data.dtype) for r in results] if len(results) > 1 else (None,)
        self.versions = _versions(self._saved, tensors, results) if self._saved else ()

    # ------------------------------------------------------------ backward

    def run_backward(self, cotangents, keep):
        """[(edge, gradient, whether the receiver may keep the array)]; frees what was saved unless `keep`."""
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward() ran through this graph before and freed what it had saved; "
                "call backward(retain_graph=True) the first time, or run forward again"
            )
        if len(cotangents) > 1:
            cotangents = [
                namespace.zeros(shape, dtype=dtype) if dy is None else dy
                for dy, (namespace, shape, dtype) in zip(cotangents, self.outputs, strict=True)
            ]
        if self.kernel_set is kernels.current():
            gradients = self.backward(*cotangents)
        else:
            with kernels.use(self.kernel_set):
                gradients = self.backward(*cotangents)
        if type(gradients) is not tuple:
            gradients = (gradients,)
        if len(gradients) != len(self.needs):
            raise RuntimeError(
                f"{type(self).__name__}.backward returned {len(gradients)} gradients for {len(self.needs)} inputs"
            )

        held = (*cotangents, *self._saved, *gradients)
        deliveries = []
        for i, (target, gradient) in enumerate(zip(self.edges, gradients, strict=True)):
            if target is not None and gradient is not None:
                gradient = self._checked(i, gradient)
                owned = gradient.base is None and sum([gradient is a for a in held]) <= 1  # once: among `gradients`
                deliveries.append((target, gradient, owned))
        if not keep:
            self._saved, self.versions = None, ()
            self.__dict__.clear()
        return deliveries

    def _checked(self, i, gradient):
        """Gradient i, if it has the shape and dtype of its input."""
        shape, dtype = self.specs[i]
        if isinstance(gradient, np.generic):
            gradient = np.asarray(gradient)
        if gradient.shape != shape:
            raise RuntimeError(
                f"{type(self).__name__}.backward: gradient {i} has shape {gradient.shape}, its input has {shape}"
            )
        if gradient.dtype != dtype:
            raise RuntimeError(
                f"{type(self).__name__}.backward: gradient {i} is {gradient.dtype}, its input is {dtype}"
            )
        return gradient


class ElementWise(Function, abstract=True):
    """An op whose inputs broadcast against each other: the only place that sums a gradient over broadcast axes."""

    __slots__ = ()

    def _checked(self, i, gradient):
        return super()._checked(i, unbroadcast(gradient, self.specs[i][0]))


def unbroadcast(gradient, shape):
    """Sum over the axes that broadcasting added or stretched: the transpose of `broadcast_to`."""
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple([i + added for i, n in enumerate(shape) if n == 1 and gradient.shape[i + added] != 1])
    return total(gradient, (*range(added), *stretched), keepdims=True).reshape(shape)


@computed_in_float32
def total(x, axis=None, keepdims=False):
    """Σ x. Half precision is added up in float32 and rounded once: in bfloat16 256 + 1 is 256."""
    return xp(x).sum(x, axis=axis, keepdims=keepdims)


# ---------------------------------------------------------------- small parts


def _as_tensors(inputs):
    for x in inputs:
        if x is not None and not isinstance(x, Tensor):
            break
    else:
        return inputs
    beside = [x.data for x in inputs if isinstance(x, Tensor)]
    dtype = next((a.dtype for a in beside if a.dtype in FLOATS), None)
    return tuple([x if x is None or isinstance(x, Tensor) else _constant(x, dtype, beside) for x in inputs])


def _constant(value, dtype, beside):
    """A number takes the float dtype of the tensors beside it, as in `x / math.sqrt(64)`; an array keeps its own."""
    if isinstance(value, (bool, int, float, np.generic)):
        if dtype is None and beside:  # beside integers as NumPy has it, beside masks our default
            masks = all(a.dtype == bool for a in beside)
            dtype = np.float32 if masks and isinstance(value, float) else np.result_type(beside[0].dtype, value)
        namespace = xp(beside[0]) if beside else np
        return Tensor.wrap(namespace.asarray(value, dtype=dtype))
    return Tensor(value)


def _common_dtype(cls, tensors):
    """The one float dtype of the inputs, or None. Raises TypeError where they differ, or live on different devices."""
    common = kind = None
    for i, t in enumerate(tensors):
        if t is None:
            continue
        if kind is None:
            kind = type(t.data)
        elif type(t.data) is not kind:
            same_device(cls.__name__, *[t.data for t in tensors if t is not None])
        if t.data.dtype in FLOATS:
            if common is None:
                common = t.data.dtype
            elif t.data.dtype != common:
                raise TypeError(
                    f"{cls.__name__}: input {i} is {t.data.dtype} but another is {common}; convert one with .to()"
                )
    return common


def _integers_beside(tensors, dtype):
    found = next((t.dtype for t in tensors if t is not None and t.dtype not in FLOATS), None)
    return "" if found is None else f'; an input is {found}: convert it with .to("{dtype}")'


def _output(array, tensors, node, slot):
    """An output as a tensor. Where its memory is an input's it shares that input's version counter."""
    version = None
    for t in tensors:
        if t is not None and (array is t.data or (array.base is not None and memory(array) is memory(t.data))):
            version = t.version
    if node is None or array.dtype not in FLOATS:
        return Tensor.wrap(array, version=version)
    return Tensor.wrap(array, node, slot, version)


def _versions(saved, tensors, results):
    """(counter, its count now) for all memory of inputs and outputs among the saved arrays."""
    counters = {id(memory(t.data)): t.version for t in (*tensors, *results) if t is not None}
    found = {counters.get(id(memory(a))) for a in saved if a is not None} - {None}
    return [(version, version.count) for version in found]
