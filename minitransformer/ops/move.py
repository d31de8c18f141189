"""Moving between devices."""

from __future__ import annotations

from ..function import Function
from ..kernels.devices import Device, device, device_of
from ..tensor import Tensor

__all__ = ["move"]


class Move(Function):
    """y = x on another device,   dx = dy on x's device"""

    def forward(self, x, *, target):
        self.origin = device(device_of(x))
        return target.put(x)

    def backward(self, dy):
        return self.origin.put(dy)


def move(x, target: str | Device) -> Tensor:
    """x on a device ("cpu", "cuda", "cuda-emulated"); x itself where it lives there.

    Raises ValueError for an unknown device, RuntimeError for one that is not here.
    """
    target = device(target)
    return x if x.device == target.name else Move.apply(x, target=target)
