"""Lesson 01: an op and a topological order for the micro-engine, unbroadcast, an op for the engine."""

import sys

import numpy as np

from ... import gradient_check, ops
from ...function import unbroadcast as engines_unbroadcast
from ...tensor import tensor
from . import Wrong, arrays, check, cost, equal, parts, shown


class Value:
    """The lesson's value; the person's `divide` makes its own kind of it."""

    def __init__(self, data, parents=(), pull=lambda dy: ()):
        self.data, self.parents, self.pull = np.asarray(data, np.float64), parents, pull


def _divide(divide, a, b, dy):
    a_value, b_value = Value(a), Value(b)
    y = divide(a_value, b_value)
    inputs = {"a": a, "b": b, "dy": dy}
    if not all(hasattr(y, name) for name in ("data", "parents", "pull")):
        raise Wrong(f"divide must return a Value(data, parents, pull), got {type(y).__name__}")
    equal("y", y.data, a / b, inputs)
    if tuple(y.parents) != (a_value, b_value):
        raise Wrong(f"the parents must be (a, b), got {len(y.parents)} of them, or in another order")
    da, db = parts("pull", y.pull(dy), 2)
    equal("da", da, dy / b, inputs)
    equal("db", db, -dy * a / b**2, inputs, terms=4)


@check("01.1", "6 / 3, on paper")
def _(divide):
    _divide(divide, np.array(6.0), np.array(3.0), np.array(1.0))


@check("01.1", "arrays, and a cotangent that is not 1")
def _(divide):
    for seed, shape in enumerate(((2,), (2, 3), (0, 3), (4, 1, 5))):
        a, b, dy = arrays(seed, shape, shape, shape)
        _divide(divide, a, b + 3 * np.sign(b), dy)


@check("01.1", "large and small numbers")
def _(divide):
    _divide(divide, np.array([1e-8, 1e8]), np.array([1e5, -1e-5]), np.array([1.0, -2.0]))


@check("01.1", "finite differences agree")
def _(divide):
    a, b, dy = arrays(7, (3,), (3,), (3,))
    b, h = b + 3 * np.sign(b), 1e-6
    da, db = parts("pull", divide(Value(a), Value(b)).pull(dy), 2)
    for name, got, high, low in (
        ("da", da, divide(Value(a + h), Value(b)), divide(Value(a - h), Value(b))),
        ("db", db, divide(Value(a), Value(b + h)), divide(Value(a), Value(b - h))),
    ):
        right = dy * (high.data - low.data) / (2 * h)
        if not np.allclose(got, right, rtol=1e-7, atol=1e-7):
            raise Wrong(f"{name} = {shown(got)}, finite differences give {shown(right)}")


# ---------------------------------------------------------------- 01.2 kahn


def _order(kahn, y, nodes):
    """kahn(y) has every node once, y first, and each before its parents. nodes: name -> value."""
    names = {id(node): name for name, node in nodes.items()}
    got = kahn(y)
    if not isinstance(got, list):
        raise Wrong(f"kahn must return a list of values, got {type(got).__name__}")
    told = [names.get(id(node), "a stranger") for node in got]
    if sorted(told) != sorted(names.values()):
        raise Wrong(f"every node once, got {shown(told)}; the nodes are {shown(list(names.values()))}")
    place = {id(node): i for i, node in enumerate(got)}
    for node in got:
        for parent in node.parents:
            if place[id(parent)] <= place[id(node)]:
                raise Wrong(f"{names[id(parent)]} came before {names[id(node)]}, which reads it; got {shown(told)}")


def _graph(*edges):
    """Values by name from "y<-ab" (y reads a and b), in the order of making."""
    nodes = {}
    for edge in edges:
        name, _, parents = edge.partition("<-")
        nodes[name] = Value(0.0, tuple([nodes[p] for p in parents]))
    return nodes


@check("01.2", "a chain, and a value that is used twice by one op")
def _(kahn):
    for edges in (["y"], ["x", "y<-x"], ["x", "y<-xx"], ["x", "a<-xx", "y<-a"]):
        nodes = _graph(*edges)
        _order(kahn, nodes["y"], nodes)


@check("01.2", "the diamond, both ways round")
def _(kahn):
    for last in ("y<-ab", "y<-ba"):
        nodes = _graph("x", "c", "a<-xx", "b<-ca", last)
        _order(kahn, nodes["y"], nodes)


@check("01.2", "what does not lead to y takes no part, and is not waited for")
def _(kahn):
    nodes = _graph("x", "a<-x", "y<-ax")
    Value(0.0, (nodes["a"], nodes["x"]))
    _order(kahn, nodes["y"], nodes)


@check("01.2", "100 random graphs")
def _(kahn):
    rng = np.random.default_rng(0)
    for _ in range(100):
        nodes = [Value(0.0)]
        for _ in range(int(rng.integers(2, 12))):
            picked = rng.integers(0, len(nodes), size=int(rng.integers(1, 4)))
            nodes.append(Value(0.0, tuple([nodes[i] for i in picked])))
        reached, waiting = {id(nodes[-1]): nodes[-1]}, [nodes[-1]]
        while waiting:
            for parent in waiting.pop().parents:
                if id(parent) not in reached:
                    reached[id(parent)] = parent
                    waiting.append(parent)
        _order(kahn, nodes[-1], {f"n{nodes.index(node)}": node for node in reached.values()})


