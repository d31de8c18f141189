"""Sample inputs of every op, for the gradient checks: small, away from kinks, in the shapes where mistakes hide.

A sample is a function and its float64 inputs (integer and boolean arrays stay as they are). `draw` gives normal
numbers. An op without an entry here fails the suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..kernels.quantized_weight import QuantizedWeight
from ..random import Generator
from ..recomputation import checkpoint
from ..tensor import Tensor
from . import FUNCTIONS as F
from .shape import Cast

__all__ = ["SAMPLES", "Sample"]


@dataclass(frozen=True)
class Sample:
    """A function of tensors with inputs. zero: inputs whose derivative is truly 0. condition: widens the float32 bound
    where the function amplifies rounding."""

    note: str
    function: Callable
    inputs: tuple
    zero: tuple = ()
    condition: float = 1.0


SAMPLES: dict[str, Callable] = {}


class _Draw:
    """Shapes to numbers: normal, or kept away from where an op has a kink or a pole."""

    def __init__(self, generator: Generator):
        self.generator = generator

    def __call__(self, *shape):
        return self.generator.normal(shape, dtype=np.float64)

    def positive(self, *shape):
        return self.generator.uniform(shape, 0.5, 2.0, dtype=np.float64)

    def away_from_zero(self, *shape):
        x = self(*shape)
        return np.where(np.abs(x) < 0.1, x + np.copysign(0.2, x), x)

    def distinct(self, *shape):
        """Every two values at least 0.1 apart, for max, min and the like."""
        n = math.prod(shape)
        return (0.3 * self.generator.permutation(n) - 0.15 * n + 0.05).reshape(shape)

    def integers(self, high, *shape):
        return self.generator.integers(0, high, shape)

    def distribution(self, *shape):
        x = self.positive(*shape)
        return x / x.sum(-1, keepdims=True)


def samples(name):
    """Register a generator function: it takes `draw` and yields (note, function, inputs[, options])."""

    def register(make):
        def run(generator):
            for note, function, inputs, *options in make(_Draw(generator)):
                yield Sample(note, function, tuple(inputs), **(options[0] if options else {}))

        SAMPLES[name] = run
        return make

    return register


def _binary(name, function, left="__call__", right="__call__"):
    @samples(name)
    def _(draw):
        a, b = getattr(draw, left), getattr(draw, right)
        yield "same shape", function, (a(2, 3), b(2, 3))
        yield "row and column", function, (a(3, 1), b(1, 4))
        yield "number and array", function, (a(), b(2, 3))
        yield "new leading axes", function, (a(2, 1, 3), b(3))
        yield "transposed", function, (a(3, 2).T, b(2, 3))
        yield "empty", function, (a(0, 3), b(1, 3)), {"zero": (0, 1)}


def _unary(name, function, draw_from="__call__", **options):
    @samples(name)
    def _(draw):
        x = getattr(draw, draw_from)
        yield "matrix", function, (x(3, 4),), options
        yield "a number", function, (x(),), options
        yield "a strided view", function, (x(4, 6)[::2, ::-3],), options
        yield "empty", function, (x(0, 2),), {"zero": (0,)}


_binary("Add", F["add"])
_binary("Subtract", F["sub"])
_binary("Multiply", F["mul"])
_binary("Divide", F["div"], right="away_from_zero")
_binary("Power", F["pow"], left="positive")
_binary("Minimum", lambda a, b: F["minimum"](a, b + 0.05), left="distinct")
_binary("Maximum", lambda a, b: F["maximum"](a, b + 0.05), left="distinct")
_unary("Negate", F["neg"])
_unary("Absolute", F["abs"], "away_from_zero")
_unary("Exp", F["exp"])
_unary("Log", F["log"], "positive")
_unary("Sqrt", F["sqrt"], "positive")
_unary("Tanh", F["tanh"])
_unary("Sigmoid", F["sigmoid"])
_unary("ReLU", lambda x: F["relu"](x) + F["relu"](x * -0.5), "away_from_zero")
_unary("SiLU", F["silu"])
_unary("Softplus", F["softplus"])


@samples("TopkActivation")
def _topk_activation(draw):
    yield "k", lambda x: F["topk_activation"](x, 3), (draw.distinct(4, 7),)
    yield "a fraction, by magnitude", _kept_by_magnitude, (draw.distinct(2, 3, 5),)
    yield "strided", lambda x: F["topk_activation"](x.T, 2), (draw.distinct(5, 3),)
    yield "all of them", lambda x: F["topk_activation"](x, 4), (draw.distinct(3, 4),)
    # The derivative of "straight through" is not that of its forward, except where nothing is cut.
    yield "straight through", lambda x: F["topk_activation"](x, 4, backward="straight_through"), (draw(3, 4),)
    yield "empty", lambda x: F["topk_activation"](x, 2), (draw(0, 4),)


def _kept_by_magnitude(x):
    return F["topk_activation"](x, fraction=0.4, by="magnitude")


@samples("Clamp")
def _clamp(draw):
    x = np.array([[-2.0, -0.3, 0.4], [0.9, 1.7, -1.1]])
    yield "both sides", lambda t: F["clamp"](t, -1.0, 0.7), (x,)
    yield "below only", lambda t: F["clamp"](t, min=-1.0), (x,)


@samples("Where")
def _where(draw):
    yield "same shape", F["where"], (draw(3, 4) > 0, draw(3, 4), draw(3, 4))
    yield "broadcast", F["where"], (np.array([True, False, True]), draw(2, 3), draw())


@samples("GELU")
def _gelu(draw):
    for approximate in ("none", "tanh"):
        f = lambda x, a=approximate: F["gelu"](x, a)  # noqa: E731
        yield approximate, f, (draw(3, 5),)
        yield f"{approximate}, both tails", f, (np.array([-6.0, -2.0, 0.0, 0.5, 2.0, 6.0]),)
        yield f"{approximate}, strided", f, (draw(4, 6)[:, ::2].T,)


@samples("MatMul")
def _matmul(draw):
    f = F["matmul"]
    yield "matrices", f, (draw(3, 4), draw(4, 2))
    yield "a batch", f, (draw(2, 3, 4), draw(2, 4, 2))
    yield "broadcast batch", f, (draw(2, 1, 2, 3), draw(3, 3, 2))
    yield "one matrix for all", f, (draw(2, 3, 4), draw(4, 2))
    yield "vector and matrix", f, (draw(4), draw(4, 3))
    yield "matrix and vector", f, (draw(3, 4), draw(4))
    yield "transposed", f, (draw(4, 3).T, draw(2, 4).T)
    yield "strided", f, (draw(6, 8)[::2, ::2], draw(4, 2)[::-1])
    yield "odd sizes", f, (draw(7, 13), draw(13, 5))
    yield "nothing to sum", f, (draw(2, 0), draw(0, 3)), {"zero": (0, 1)}


@samples("Linear")
def _linear(draw):
    f = F["linear"]
    yield "with bias", f, (draw(3, 4), draw(2, 4), draw(2))
    yield "without bias", f, (draw(3, 4), draw(2, 4), None)
    yield "batch and time", f, (draw(2, 3, 4), draw(5, 4), draw(5))
    yield "a vector", f, (draw(4), draw(2, 4), draw(2))
    yield "strided input", f, (draw(3, 8)[:, ::2], draw(2, 4), draw(2))


def _reduction(name, draw_from="__call__", extra=None):
    @samples(name)
    def _(draw):
        x, f = getattr(draw, draw_from), F[name.lower() if name != "LogSumExp" else "logsumexp"]
        yield "all", f, (x(3, 4),)
        yield "one axis", lambda t: f(t, axis=0), (x(3, 4),)
        yield "last axis kept", lambda t: f(t, axis=-1, keepdims=True), (x(2, 3, 2),)
        yield "two axes", lambda t: f(t, axis=(0, 2)), (x(2, 3, 2),)
        yield "strided", lambda t: f(t, axis=1), (x(3, 8)[::-1, ::2],)


for _name, _from in (
    ("Sum", "__call__"),
    ("Mean", "__call__"),
    ("Max", "distinct"),
    ("Min", "distinct"),
    ("LogSumExp", "__call__"),
):
    _reduction(_name, _from)


@samples("Variance")
def _variance(draw):
    f = F["var"]
    yield "all", f, (draw(3, 4),)
    yield "population", lambda x: f(x, axis=-1, correction=0), (draw(3, 4),)
    yield "two axes kept", lambda x: f(x, axis=(0, 1), keepdims=True), (draw(2, 3, 2),)


@samples("CumulativeSum")
def _cumsum(draw):
    yield "rows", lambda x: F["cumsum"](x, 0), (draw(4, 3),)
    yield "last axis", lambda x: F["cumsum"](x, -1), (draw(2, 5),)


@samples("Reshape")
def _reshape(draw):
    yield "flatten", lambda x: F["reshape"](x, -1), (draw(3, 4),)
    yield "of a transposed array", lambda x: F["reshape"](x, 2, 6), (draw(4, 3).T,)


@samples("Permute")
def _permute(draw):
    yield "three axes", lambda x: F["permute"](x, 2, 0, 1), (draw(2, 3, 4),)
    yield "transpose", lambda x: F["transpose"](x, -1, -2), (draw(3, 2),)


@samples("Expand")
def _expand(draw):
    yield "stretched", lambda x: F["expand"](x, 3, 4), (draw(3, 1),)
    yield "new axes", lambda x: F["expand"](x, 2, 3, 4), (draw(4),)


@samples("Concatenate")
def _concatenate(draw):
    yield "three along rows", lambda a, b, c: F["cat"]([a, b, c]), (draw(1, 3), draw(2, 3), draw(3, 3))
    yield "last axis", lambda a, b: F["cat"]([a, b], -1), (draw(2, 3), draw(2, 1))
    yield "stack", lambda a, b: F["stack"]([a, b], 1), (draw(2, 3), draw(2, 3))


@samples("Split")
def _split(draw):
    yield "three parts", lambda x: F["split"](x, [1, 3, 2], -1), (draw(2, 6),)
    yield "one part unused", lambda x: F["split"](x, 2)[1], (draw(5, 2),)


@samples("Pad")
def _pad(draw):
    yield "two axes", lambda x: F["pad"](x, ((1, 0), (2, 1)), 3.0), (draw(2, 3),)


@samples("Flip")
def _flip(draw):
    yield "two axes", lambda x: F["flip"](x, (0, 2)), (draw(2, 2, 3),)


@samples("Cast")
def _cast(draw):
    # Finite differences need float64 throughout, so the op is made to run where the function would return x itself.
    yield "to its own dtype", lambda x: Cast.apply(x, dtype=x.dtype), (draw(3, 2),)
    yield "of another tensor", lambda x, y: F["cast"](y, x.dtype) * x, (draw(3, 2), np.arange(6).reshape(3, 2))


@samples("Index")
def _index(draw):
    yield "slices", lambda x: x[1:, ::-2], (draw(3, 5),)
    yield "an integer", lambda x: x[1], (draw(3, 2),)
    yield "ellipsis and new axis", lambda x: x[..., None, 0], (draw(2, 3, 2),)
    yield "repeated rows", lambda x, i: x[i], (draw(4, 2), np.array([0, 2, 2, 0, 2]))
    yield "pairs", lambda x, i, j: x[i, j], (draw(3, 4), np.array([0, 2, 2]), np.array([1, 3, 3]))
    yield "a mask", lambda x, m: x[m], (draw(3, 4), draw(3, 4) > 0)
    yield "array beside a slice", lambda x, i: x[:, i], (draw(2, 4), np.array([3, 0, 3]))


@samples("Gather")
def _gather(draw):
    yield "last axis, repeats", lambda x, i: F["gather"](x, 1, i), (draw(3, 4), np.array([[0, 0], [3, 1], [2, 2]]))
    yield "first axis", lambda x, i: F["gather"](x, 0, i), (draw(4, 2), draw.integers(4, 3, 2))


@samples("ScatterAdd")
def _scatter_add(draw):
    f = lambda x, i, s: F["scatter_add"](x, 1, i, s)  # noqa: E731
    yield "repeats", f, (draw(2, 4), np.array([[0, 0, 3], [1, 1, 1]]), draw(2, 3))


@samples("Embedding")
def _embedding(draw):
    f = lambda w, i: F["embedding"](i, w)  # noqa: E731
    yield "repeated tokens", f, (draw(5, 3), np.array([[1, 1, 4], [0, 1, 4]]))
    yield "one token", f, (draw(3, 2), np.array(2))


@samples("Softmax")
def _softmax(draw):
    f = F["softmax"]
    yield "last axis", f, (draw(3, 5),)
    yield "first axis", lambda x: f(x, 0), (draw(4, 3),)
    yield "middle axis", lambda x: f(x, 1), (draw(2, 3, 2),)
    yield "large numbers", f, (draw(2, 4) + 1000.0,), {"condition": 1000.0}
    yield "strided", f, (draw(3, 10)[:, ::2],)
    yield "one entry", f, (draw(3, 1),), {"zero": (0,)}


@samples("LogSoftmax")
def _log_softmax(draw):
    f = F["log_softmax"]
    yield "last axis", f, (draw(3, 5),)
    yield "first axis", lambda x: f(x, 0), (draw(4, 3),)
    yield "large numbers", f, (draw(2, 4) + 1000.0,), {"condition": 1000.0}


@samples("LayerNorm")
def _layer_norm(draw):
    f = F["layer_norm"]
    yield "rows", f, (draw(3, 6), draw(6), draw(6))
    yield "without bias", f, (draw(3, 6), draw(6), None)
    yield "batch and time", f, (draw(2, 2, 5), draw(5), draw(5))
    yield "off centre", f, (draw(2, 7) + 30.0, draw(7), draw(7)), {"condition": 30.0}
    yield "strided", f, (draw(3, 12)[:, ::2], draw(6), draw(6))


@samples("RMSNorm")
def _rms_norm(draw):
    f = F["rms_norm"]
    yield "rows", f, (draw(3, 6), draw(6))
    yield "batch and time", f, (draw(2, 2, 5), draw(5))
    yield "strided", f, (draw(3, 12)[:, ::2], draw(6))


@samples("Rotary")
def _rotary(draw):
    angles = draw(3, 2)

    def turn(x, by=angles, **options):
        cos, sin = (Tensor(f(by).astype(x.dtype)).to(x.device) for f in (np.cos, np.sin))
        return F["rotary"](x, cos, sin, **options)

    yield "half-split", turn, (draw(2, 3, 4),)
    yield "interleaved", lambda x: turn(x, interleaved=True), (draw(2, 2, 3, 4),)
    yield "positions a row", lambda x: turn(x, angles[:, None, None]), (draw(3, 2, 1, 4),)
    yield "strided", turn, (draw(3, 2, 4).swapaxes(0, 1),)


@samples("CrossEntropy")
def _cross_entropy(draw):
    f = F["cross_entropy"]
    yield "rows", f, (draw(4, 5), np.array([0, 4, 2, 2]))
    yield "ignored rows", f, (draw(4, 5), np.array([0, -100, 2, -100]))
    yield "label smoothing", lambda x, t: f(x, t, label_smoothing=0.2), (draw(3, 6), np.array([5, 0, 1]))
    yield (
        "another ignored index",
        lambda x, t: f(x, t, ignore_index=3, label_smoothing=0.1),
        (draw(3, 4), np.array([3, 0, 1])),
    )
    yield "batch and time", f, (draw(2, 3, 4), np.array([[0, 1, 2], [3, 3, 0]]))


@samples("SoftCrossEntropy")
def _soft_cross_entropy(draw):
    yield "distributions", F["cross_entropy"], (draw(3, 5), draw.distribution(3, 5))
    yield "smoothed", lambda x, t: F["cross_entropy"](x, t, label_smoothing=0.3), (draw(2, 4), draw.distribution(2, 4))


@samples("SquaredError")
def _mse(draw):
    yield "matrices", F["mse_loss"], (draw(3, 4), draw(3, 4))


@samples("KLDivergence")
def _kl(draw):
    yield "distributions", F["kl_div"], (draw(3, 5), draw.distribution(3, 5))


@samples("Move")
def _move(draw):
    yield "there", lambda x: x.to("cuda-emulated"), (draw(3, 2),)


@samples("Dropout")
def _dropout(draw):
    yield "p = 0.3", lambda x: F["dropout"](x, 0.3, Generator(7)), (draw(5, 7),)
    yield "strided", lambda x: F["dropout"](x, 0.5, Generator(8)), (draw(4, 6).T,)


@samples("Attention")
def _attention(draw):
    f = F["scaled_dot_product_attention"]
    q, k, v = (2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4)
    yield "bidirectional", f, (draw(*q), draw(*k), draw(*v))
    yield "causal", lambda q, k, v: f(q, k, v, is_causal=True), (draw(*q), draw(*k), draw(*v))
    yield (
        "more keys than queries",
        lambda q, k, v: f(q, k, v, is_causal=True),
        (draw(1, 2, 2, 3), draw(1, 2, 5, 3), draw(1, 2, 5, 2)),
    )
    yield (
        "additive mask",
        lambda q, k, v: f(q, k, v, _alibi(q, 4)),
        (draw(1, 2, 4, 3), draw(1, 2, 4, 3), draw(1, 2, 4, 3)),
    )
    yield "a row that sees nothing", lambda q, k, v, m: f(q, k, v, m), (
        draw(1, 1, 3, 2), draw(1, 1, 3, 2), draw(1, 1, 3, 2), np.array([[True, False, True], [False] * 3, [True] * 3]),
    )  # fmt: skip
    yield "interleaved in memory", lambda x: f(*_heads(x), is_causal=True), (draw(1, 5, 3, 2, 4),)
    yield (
        "odd sizes",
        lambda q, k, v: f(q, k, v, is_causal=True, scale=0.7),
        (draw(1, 1, 9, 5), draw(1, 1, 9, 5), draw(1, 1, 9, 3)),
    )

    def qkv(B, H, G, Tq, Tk, d=3, dv=2):
        return draw(B, H, Tq, d), draw(B, G, Tk, d), draw(B, G, Tk, dv)

    def options(**given):
        return lambda q, k, v: f(q, k, v, **given)

    yield "grouped heads", options(is_causal=True), qkv(2, 4, 2, 3, 5)
    yield "a window", options(is_causal=True, window=2), qkv(1, 1, 1, 6, 6)
    yield "a window to both sides", options(window=2), qkv(1, 2, 1, 6, 5)
    yield "ALiBi", options(alibi_slopes=[0.5, 0.25], offset=1), qkv(1, 2, 2, 3, 4)
    yield "padded keys", options(key_lengths=[3, 0, 5]), qkv(3, 1, 1, 2, 5)
    yield "packed texts", options(is_causal=True, boundaries=[0, 3, 3, 4, 7]), qkv(1, 2, 1, 7, 7)
    yield "a block of queries in the middle", options(is_causal=True, offset=1), qkv(1, 1, 1, 2, 5)


@samples("PagedAttention")
def _paged_attention(draw):
    table, lengths = Tensor(np.array([[3, 0, 9], [3, 1, 2]])), Tensor(np.array([4, 5]))
    f = lambda q, k, v, **o: F["paged_attention"](q, k, v, table.to(q.device), lengths.to(q.device), **o)  # noqa: E731
    q, keys, values = draw(2, 2, 2, 3), draw(4, 1, 2, 3), draw(4, 1, 2, 4)
    yield "rows that share a page", f, (q, keys, values)
    yield "window and ALiBi", lambda *qkv: f(*qkv, window=3, alibi_slopes=[0.5, 0.25]), (q, keys, values)


def _alibi(q, T):
    distance = np.arange(T)[:, None] - np.arange(T)
    return Tensor(np.where(distance < 0, -np.inf, -0.5 * distance).astype(q.dtype)).to(q.device)


def _heads(x):
    """(B, T, 3, H, d) to three (B, H, T, d) views, as multi-head attention makes them."""
    return tuple(x[:, :, i].transpose(1, 2) for i in range(3))


@samples("QuantizedGEMM")
def _quantized_gemm(draw):
    # The weight is rounded, and so it is no input here: its straight-through gradient is no derivative.
    w = draw(5, 64)
    fixed = {format: QuantizedWeight.quantize(w[:, :32], format) for format in ("int4_zero", "q4_1", "int8")}
    for format, weight in fixed.items():
        f = lambda x, b=None, weight=weight: F["quantized_gemm"](x, weight, b)  # noqa: E731
        yield format, f, (draw(2, 3, 32), draw(5))
    yield "without bias", lambda x: F["quantized_gemm"](x, fixed["q4_1"]), (draw(3, 32),)

    def rounded(x, b):
        return F["quantized_gemm"](x, Tensor(w.astype(x.dtype)).to(x.device), b, "gelu", format="int4", group=64)

    yield "a float weight, strided input", rounded, (draw(3, 128)[:, ::2], draw(5))


@samples("Checkpoint")
def _checkpoint(draw):
    def function(x, w):
        generator = Generator(3)
        return checkpoint(lambda x, w: F["dropout"](F["tanh"](F["matmul"](x, w)), 0.5, generator), x, w)

    yield "with dropout inside", function, (draw(4, 3), draw(3, 5))
