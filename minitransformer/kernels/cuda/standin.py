"""A stand-in for CuPy: its arrays in the computer's own memory, as strict as on a GPU, for a machine without one.

What goes wrong with CuPy goes wrong here, so that the whole path to the GPU is tested by everyone:

- nothing becomes a NumPy array by itself, and no NumPy array is taken in place of a device array: TypeError;
- a reduction gives an array without axes, not a number; to read it is a transfer;
- there is nothing that CuPy lacks: no `__array_namespace__`, no `max(initial=...)`, no `flags.writeable`;
- `RawModule` takes CUDA source, and the emulator (`emulator.py`) runs it.

`counts` tells what moved. A training step is allowed its batch on the way in and its loss on the way out.
"""

from __future__ import annotations

import contextlib
import math
import types
from dataclasses import dataclass

import ml_dtypes
import numpy as _numpy

DTYPES = "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
CREATION = "arange empty eye full linspace ones zeros".split()
FUNCTIONS = """
    abs add all any argmax argmin argsort argwhere array_equal arctan2 bincount broadcast_to ceil clip concat
    concatenate copysign cos cumsum diff divide einsum empty_like equal exp expand_dims expm1 flatnonzero flip floor
    full_like greater greater_equal isclose isfinite isinf isnan less less_equal log log1p log2 logaddexp
    logical_and logical_not logical_or matmul max maximum mean meshgrid min minimum moveaxis multiply negative
    nextafter nonzero not_equal ones_like outer pad permute_dims power prod put_along_axis ravel repeat reshape
    rint roll round searchsorted sign sin sort split sqrt square squeeze stack subtract sum swapaxes take
    take_along_axis tanh tensordot tile transpose tril triu trunc unravel_index var vstack where zeros_like
""".split()
METHODS = """
    all any argmax argmin argpartition argsort astype clip copy cumsum dot fill flatten max mean min nonzero
    prod put ravel repeat reshape round searchsorted sort squeeze std sum swapaxes take transpose var view
""".split()
LACKING = {"initial", "where", "mode"}  # keywords of NumPy's functions that CuPy's do not have


@dataclass
class Counts:
    """How often something went to the device and came from it, how many bytes, and how many kernels were launched."""

    to_device: int = 0
    from_device: int = 0
    bytes_to_device: int = 0
    bytes_from_device: int = 0
    launches: int = 0


counts = Counts()


@contextlib.contextmanager
def counting():
    """The counts of what the body of a `with` does, by themselves."""
    global counts
    outer, counts = counts, Counts()
    try:
        yield counts
    finally:
        counts = outer


class ndarray:
    """An array on the emulated device. `base` is the array whose memory it views, as in NumPy and CuPy."""

    __slots__ = ("_array", "base")
    __array_priority__ = 100
    __hash__ = None
    device_name = "cuda-emulated"

    def __init__(self, array, base=None):
        self._array, self.base = array, base

    # ------------------------------------------------------------ what NumPy may not do with it

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct it")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _call(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return _call(function, args, kwargs)

    # ------------------------------------------------------------ reading: the only ways back

    def get(self) -> _numpy.ndarray:
        counts.from_device += 1
        counts.bytes_from_device += self._array.nbytes
        return self._array.copy()

    def item(self, *args):
        return self.get().item(*args)

    def tolist(self):
        return self.get().tolist()

    def tobytes(self):
        return self.get().tobytes()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __repr__(self):
        return f"standin.{self.get()!r}"

    # ------------------------------------------------------------ what it is

    shape = property(lambda self: self._array.shape)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    strides = property(lambda self: self._array.strides)
    T = property(lambda self: _wrap(self._array.T, self))
    mT = property(lambda self: _wrap(self._array.mT, self))

    @property
    def flags(self):
        flags = self._array.flags
        names = ("c_contiguous", "f_contiguous", "fnc", "forc", "owndata")
        return types.SimpleNamespace(**{name: getattr(flags, name) for name in names})

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return _wrap(self._array[_plain(index)], self)

    def __setitem__(self, index, value):
        self._array[_plain(index)] = _plain(value)


