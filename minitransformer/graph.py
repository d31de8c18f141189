"""The graph that forward leaves behind, and the walk back through it.

Order. A node is created after the nodes that it reads from, so counting creations numbers the graph topologically, and
the node with the highest number among those that wait has heard from all its readers. A heap of waiting nodes is the
whole traversal; nothing recurses, so a chain of 100,000 ops is as safe as one of three.
"""

from __future__ import annotations

import contextvars
import functools
import heapq

from .kernels.devices import xp

__all__ = ["enable_grad", "is_grad_enabled", "no_grad", "run_backward", "xp"]

_grad_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("grad_enabled", default=True)
is_grad_enabled = _grad_enabled.get


class _GradMode:
    enabled: bool

    def __init__(self):
        self._tokens = []  # a stack: one instance may be entered again inside itself

    def __enter__(self):
        self._tokens.append(_grad_enabled.set(self.enabled))
        return self

    def __exit__(self, *exception):
        _grad_enabled.reset(self._tokens.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            with type(self)():  # an instance a call: two threads may run the function at once
                return function(*args, **kwargs)

        return call


class no_grad(_GradMode):
    """Inside it nothing is recorded. A context manager, and a decorator as `@no_grad()`."""

    enabled = False


class enable_grad(_GradMode):
    """Records again inside `no_grad`."""

    enabled = True


class Version:
    """Counts in-place edits of one piece of memory; shared by all tensors that view it."""

    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


def memory(array):
    """The object that owns an array's memory: the same for two arrays exactly where one may view the other."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array


def edge(tensor):
    """Where a tensor's gradient goes: (node, output slot), or (leaf tensor, -1).

    Edges name nodes, not tensors, so that an activation which no backward needs is freed during forward.
    """
    return (tensor, -1) if tensor.node is None else (tensor.node, tensor.slot)


def run_backward(tensor, gradient, retain_graph=False) -> None:
    """Add d(tensor · gradient)/d(leaf) to the `.grad` of every leaf that the tensor depends on."""
    waiting: dict[int, tuple] = {}  # node number -> (node, what has arrived for each of its outputs)
    heap: list[int] = []

    def deliver(target, slot, gradient, owned):
        if slot < 0:
            target.accumulate(gradient, owned)
            return
        if target.number not in waiting:
            waiting[target.number] = (target, [None] * len(target.outputs))
            heapq.heappush(heap, -target.number)
        arrived = waiting[target.number][1]
        if arrived[slot] is None:
            arrived[slot] = (gradient, owned)
            return
        held, ours = arrived[slot]
        if ours:  # nobody else sees this array, so adding into it is safe
            held += gradient
        elif owned:
            gradient += held
            held = gradient
        else:
            held = xp(held).asarray(held + gradient)  # NumPy's sum of two 0-d arrays is a scalar
        arrived[slot] = (held, True)

    deliver(*edge(tensor), gradient, False)
    while heap:
        node, arrived = waiting.pop(-heapq.heappop(heap))
        cotangents = [None if a is None else a[0] for a in arrived]
        for slot, hook in node.hooks or ():
            if cotangents[slot] is not None:
                cotangents[slot] = hooked(hook, cotangents[slot])
        for target, gradient, owned in node.run_backward(cotangents, retain_graph):
            deliver(*target, gradient, owned)


def hooked(hook, gradient):
    """What a hook makes of a gradient: its return value, or the gradient itself for None."""
    changed = hook(gradient)
    if changed is None:
        return gradient
    changed = xp(gradient).asarray(changed)
    if changed.shape != gradient.shape or changed.dtype != gradient.dtype:
        raise RuntimeError(
            f"a gradient hook returned {changed.dtype}{list(changed.shape)} for {gradient.dtype}{list(gradient.shape)}"
        )
    return changed
