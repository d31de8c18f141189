"""Planted bugs: the mistakes that people make, each of which the gradient checks must reject.

A mutant replaces one method of an op for the length of a `with` block.
"""

import contextlib
from unittest import mock

import numpy as np

from minitransformer import kernels
from minitransformer.function import OPS
from minitransformer.kernels import paging
from minitransformer.ops.rotary import turned


@contextlib.contextmanager
def mutant(op, **methods):
    with mock.patch.multiple(OPS[op], **methods):
        yield


def with_gradients(op, change):
    """The op's own backward with `change` applied to every gradient."""
    original = OPS[op].backward

    def backward(self, *dy):
        gradients = original(self, *dy)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return tuple(None if g is None else change(g) for g in gradients)

    return backward


def _one_entry_missing(g):
    g = g.copy()
    if g.size:
        g[np.unravel_index(np.abs(g).argmax(), g.shape)] = 0
    return g


# Mistakes that any op can have.
ANYWHERE = {
    "a zero gradient": lambda g: g * 0,
    "a flipped sign": lambda g: -g,
    "a factor of 1.001": lambda g: g * g.dtype.type(1.001),
    "one entry missing": _one_entry_missing,
    "a constant": lambda g: g * 0 + g.dtype.type(1),
}


def _attention_backward(change):
    def backward(self, do):
        q, k, v, o, lse, mask, slopes, spans = self.saved
        arguments = {**self.options, "mask": mask, "slopes": slopes, "spans": spans}
        dq, dk, dv = kernels.attention_backward(do, q, k, v, o, lse, **{**arguments, **change.get("arguments", {})})
        return (*change.get("after", lambda *g: g)(dq, dk, dv), None, None, None)

    return backward


def _unscaled_forward(self, q, k, v, mask, slopes, spans, **options):
    self.options = options
    o, lse = kernels.attention_forward(q, k, v, mask=mask, slopes=slopes, spans=spans, **options | {"scale": 1.0})
    self.save(q, k, v, o, lse, mask, slopes, spans)
    return o


def _paged_assigns(self, do):
    def assign(rows, pool, pages, slots, filled):
        found = np.zeros(pool.shape, rows.dtype)
        found[pages[filled], :, slots[filled]] = rows.transpose(0, 2, 1, 3)[filled]
        return found

    with mock.patch.object(paging, "scatter_add", assign):
        return _PAGED_BACKWARD(self, do)


_PAGED_BACKWARD = OPS["PagedAttention"].backward


def _embedding_assigns(self, dy):
    (indices,) = self.saved
    dweight = np.zeros((self.rows, dy.shape[-1]), dy.dtype)
    dweight[indices] = dy
    return dweight, None


def _index_assigns(self, dy):
    from minitransformer.ops.indexing import _index

    dx = np.zeros(self.shape, dy.dtype)
    dx[_index(self.template, self.saved)] = dy
    return (dx, *[None] * len(self.saved))


def _layer_norm(dy, x, weight, mean, rstd, *, centre=True, project=True, divisor=0):
    h = (x - mean[..., None]) * rstd[..., None]
    g = dy * weight
    n = x.shape[-1]
    dx = g
    if centre:
        dx = dx - g.sum(-1, keepdims=True) / (n - divisor)
    if project:
        dx = dx - h * (g * h).sum(-1, keepdims=True) / (n - divisor)
    rows = tuple(range(x.ndim - 1))
    return (dx * rstd[..., None]).astype(x.dtype), (dy * h).sum(rows), dy.sum(rows)


def _layer_norm_with(**options):
    return {"backward": lambda self, dy: _layer_norm(dy, *self.saved, **options)}


def _rotary_turned_further(self, dy):
    cos, sin, interleaved = self.turn
    return turned(dy, cos, sin, interleaved)


def _softmax_without_the_sum(self, dy):
    (y,) = self.saved
    return dy * y


def _fresh_dropout_mask(self, dy):
    return kernels.dropout(dy, self.p, self.key, self.offset + 100)


def _cross_entropy_not_averaged(self, dy):
    logits, targets, lse = self.saved
    return kernels.cross_entropy_backward(np.full(len(targets), dy), logits, targets, lse, *self.options), None


def _cross_entropy_unsmoothed(self, dy):
    logits, targets, lse = self.saved
    each = np.full(len(targets), dy / self.counted, logits.dtype)
    return kernels.cross_entropy_backward(each, logits, targets, lse, self.options[0], 0.0), None


def _gelu_without_its_slope(self, dy):
    (x,) = self.saved
    return dy * kernels.gelu(x, self.approximate) / np.where(x == 0, 1, x)


