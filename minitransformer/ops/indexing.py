"""Indexing: x[...] with slices and integer or boolean arrays, gather and scatter-add."""

from __future__ import annotations

import numpy

from ..function import Function, xp
from ..kernels.devices import device, is_array
from ..kernels.precision import computed_in_float32
from ..tensor import Tensor

__all__ = ["gather", "index", "scatter_add"]


class Index(Function):
    """y = x[index],   dx = 0 but dx[index] += dy   (an element read twice gets both cotangents)

    Integer arrays of the index come as further inputs, in the order of their places in `template`.
    """

    def forward(self, x, *arrays, template):
        self.shape = x.shape
        self.template = template
        self.save(*arrays)
        return x[_index(template, arrays)]

    @computed_in_float32
    def backward(self, dy):
        np = xp(dy)
        dx = np.zeros(self.shape, dtype=dy.dtype)
        if self.saved:
            np.add.at(dx, _index(self.template, self.saved), dy)
        else:
            dx[_index(self.template, ())] = dy
        return (dx, *[None] * len(self.saved))


def _template(index, where) -> tuple:
    """A hashable description of an index, and the arrays in it; lists become arrays on the device `where`.

    Slices become tuples: they hash from Python 3.12 on.
    """
    arrays, places = [], []
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, list):
            part = numpy.asarray(part)
            part = where.put(part if part.size else part.astype(numpy.int64))
        if isinstance(part, Tensor) or is_array(part):
            part = part if isinstance(part, Tensor) else Tensor(part)
            if part.dtype.kind not in "iub":
                raise TypeError(f"an index array holds integers or booleans, this one {part.dtype}")
            arrays.append(part)
            places.append("array")
        elif isinstance(part, slice):
            places.append(("slice", part.start, part.stop, part.step))
        elif part is None or part is Ellipsis or isinstance(part, (int, numpy.integer)):
            places.append(part)
        else:
            raise TypeError(f"cannot index with {type(part).__name__}")
    return tuple(places), arrays


def _index(template, arrays):
    arrays = iter(arrays)
    return tuple(
        next(arrays) if part == "array" else slice(*part[1:]) if isinstance(part, tuple) else part for part in template
    )


class Gather(Function):
    """y[i, j] = x[i, index[i, j]] (axis 1 of two),   dx[i, index[i, j]] += dy[i, j]"""

    def forward(self, x, index, *, axis):
        self.axis, self.shape = axis, x.shape
        self.save(index)
        return xp(x).take_along_axis(x, index, axis=axis)

    @computed_in_float32
    def backward(self, dy):
        (index,) = self.saved
        dx = xp(dy).zeros(self.shape, dtype=dy.dtype)
        _add_along(dx, index, dy, self.axis)
        return dx, None


class ScatterAdd(Function):
    """y = x but y[i, index[i, j]] += source[i, j] (axis 1 of two),   dx = dy,   dsource[i, j] = dy[i, index[i, j]]"""

    @computed_in_float32
    def forward(self, x, index, source, *, axis):
        self.axis = axis
        self.save(index)
        y = x.copy()
        _add_along(y, index, source, axis)
        return y

    def backward(self, dy):
        (index,) = self.saved
        return dy, None, xp(dy).take_along_axis(dy, index, axis=self.axis)


def _add_along(target, index, source, axis):
    np = xp(target)
    places = list(np.meshgrid(*(np.arange(n) for n in index.shape), indexing="ij", sparse=True))
    places[axis] = index
    np.add.at(target, tuple(places), source)


def index(x, key) -> Tensor:
    """x[key]: integers, slices, None, ..., integer or boolean arrays or tensors, as in NumPy."""
    template, arrays = _template(key, device(x.device))
    return Index.apply(x, *arrays, template=template)


def _checked(name, x, axis, index):
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for shape {x.shape}")
    axis %= x.ndim
    index = index if isinstance(index, Tensor) else Tensor(index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name}: index must hold integers, got {index.dtype}")
    fits = index.ndim == x.ndim and all(
        i == n for a, (i, n) in enumerate(zip(index.shape, x.shape, strict=True)) if a != axis
    )
    if not fits:
        raise ValueError(f"{name}: index {index.shape} must agree with x {x.shape} on every axis but {axis}")
    if index.device == "cpu" and index.size and (index.data.min() < 0 or index.data.max() >= x.shape[axis]):
        raise IndexError(f"{name}: an index is outside 0..{x.shape[axis] - 1}")
    return axis, index


def gather(x, axis, index) -> Tensor:
    """Pick along one axis: y[i, j] = x[i, index[i, j]] for axis 1 of two. x and index agree on the other axes."""
    axis, index = _checked("gather", x, axis, index)
    return Gather.apply(x, index, axis=axis)


def scatter_add(x, axis, index, source) -> Tensor:
    """Add along one axis: y[i, index[i, j]] += source[i, j] for axis 1 of two. index and source have one shape."""
    axis, index = _checked("scatter_add", x, axis, index)
    if tuple(source.shape) != index.shape:
        raise ValueError(f"scatter_add: source {tuple(source.shape)} and index {index.shape} differ")
    return ScatterAdd.apply(x, index, source, axis=axis)