@check("01.2", "40 diamonds in a row: every edge once, not every path")
def _(kahn):
    nodes = {"x": Value(0.0)}
    y = nodes["x"]
    for i in range(40):
        y = nodes[f"d{i}"] = Value(0.0, (y, y))
    _order(kahn, y, nodes)


@check("01.2", "a chain longer than Python's stack")
def _(kahn):
    nodes = {"n0": Value(0.0)}
    for i in range(2 * sys.getrecursionlimit()):
        nodes[f"n{i + 1}"] = Value(0.0, (nodes[f"n{i}"],))
    _order(kahn, nodes[f"n{len(nodes) - 1}"], nodes)


# ---------------------------------------------------------------- 01.3 unbroadcast


BROADCASTS = [((2,), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), (2, 3)), ((4, 2, 3), (2, 1)), ((4, 2, 3), (1, 3)),
              ((5, 1), (1, 1)), ((4, 2, 3), (4, 1, 3)), ((0, 3), (1, 3)), ((2, 0), (0,)),
              ((2, 3, 4, 5), (3, 1, 1))]  # fmt: skip


@check("01.3", "a row and a column, on paper")
def _(unbroadcast):
    dy = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    equal("dx", unbroadcast(dy, (3,)), np.array([11.0, 22.0, 33.0]), {"dy": dy, "shape": (3,)})
    equal("dx", unbroadcast(dy, (2, 1)), np.array([[6.0], [60.0]]), {"dy": dy, "shape": (2, 1)})


@check("01.3", "scalars, axes in front, axes of length 1, axes of length 0")
def _(unbroadcast):
    for seed, (long, shape) in enumerate(BROADCASTS):
        dy = arrays(seed, long)[0]
        right = np.zeros(shape)
        for at in np.ndindex(long):
            right[tuple([0 if n == 1 else i for i, n in zip(at[len(long) - len(shape) :], shape)])] += dy[at]
        equal("dx", unbroadcast(dy, shape), right, {"dy": dy, "shape": shape}, terms=dy.size)


@check("01.3", "float32 stays float32")
def _(unbroadcast):
    dy = arrays(3, (2, 3), dtype=np.float32)[0]
    equal("dx", unbroadcast(dy, (2, 1)), dy.sum(1, keepdims=True), {"dy": dy, "shape": (2, 1)}, terms=3)


@check("01.3", "⟨dy, broadcast x⟩ = ⟨unbroadcast dy, x⟩")
def _(unbroadcast):
    for seed, (long, shape) in enumerate(BROADCASTS):
        dy, x = arrays(20 + seed, long, shape)
        left, right = (dy * x).sum(), (np.asarray(unbroadcast(dy, shape)) * x).sum()
        if abs(left - right) > 1e-12 * max(1.0, np.abs(dy).sum()):
            raise Wrong(f"⟨dy, x⟩ is {left:.10g}, ⟨dx, x⟩ is {right:.10g}\ndy = {shown(dy)}\nshape = {shape}")


@cost("01.3", "(64, 128, 256) to (128, 1), float32", engine=engines_unbroadcast)
def _():
    return (arrays(0, (64, 128, 256), dtype=np.float32)[0], (128, 1)), {}


# ---------------------------------------------------------------- 01.4 Softplus


def _softplus(op, x, dy):
    """(y, dx) through the engine."""
    t = tensor(x, requires_grad=True)
    y = op.apply(t)
    y.backward(dy)
    return y.data, t.grad


@check("01.4", "ln 2 at 0, slope ½")
def _(Softplus):
    y, dx = _softplus(Softplus, np.array([0.0]), np.array([1.0]))
    equal("y", y, np.array([np.log(2)]), {"x": 0.0})
    equal("dx", dx, np.array([0.5]), {"x": 0.0, "dy": 1.0})


@check("01.4", "a gradient check passes")
def _(Softplus):
    result = gradient_check.gradcheck(Softplus.apply, *arrays(0, (3, 4)), raise_on_failure=False)
    if not result:
        raise Wrong(str(result))


@check("01.4", "right at ±1000 too, forward and backward")
def _(Softplus):
    x, dy = np.array([-1000.0, -40.0, 40.0, 1000.0]), np.array([1.0, 2.0, 3.0, -1.0])
    with np.errstate(over="ignore", invalid="ignore"):
        y, dx = _softplus(Softplus, x, dy)
    for i in range(4):  # one by one: each in its own size
        right = np.logaddexp(0, x[i : i + 1])
        equal("y", y[i : i + 1], right, {"x": x[i]})
        equal("dx", dx[i : i + 1], dy[i : i + 1] * np.exp(x[i : i + 1] - right), {"x": x[i], "dy": dy[i]}, terms=2000)


@check("01.4", "float32 stays float32, any shape")
def _(Softplus):
    for shape in ((), (0, 2), (2, 1, 3)):
        x, dy = arrays(1, shape, shape, dtype=np.float32)
        y, dx = _softplus(Softplus, x, dy)
        right = np.logaddexp(np.float32(0), x)
        equal("y", y, right, {"x": x}, terms=4)
        equal("dx", dx, dy * np.exp(x - right), {"x": x, "dy": dy}, terms=4)


@cost("01.4", "one million float32, forward", engine=ops.FUNCTIONS["softplus"])
def _():
    return (tensor(arrays(0, (1000, 1000), dtype=np.float32)[0]),), {}
