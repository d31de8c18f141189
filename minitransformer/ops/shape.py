"""Shape: reshape, permute, expand, cat, stack, split, pad, flip, and the cast to another dtype."""

from __future__ import annotations

from numbers import Integral

from ..function import Function, unbroadcast, xp
from ..tensor import Tensor, as_dtype, sizes

__all__ = ["cast", "cat", "expand", "flip", "pad", "permute", "reshape", "split", "stack", "transpose"]


class Reshape(Function):
    """y = x in another shape, same order,   dx = dy in x's shape.   A view where the memory allows it."""

    def forward(self, x, *, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Permute(Function):
    """y = x with its axes in another order,   dx = dy with the order undone.   A view."""

    def forward(self, x, *, axes):
        self.inverse = sorted(range(len(axes)), key=axes.__getitem__)
        return xp(x).permute_dims(x, axes)

    def backward(self, dy):
        return xp(dy).permute_dims(dy, self.inverse)


class Expand(Function):
    """y = x repeated along axes of length 1, or new leading axes,   dx = Σ dy over them.   A view."""

    def forward(self, x, *, shape):
        self.shape = x.shape
        return xp(x).broadcast_to(x, shape)

    def backward(self, dy):
        return unbroadcast(dy, self.shape)


class Concatenate(Function):
    """y = the inputs one after the other along an axis,   dx_i = its own stretch of dy"""

    def forward(self, *parts, axis):
        self.axis, self.ends = axis, []
        for part in parts:
            self.ends.append((self.ends[-1] if self.ends else 0) + part.shape[axis])
        return xp(parts[0]).concat(parts, axis=axis)

    def backward(self, dy):
        return tuple(_split(dy, self.ends, self.axis))


class Split(Function):
    """y_i = consecutive stretches of x along an axis, as views,   dx = the dy_i one after the other"""

    def forward(self, x, *, ends, axis):
        self.axis = axis
        return tuple(_split(x, ends, axis))

    def backward(self, *dy):
        return xp(dy[0]).concat(dy, axis=self.axis)


def _split(x, ends, axis):
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, slice(start, end))] for start, end in zip([0, *ends], ends, strict=False)]


class Pad(Function):
    """y = x with a constant border,   dx = dy without the border"""

    def forward(self, x, *, widths, value):
        self.inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
        np = xp(x)
        y = np.full(tuple(b + n + a for (b, a), n in zip(widths, x.shape, strict=True)), value, dtype=x.dtype)
        y[self.inside] = x
        return y

    def backward(self, dy):
        return dy[self.inside]


class Flip(Function):
    """y = x with axes reversed,   dx = dy with them reversed again.   A view."""

    def forward(self, x, *, axis):
        self.axis = axis
        return xp(x).flip(x, axis=axis)

    def backward(self, dy):
        return xp(dy).flip(dy, axis=self.axis)


class Cast(Function):
    """y = x in another dtype,   dx = dy in x's dtype"""

    keeps_dtype = False

    def forward(self, x, *, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, dy):
        return dy.astype(self.dtype)


def _axis(name, x, axis):
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for shape {x.shape}")
    return axis % x.ndim


def reshape(x, *shape) -> Tensor:
    """x in another shape; one length may be -1. Raises ValueError where the sizes differ."""
    shape = sizes(shape)
    try:
        return Reshape.apply(x, shape=shape)
    except ValueError:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit into {shape}") from None


def permute(x, *axes) -> Tensor:
    """x with its axes in the given order. Raises ValueError unless every axis stands there once."""
    axes = tuple([_axis("permute", x, a) for a in sizes(axes)])
    if sorted(axes) != list(range(x.ndim)):
        raise ValueError(f"permute: {axes} does not name each of {x.ndim} axes once")
    return Permute.apply(x, axes=axes)


def transpose(x, axis0: int, axis1: int) -> Tensor:
    """x with two axes exchanged."""
    axes = list(range(x.ndim))
    i, j = _axis("transpose", x, axis0), _axis("transpose", x, axis1)
    axes[i], axes[j] = axes[j], axes[i]
    return Permute.apply(x, axes=tuple(axes))


def expand(x, *shape) -> Tensor:
    """x broadcast to a shape; -1 keeps a length."""
    shape = sizes(shape)
    kept = (1,) * (len(shape) - x.ndim) + x.shape
    shape = tuple(k if s == -1 else s for s, k in zip(shape, kept, strict=False))
    if len(kept) != len(shape) or any(k not in (1, s) for k, s in zip(kept, shape, strict=True)):
        raise ValueError(f"expand: shape {x.shape} does not broadcast to {shape}")
    return Expand.apply(x, shape=shape)


def cat(tensors, axis=0) -> Tensor:
    """Tensors one after the other along an axis; the other axes agree."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("cat: needs at least one tensor")
    axis = _axis("cat", tensors[0], axis)
    wanted = tensors[0].shape[:axis] + tensors[0].shape[axis + 1 :]
    for t in tensors[1:]:
        if t.ndim != tensors[0].ndim or t.shape[:axis] + t.shape[axis + 1 :] != wanted:
            raise ValueError(f"cat: shape {t.shape} does not fit beside {tensors[0].shape} along axis {axis}")
    return Concatenate.apply(*tensors, axis=axis)


def stack(tensors, axis=0) -> Tensor:
    """Tensors of one shape along a new axis."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("stack: needs at least one tensor")
    if len({t.shape for t in tensors}) > 1:
        raise ValueError(f"stack: shapes differ: {', '.join(str(t.shape) for t in tensors)}")
    shape, n = tensors[0].shape, tensors[0].ndim + 1
    if not -n <= axis < n:
        raise ValueError(f"stack: axis {axis} is out of range for shape {shape} and one axis more")
    axis %= n
    return cat([reshape(t, *shape[:axis], 1, *shape[axis:]) for t in tensors], axis)


def split(x, sizes, axis=0) -> tuple[Tensor, ...]:
    """Consecutive stretches along an axis: of the given sizes, or of one size (the last may be shorter)."""
    axis = _axis("split", x, axis)
    length = x.shape[axis]
    if isinstance(sizes, Integral):
        if sizes < 1:
            raise ValueError(f"split: a stretch must be at least 1 long, got {sizes}")
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)] or [0]
    if sum(sizes) != length or not sizes or min(sizes) < 0:
        raise ValueError(f"split: sizes {list(sizes)} do not add up to {length}, the length of axis {axis}")
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return Split.apply(x, ends=tuple(ends[1:]), axis=axis)


def pad(x, widths, value=0.0) -> Tensor:
    """A constant border: widths is ((before, after), ...) for every axis."""
    widths = tuple((int(before), int(after)) for before, after in widths)
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ValueError(f"pad: needs {x.ndim} pairs of non-negative widths, got {widths}")
    return Pad.apply(x, widths=widths, value=value)


def flip(x, axis) -> Tensor:
    """x with one axis, or several, reversed."""
    axes = (axis,) if isinstance(axis, Integral) else tuple(axis)
    return Flip.apply(x, axis=tuple([_axis("flip", x, a) for a in axes]))


def cast(x, dtype) -> Tensor:
    """x in another dtype; x itself where it has that dtype."""
    dtype = as_dtype(dtype)
    return x if x.dtype == dtype else Cast.apply(x, dtype=dtype)
