"""Module: a tree of layers that knows its parameters.

    class TwoLayers(nn.Module):
        def __init__(self, width, generator):
            self.up = nn.Linear(width, 4 * width, generator=generator)
            self.down = nn.Linear(4 * width, width, generator=generator)

        def forward(self, x):
            return self.down(mt.gelu(self.up(x)))

There is no registration: what belongs to a module are the `Parameter`, `Buffer` and `Module` objects among its
attributes, and those in lists, tuples and dicts there. Names are paths: "up.weight", "blocks.0.norm.bias". A tensor
that is reached by two paths (tied weights) is one parameter, under the first of its names: counted, saved and optimised
once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..graph import no_grad
from ..kernels.contract import FLOATS
from ..kernels.devices import device, fetch, is_array, names_a_device, snapshot
from ..tensor import Tensor, plain

__all__ = ["Buffer", "Module", "Parameter"]


class Parameter(Tensor):
    """A tensor that is trained. `requires_grad=False` freezes it; it stays a parameter."""

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True, dtype=None):
        super().__init__(data, requires_grad, dtype)


class Buffer(Tensor):
    """A tensor that belongs to the module's state, is saved and moved with it, and is not trained."""

    __slots__ = ()


class Module:
    """Base of every layer and model; a subclass sets its attributes in `__init__` and defines `forward`."""

    training = True

    def forward(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    # ------------------------------------------------------------ the tree

    def _items(self, kind):
        """(name, value) for what this module itself holds of a kind, also in its lists, tuples and dicts."""
        for name, value in vars(self).items():
            yield from _found(name, value, kind)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return self._items(Module)

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "", _seen=None) -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, parents first."""
        seen = set() if _seen is None else _seen
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named_tensors(self, kind):
        seen = set()
        for path, module in self.named_modules():
            for name, tensor in module._items(kind):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{path}.{name}" if path else name, tensor

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self._named_tensors(Parameter)

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def parameter_count(self, trainable: bool = False) -> int:
        """How many numbers the parameters hold; `trainable=True` leaves out the frozen ones."""
        return sum(p.size for p in self.parameters() if p.requires_grad or not trainable)

    @property
    def device(self) -> str:
        """Where the module lives: the device of its first parameter, "cpu" where it has none."""
        return next((parameter.device for parameter in self.parameters()), "cpu")

    # ------------------------------------------------------------ state

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name: the live tensors."""
        return self._named_tensors((Parameter, Buffer))

    def state_dict(self) -> dict[str, np.ndarray]:
        """A snapshot: copies of the arrays by name, NumPy's wherever the module lives; later training changes none."""
        return {name: snapshot(tensor.data) for name, tensor in self.named_state()}

    def load_state_dict(self, state: dict, strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy arrays (or tensors) into the parameters and buffers of the same names; dtypes here stay as they are.

        Returns the names (missing, unexpected), which `strict` does not allow. Raises, in one line and before anything
        is changed, ValueError for those and for entries of another shape, TypeError for integers in place of floats or
        of another dtype than here.
        """
        own = dict(self.named_state())
        arrays = {name: plain(value) for name, value in state.items()}
        arrays = {name: fetch(value) if is_array(value) else np.asarray(value) for name, value in arrays.items()}
        missing, unexpected = [n for n in own if n not in arrays], [n for n in arrays if n not in own]
        shared = [n for n in own if n in arrays]
        faults = [f"missing: {_listed(missing)}"] if strict and missing else []
        faults += [f"unexpected: {_listed(unexpected)}"] if strict and unexpected else []
        wrong = [f"{n} is {arrays[n].shape}, must be {own[n].shape}" for n in shared if arrays[n].shape != own[n].shape]
        faults += [f"wrong shape: {_listed(wrong)}"] if wrong else []
        if faults:
            raise ValueError(f"this state does not fit {type(self).__name__}: {'; '.join(faults)}")
        for name in shared:
            here, there = own[name].dtype, arrays[name].dtype
            if here != there and not (here in FLOATS and there in FLOATS):
                raise TypeError(f"{name} must be {here}, in this state it is {there}")
        with no_grad():
            for name in shared:
                own[name].copy_(device(own[name].device).put(arrays[name].astype(own[name].dtype)))
        return missing, unexpected

    # ------------------------------------------------------------ switches

    def train(self, mode: bool = True) -> Module:
        """Training mode: dropout drops. Returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Evaluation mode: every layer is deterministic. Returns the module."""
        return self.train(False)

    @contextlib.contextmanager
    def evaluating(self):
        """Evaluation mode without recording for the body of a `with`; afterwards every module is as it was before."""
        before = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with no_grad():
                yield self
        finally:
            for module, mode in before:
                module.training = mode

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze (False) or thaw every parameter. Returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget all gradients; the next backward starts from nothing instead of adding to them."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, target) -> Module:
        """Convert the float parameters and buffers to a dtype, or move everything to a device. Returns the module.

        The parameters stay the same objects, so an optimiser keeps them; make it after this call, though: its own state
        is not converted (`optimizer.to(device)` moves it). Gradients are dropped. Raises TypeError for a target that is
        no float dtype, ValueError for an unknown device, RuntimeError for one that is not here.
        """
        moves = names_a_device(target)
        with no_grad():
            for _, tensor in self.named_state():
                if moves or tensor.dtype in FLOATS:
                    moved = tensor.to(target)
                    if moved.dtype not in FLOATS and tensor.dtype in FLOATS:
                        raise TypeError(
                            f"a module computes in floats, not {moved.dtype}; e.g. float32, float64, bfloat16"
                        )
                    tensor.data, tensor.version, tensor.grad = moved.data, moved.version, None
        return self

    # ------------------------------------------------------------ for people

    def extra_repr(self) -> str:
        """What stands between the brackets of a layer's repr."""
        return ""

    def __repr__(self):
        """The tree, with equal neighbours of a list written once."""
        runs = []  # [first name, last name, repr]
        for name, child in self.named_children():
            text = repr(child)
            if runs and runs[-1][2] == text and name.rpartition(".")[0] == runs[-1][0].rpartition(".")[0] != "":
                runs[-1][1] = name
            else:
                runs.append([name, name, text])
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not runs:
            return head + ")"
        lines = []
        for first, last, text in runs:
            label = f"{first}:" if first == last else f"{first}-{last.rpartition('.')[2]}: each"
            lines.append(f"  {label} " + text.replace("\n", "\n  "))
        return "\n".join([head, *lines, ")"])


def _found(name, value, kind):
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _found(f"{name}.{key}", item, kind)


def _listed(names, most=5):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_size(owner: str, **sizes) -> None:
    """Raises ValueError for the first size that is not a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{owner}: {name} must be a positive integer, got {size!r}")


def check_fraction(owner: str, **fractions) -> None:
    """Raises ValueError for the first value that is not a number in [0, 1)."""
    for name, value in fractions.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
            raise ValueError(f"{owner}: {name} must be a number in [0, 1), got {value!r}")
