"""A tensor is an array and the memory of how it was made.

`.data` is the array (NumPy, or CuPy on a GPU), `.grad` an array too, once `backward()` has run. A tensor lives where
its array does, and moves by `.to(device)` only. Edits through `.data` are not checked; edits through the tensor
(`x[0] = 1`, `x.add_(y)`) are counted, and `backward()` refuses to use an array that was edited after it had been saved.
"""

from __future__ import annotations

from numbers import Integral

import ml_dtypes
import numpy as np

from .graph import Version, hooked, is_grad_enabled, run_backward, xp
from .kernels.contract import FLOATS
from .kernels.devices import device as open_device
from .kernels.devices import device_of, fetch, is_array, same_device

__all__ = ["Tensor", "tensor", "as_tensor", "zeros", "ones", "full", "arange", "as_dtype"]

_NUMBERS = "iufb"


def as_dtype(dtype) -> np.dtype:
    """np.dtype of a name ("float32", "bfloat16"), a type or a dtype. Raises TypeError for anything else."""
    if dtype == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    try:
        return np.dtype(dtype)
    except TypeError:
        raise TypeError(f'not a dtype: {dtype!r}; e.g. "float32", "float64", "float16", "bfloat16", "int64"') from None


class Tensor:
    """An n-dimensional array with a gradient.

    data: an array, number or (nested) list; Python floats become float32. requires_grad: whether backward() fills
    `.grad`.
    """

    __slots__ = ("__weakref__", "data", "grad", "hooks", "node", "requires_grad", "slot", "version")
    __array_priority__ = 1000  # array + tensor asks the tensor

    def __init__(self, data, requires_grad: bool = False, dtype=None):
        source, data = data, plain(data)
        if not is_array(data):
            data = np.asarray(data)
            data = data.astype(np.float32) if data.dtype == np.float64 else data
        if isinstance(data, np.generic):
            data = np.asarray(data)
        if dtype is not None:
            data = data.astype(as_dtype(dtype), copy=False)
        if data.dtype.kind not in _NUMBERS and data.dtype not in FLOATS:
            raise TypeError(f"a tensor holds numbers, got {data.dtype}")
        if requires_grad and data.dtype not in FLOATS:
            raise TypeError(f"only float tensors can require a gradient, this one is {data.dtype}")
        self.data, self.grad, self.requires_grad = data, None, requires_grad
        shares = isinstance(source, Tensor) and source.data is data  # the same memory has the same counter
        self.node, self.slot, self.hooks, self.version = None, -1, None, source.version if shares else Version()

    @classmethod
    def wrap(cls, array, node=None, slot=-1, version=None) -> Tensor:
        """A tensor around an array, nothing checked: the engine's constructor. With a node, that op's output `slot`."""
        result = cls.__new__(cls)
        result.data, result.grad, result.requires_grad = array, None, node is not None
        result.node, result.slot, result.hooks = node, slot, None
        result.version = Version() if version is None else version
        return result

    # ------------------------------------------------------------ what it is

    @property
    def shape(self):
        return self.data.shape

    @property
    def ndim(self):
        return self.data.ndim

    @property
    def size(self):
        return self.data.size

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def device(self) -> str:
        """Where the array lives: "cpu" for NumPy, "cuda" for CuPy, "cuda-emulated" for its stand-in."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("a tensor without axes cannot be iterated over; .item() is its number")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        body = np.array2string(fetch(self.data), separator=", ", prefix="tensor(", threshold=200, precision=4)
        extra = "" if self.data.dtype == np.float32 else f", dtype={self.data.dtype}"
        extra += "" if self.device == "cpu" else f', device="{self.device}"'
        if self.node is not None:
            extra += f", made by {type(self.node).__name__}"
        elif self.requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({body}{extra})"

    def __format__(self, spec):
        return format(self.item(), spec) if spec and self.size == 1 else format(repr(self), spec)

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.data)

    def __int__(self):
        return int(self.data)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("a tensor does not turn into an array by itself: use .numpy()")

    def item(self):
        """The Python number of a tensor with one element."""
        return self.data.item()

    def tolist(self):
        return self.data.tolist()

    def numpy(self) -> np.ndarray:
        """The array itself (no copy). Raises TypeError where it does not live on the CPU: move it with .to("cpu")."""
        if self.device != "cpu":
            raise TypeError(f'this tensor lives on {self.device}: .to("cpu") first')
        return self.data

    # ------------------------------------------------------------ gradients

    def backward(self, gradient=None, retain_graph: bool = False) -> None:
        """Fill `.grad` of every leaf that this tensor depends on, adding to what is there.

        gradient: the cotangent, an array or tensor of this tensor's shape, or one number for all elements; 1 unless
        given, for a tensor with one element.
        Raises RuntimeError where nothing was recorded or the graph has been used and freed.
        """
        if not self.requires_grad:
            raise RuntimeError("backward(): this tensor does not depend on anything that requires a gradient")
        if gradient is None:
            if self.size != 1:
                raise ValueError(
                    f"backward() of a tensor of shape {self.shape} needs its cotangent: backward(gradient)"
                )
            gradient = 1
        gradient, arrays = plain(gradient), xp(self.data)
        same_device("backward()", self.data, gradient)
        if isinstance(gradient, (int, float)):
            gradient = arrays.full(self.shape, gradient, dtype=self.dtype)
        gradient = arrays.asarray(gradient, dtype=self.dtype)
        if gradient.shape != self.shape:
            raise ValueError(f"backward(): the cotangent has shape {gradient.shape}, the tensor {self.shape}")
        run_backward(self, gradient, retain_graph)

    def accumulate(self, gradient, owned):
        """A leaf's share of backward; `owned` says that nobody else holds the array."""
        for _, hook in self.hooks or ():
            changed = hooked(hook, gradient)
            owned = owned and changed is gradient
            gradient = changed
        if self.grad is None:
            self.grad = gradient if owned else xp(gradient).asarray(gradient, copy=True)
        else:
            self.grad += gradient

    def register_hook(self, hook):
        """Call hook(gradient array) when this tensor's gradient is complete; what it returns replaces the gradient.

        For a leaf it runs at each contribution that arrives. Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        owner = self if self.node is None else self.node
        entry = (self.slot, hook)
        owner.hooks = [*(owner.hooks or ()), entry]

        def remove():
            owner.hooks = [e for e in owner.hooks if e is not entry]

        return remove

    def retain_grad(self) -> None:
        """Keep `.grad` of a tensor in the middle of the graph too."""
        if self.node is not None:
            self.register_hook(lambda gradient: setattr(self, "grad", gradient.copy()))

    def detach(self) -> Tensor:
        """The same memory, cut from the graph."""
        return Tensor.wrap(self.data, version=self.version)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if self.node is not None:
            raise RuntimeError(
                "requires_grad_: only a leaf can be switched; use .detach() to cut a tensor from its graph"
            )
        if requires_grad and self.dtype not in FLOATS:
            raise TypeError(f"only float tensors can require a gradient, this one is {self.dtype}")
        self.requires_grad = requires_grad
        return self

    # ------------------------------------------------------------ edits in place

    def _edit(self, what, other=None):
        if is_grad_enabled() and isinstance(other, Tensor) and other.requires_grad:
            raise RuntimeError(f"{what}: no gradient would reach the value; use cat, stack or where, or .detach() it")
        if is_grad_enabled() and self.requires_grad:
            kind = "a leaf that requires a gradient" if self.node is None else "a tensor with a history"
            raise RuntimeError(f"{what} edits {kind} in place: do it under no_grad(), or out of place")
        same_device(what, self.data, plain(other))
        self.version.count += 1
        return self.data

    def __setitem__(self, index, value):
        self._edit("x[...] = value", value)[_plain_index(index)] = plain(value)

    def add_(self, other, alpha=1.0) -> Tensor:
        """self += alpha * other, in place."""
        data, other = self._edit("add_", other), plain(other)
        data += other if alpha == 1.0 else data.dtype.type(alpha) * other
        return self

    def mul_(self, other) -> Tensor:
        """self *= other, in place."""
        data = self._edit("mul_", other)
        data *= plain(other)
        return self

    def copy_(self, other) -> Tensor:
        """self[...] = other, in place."""
        self._edit("copy_", other)[...] = plain(other)
        return self

    def zero_(self) -> Tensor:
        self._edit("zero_")[...] = 0
        return self

    # The operators and methods that are ops are attached by `minitransformer.ops`.


def plain(x):
    """The array of a tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def _plain_index(index):
    return tuple(map(plain, index)) if isinstance(index, tuple) else plain(index)