def _linear_transposed(self, dy):
    x, weight = self.saved
    dx, dweight, dbias = kernels.linear_backward(dy, x, weight, self.needs)
    return dx, dweight.T.reshape(dweight.shape), dbias


def _cumsum_unreversed(self, dy):
    return np.cumsum(dy, axis=self.axis, dtype=dy.dtype)


def _variance_population(self, dy):
    (centred,) = self.saved
    return self._spread(dy * dy.dtype.type(2 / self.count)) * centred


def _concatenate_in_reverse(self, dy):
    n = dy.shape[self.axis]
    starts = [n - end for end in self.ends]
    sizes = np.diff([0, *self.ends])
    return tuple(np.take(dy, range(s, s + k), axis=self.axis) for s, k in zip(starts, sizes, strict=True))


def _topk_with_all_of_dy(self, dy):
    return dy


def _topk_one_place_off(self, dy):
    (indices,) = self.saved
    dx = np.zeros_like(dy)
    np.put_along_axis(dx, (indices + 1) % dy.shape[-1], np.take_along_axis(dy, indices, -1), -1)
    return dx


# Mistakes of particular ops: (op, what is wrong, replaced methods).
def _quantized_without_its_zero_point(self, dy):
    integers, scales, _ = self.quantized.decode()
    w = (integers + 8) * scales[..., None]
    return kernels.linear_backward(dy, *self.saved, w.reshape(self.quantized.shape).astype(dy.dtype), self.needs)


def _quantized_with_the_wrong_scale(self, dy):
    integers, scales, minima = self.quantized.decode()
    w = integers * np.roll(scales, 1, axis=0)[..., None] + (0 if minima is None else minima[..., None])
    return kernels.linear_backward(dy, *self.saved, w.reshape(self.quantized.shape).astype(dy.dtype), self.needs)


PARTICULAR = [
    ("Attention", "no 1/√d in dq", {"backward": _attention_backward({"after": lambda dq, dk, dv: (dq * 2, dk, dv)})}),
    ("Attention", "no 1/√d in forward", {"forward": _unscaled_forward}),
    (
        "Attention",
        "an unmasked future in backward",
        {"backward": _attention_backward({"arguments": {"causal": False}})},
    ),
    ("Attention", "the mask forgotten in backward", {"backward": _attention_backward({"arguments": {"mask": None}})}),
    (
        "Attention",
        "dk of the other batch",
        {"backward": _attention_backward({"after": lambda q, k, v: (q, k[::-1], v)})},
    ),
    (
        "Attention",
        "the window too wide in backward",
        {"backward": _attention_backward({"arguments": {"window": 3}})},
    ),
    (
        "Attention",
        "the packed texts forgotten in backward",
        {"backward": _attention_backward({"arguments": {"spans": None}})},
    ),
    ("Attention", "no slopes in backward", {"backward": _attention_backward({"arguments": {"slopes": None}})}),
    ("PagedAttention", "= for += where pages are shared", {"backward": _paged_assigns}),
    ("Embedding", "= for +=", {"backward": _embedding_assigns}),
    ("Index", "= for +=", {"backward": _index_assigns}),
    ("LayerNorm", "no centring", _layer_norm_with(centre=False)),
    ("LayerNorm", "no projection", _layer_norm_with(project=False)),
    ("LayerNorm", "n - 1 for n", _layer_norm_with(divisor=1)),
    ("Rotary", "turned further, not back", {"backward": _rotary_turned_further}),
    ("Softmax", "the sum forgotten", {"backward": _softmax_without_the_sum}),
    ("Dropout", "another mask in backward", {"backward": _fresh_dropout_mask}),
    ("CrossEntropy", "summed, not averaged", {"backward": _cross_entropy_not_averaged}),
    ("CrossEntropy", "smoothing forgotten in backward", {"backward": _cross_entropy_unsmoothed}),
    ("GELU", "only Φ(x)", {"backward": _gelu_without_its_slope}),
    ("QuantizedGEMM", "the zero-point forgotten in dx", {"backward": _quantized_without_its_zero_point}),
    ("QuantizedGEMM", "the scale of another row in dx", {"backward": _quantized_with_the_wrong_scale}),
    ("Linear", "a transposed dW", {"backward": _linear_transposed}),
    ("CumulativeSum", "not reversed", {"backward": _cumsum_unreversed}),
    ("Variance", "n for n - 1", {"backward": _variance_population}),
    ("TopkActivation", "gradients through what was cut", {"backward": _topk_with_all_of_dy}),
    ("TopkActivation", "the neighbour's gradient", {"backward": _topk_one_place_off}),
    ("Concatenate", "stretches swapped", {"backward": _concatenate_in_reverse}),
]
