"""Elementary functions of one variable: exp, log, sqrt."""

from __future__ import annotations

from ..function import ElementWise, xp
from ..tensor import Tensor

__all__ = ["exp", "log", "sqrt"]


class Exp(ElementWise):
    """y = exp x,   dx = dy y"""

    def forward(self, x):
        y = xp(x).exp(x)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * y


class Log(ElementWise):
    """y = ln x,   dx = dy / x"""

    def forward(self, x):
        self.save(x)
        return xp(x).log(x)

    def backward(self, dy):
        (x,) = self.saved
        return dy / x


class Sqrt(ElementWise):
    """y = √x,   dx = dy / (2 y)"""

    def forward(self, x):
        y = xp(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy / (y + y)


def exp(x) -> Tensor:
    """e to the power x."""
    return Exp.apply(x)


def log(x) -> Tensor:
    """Natural logarithm."""
    return Log.apply(x)


def sqrt(x) -> Tensor:
    """Square root."""
    return Sqrt.apply(x)