def tensor(data, dtype=None, requires_grad: bool = False, device=None) -> Tensor:
    """A tensor with memory of its own: numbers, lists or an array, copied; where the array lives unless told."""
    made = Tensor(data, dtype=dtype)
    array = made.data if device is None else open_device(device).put(made.data)
    shares = array is made.data and (is_array(data) or isinstance(data, Tensor))
    return Tensor(array.copy() if shares else array, requires_grad=requires_grad)


def as_tensor(data, dtype=None) -> Tensor:
    """A tensor of the same memory where possible; a tensor is returned as it is."""
    if isinstance(data, Tensor) and (dtype is None or data.dtype == as_dtype(dtype)):
        return data
    return Tensor(data, dtype=dtype)


def zeros(*shape, dtype="float32", requires_grad=False, device="cpu") -> Tensor:
    return Tensor(open_device(device).arrays.zeros(sizes(shape), dtype=as_dtype(dtype)), requires_grad)


def ones(*shape, dtype="float32", requires_grad=False, device="cpu") -> Tensor:
    return Tensor(open_device(device).arrays.ones(sizes(shape), dtype=as_dtype(dtype)), requires_grad)


def full(shape, value, dtype="float32", requires_grad=False, device="cpu") -> Tensor:
    return Tensor(open_device(device).arrays.full(shape, value, dtype=as_dtype(dtype)), requires_grad)


def arange(*args, dtype="int64", device="cpu") -> Tensor:
    return Tensor(open_device(device).arrays.arange(*args, dtype=as_dtype(dtype)))


def sizes(shape):
    """f(2, 3) and f((2, 3)) mean the same."""
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], Integral) else shape
