"""Arithmetic with broadcasting, and what chooses between values: power, abs, minimum, maximum, clamp, where."""

from __future__ import annotations

import math

from ..function import ElementWise, xp
from ..kernels.contract import FLOATS
from ..tensor import Tensor, as_tensor

__all__ = ["abs", "add", "clamp", "div", "maximum", "minimum", "mul", "neg", "pow", "sub", "where"]


class Add(ElementWise):
    """y = a + b,   da = dy,   db = dy"""

    def forward(self, a, b):
        return a + b

    def backward(self, dy):
        return dy, dy


class Subtract(ElementWise):
    """y = a - b,   da = dy,   db = -dy"""

    def forward(self, a, b):
        return a - b

    def backward(self, dy):
        return dy, -dy if self.needs[1] else None


class Multiply(ElementWise):
    """y = a b,   da = dy b,   db = dy a"""

    def forward(self, a, b):
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def backward(self, dy):
        a, b = self.saved
        return dy * b if self.needs[0] else None, dy * a if self.needs[1] else None


class Divide(ElementWise):
    """y = a / b,   da = dy / b,   db = -dy y / b"""

    def forward(self, a, b):
        y = a / b
        self.save(b, y)
        return y

    def backward(self, dy):
        b, y = self.saved
        da = dy / b
        return da, -da * y if self.needs[1] else None


class Negate(ElementWise):
    """y = -x,   dx = -dy"""

    def forward(self, x):
        return -x

    def backward(self, dy):
        return -dy


class Power(ElementWise):
    """y = a^b,   da = dy b a^(b-1),   db = dy y ln a

    A zero base has no logarithm; there db is its limit 0 for b > 0. Where b = 0, da is 0 even at a = 0.
    """

    def forward(self, a, b):
        y = a**b
        self.save(a, b, y if self.needs[1] else None)
        return y

    def backward(self, dy):
        a, b, y = self.saved
        np = xp(a)
        one, zero = a.dtype.type(1), a.dtype.type(0)
        da = db = None
        if self.needs[0]:
            da = np.where(b == 0, zero, dy * b * a ** np.where(b == 0, one, b - one))
        if self.needs[1]:
            db = dy * y * np.log(np.where(a == 0, one, a))
        return da, db


class Absolute(ElementWise):
    """y = |x|,   dx = dy sign x   (0 at 0)"""

    def forward(self, x):
        self.save(x)
        return xp(x).abs(x)

    def backward(self, dy):
        (x,) = self.saved
        return dy * xp(x).sign(x)


class Minimum(ElementWise):
    """y = min(a, b),   da = dy [a < b] + dy/2 [a = b],   db = dy - da"""

    def forward(self, a, b):
        self.save(a, b)
        return xp(a).minimum(a, b)

    def backward(self, dy):
        a, b = self.saved
        return _shared(dy, a < b, a == b)


class Maximum(ElementWise):
    """y = max(a, b),   da = dy [a > b] + dy/2 [a = b],   db = dy - da"""

    def forward(self, a, b):
        self.save(a, b)
        return xp(a).maximum(a, b)

    def backward(self, dy):
        a, b = self.saved
        return _shared(dy, a > b, a == b)


def _shared(dy, wins, ties):
    """A tie gives each side half, so that the two gradients always add up to dy."""
    da = dy * (wins.astype(dy.dtype) + ties.astype(dy.dtype) * dy.dtype.type(0.5))
    return da, dy - da


class Clamp(ElementWise):
    """y = min(max(x, low), high),   dx = dy [low <= x <= high]"""

    def forward(self, x, *, low=-math.inf, high=math.inf):
        self.save((x >= low) & (x <= high))
        np, y = xp(x), x
        for limit, bound in ((np.maximum, low), (np.minimum, high)):
            if x.dtype in FLOATS:
                y = limit(y, x.dtype.type(bound))
            elif math.isfinite(bound):  # no integer is infinite
                y = limit(y, bound)
        return y

    def backward(self, dy):
        (inside,) = self.saved
        return dy * inside.astype(dy.dtype)


class Where(ElementWise):
    """y = a where condition else b,   da = dy [condition],   db = dy [not condition]"""

    def forward(self, condition, a, b):
        self.save(condition)
        return xp(condition).where(condition, a, b)

    def backward(self, dy):
        (condition,) = self.saved
        zero = dy.dtype.type(0)
        np = xp(dy)
        return None, np.where(condition, dy, zero), np.where(condition, zero, dy)


def add(a, b) -> Tensor:
    """a + b with broadcasting."""
    return Add.apply(a, b)


def sub(a, b) -> Tensor:
    """a - b with broadcasting."""
    return Subtract.apply(a, b)


def mul(a, b) -> Tensor:
    """a b, element by element, with broadcasting."""
    return Multiply.apply(a, b)


def div(a, b) -> Tensor:
    """a / b with broadcasting."""
    return Divide.apply(a, b)


def neg(x) -> Tensor:
    """-x"""
    return Negate.apply(x)


def pow(a, b) -> Tensor:
    """a to the power b; b may be a number or a tensor."""
    return Power.apply(a, b)


def abs(x) -> Tensor:
    """|x|"""
    return Absolute.apply(x)


def minimum(a, b) -> Tensor:
    """The smaller of a and b, element by element."""
    return Minimum.apply(a, b)


def maximum(a, b) -> Tensor:
    """The larger of a and b, element by element."""
    return Maximum.apply(a, b)


def clamp(x, min=None, max=None) -> Tensor:
    """x limited to min..max; either may be None. Raises ValueError for min > max."""
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if low > high:
        raise ValueError(f"clamp: min {low} is above max {high}")
    return Clamp.apply(x, low=low, high=high)


def where(condition, a, b) -> Tensor:
    """a where the condition holds, b elsewhere, with broadcasting. Raises TypeError for a mask that is not boolean."""
    condition = as_tensor(condition)
    if condition.dtype != bool:
        raise TypeError(f"where: condition must be boolean, got {condition.dtype}; e.g. where(x > 0, x, y)")
    return Where.apply(condition, a, b)