def _plain(x):
    """The NumPy array behind a device array, also inside tuples and lists. Raises TypeError for a NumPy array."""
    if type(x) is ndarray:
        return x._array
    if isinstance(x, _numpy.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return type(x)(map(_plain, x)) if type(x) in (tuple, list) else x


def _wrap(x, *sources):
    """Device arrays of NumPy's results; one that views a source's memory has it for a base, or is the source."""
    if isinstance(x, (tuple, list)):
        return type(x)(_wrap(part, *sources) for part in x)
    if not isinstance(x, (_numpy.ndarray, _numpy.generic)):
        return x
    array, base = _numpy.asarray(x), None
    for source in sources:
        if source._array is array:
            return source
        if _root(source._array) is _root(array):
            base = source if source.base is None else source.base
    return ndarray(array, base)


def _root(array):
    while isinstance(array.base, _numpy.ndarray):
        array = array.base
    return array


def _sources(args):
    for a in args:
        if type(a) is ndarray:
            yield a
        elif type(a) in (tuple, list):
            yield from _sources(a)


def _call(function, args, kwargs, *sources):
    lacking = LACKING & kwargs.keys()
    if lacking:
        raise TypeError(f"{function.__name__}() got an unexpected keyword argument '{lacking.pop()}'")
    result = function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
    return _wrap(result, *sources, *_sources((*args, *kwargs.values())))


# ---------------------------------------------------------------- operators, methods, functions


def _operator(symbol):
    def operator(self, *others):
        result = getattr(self._array, symbol)(*map(_plain, others))
        return result if result is NotImplemented else _wrap(result, self)

    return operator


def _method(name):
    def method(self, *args, **kwargs):
        return _call(getattr(self._array, name), args, kwargs, self)

    return method


def _function(name):
    function = getattr(_numpy, name)

    def call(*args, **kwargs):
        return _call(function, args, kwargs)

    call.__name__ = name
    if isinstance(function, _numpy.ufunc):
        call.at = lambda *args: _call(function.at, args, {})
    return call


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    for _symbol in (f"__{_name}__", f"__r{_name}__", f"__i{_name}__"):
        setattr(ndarray, _symbol, _operator(_symbol))
for _name in "lt le gt ge eq ne neg pos abs invert".split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in (*CREATION, *FUNCTIONS):
    globals()[_name] = _function(_name)
for _name in DTYPES:
    globals()[_name] = getattr(_numpy, _name)
bfloat16 = ml_dtypes.bfloat16
inf, nan, pi, newaxis = math.inf, math.nan, math.pi, None


def asarray(x, dtype=None, *, copy=None):
    """A device array of numbers, lists or a NumPy array, which is a transfer; a device array stays where it is."""
    if type(x) is ndarray:
        return _wrap(x._array.astype(dtype or x.dtype, copy=bool(copy)), x)
    array = _numpy.array(x, dtype)
    counts.to_device += 1
    counts.bytes_to_device += array.nbytes
    return ndarray(array)


array = asarray


# ---------------------------------------------------------------- kernels


class RawModule:
    """CUDA source, compiled for the emulator: `RawModule(code=...).get_function(name)(grid, block, args)`."""

    def __init__(self, code=None, *, options=()):
        from .emulator import RawModule as Emulated

        self._module = Emulated(code=code, options=options)

    def get_function(self, name):
        return RawKernel(self._module.get_function(name))


class RawKernel:
    """A kernel, launched with device arrays: kernel(grid, block, args, shared_mem=bytes)."""

    def __init__(self, emulated):
        self._emulated = emulated

    def __call__(self, grid, block, args, *, shared_mem=0):
        counts.launches += 1
        self._emulated(grid, block, tuple(map(_plain, args)), shared_mem=shared_mem)

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._emulated.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self._emulated.max_dynamic_shared_size_bytes = size


cuda = types.SimpleNamespace(
    get_current_stream=lambda: types.SimpleNamespace(synchronize=lambda: None), is_available=lambda: True
)
