"""Grouped heads, windows and ALiBi in the layer, from primitives; the same through both kinds of cache."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn

from ..models.helpers import KERNEL_SETS

B, T, D, H, d = 2, 9, 16, 4, 4
PLAIN = [{}, {"causal": False}]
VARIANTS = [{"key_value_heads": 2}, {"key_value_heads": 1, "window": 3}, {"alibi": True}, {"window": 4, "alibi": True}]


def layer(options, dtype="float64"):
    attention = nn.MultiHeadAttention(D, H, generator=Generator(0), **options)
    for i, p in enumerate(attention.parameters()):
        p.data += Generator(i + 1).normal(p.shape, std=0.3)
    return attention.to(dtype)


def stream(seed=0):
    return mt.tensor(Generator(seed).normal((B, T, D), dtype=np.float64), requires_grad=True)


def composed(attention, x):
    """From primitives: every head gets keys of its own, and the scores a mask with all that the options say."""
    G = attention.key_value_heads
    parts = mt.linear(x, attention.qkv.weight, attention.qkv.bias).split([D, G * d, G * d], axis=-1)
    q, k, v = (part.reshape(B, T, -1, d).transpose(1, 2) for part in parts)
    k, v = (x[:, np.arange(H) // (H // G)] for x in (k, v))
    distance = np.arange(T)[:, None] - np.arange(T)
    seen = (distance < (attention.window or T)) & ((distance >= 0) | (not attention.causal))
    bias = np.where(seen, 0.0, -np.inf)
    if attention.slopes is not None:
        bias = bias - attention.slopes[:, None, None] * abs(distance)
    o = mt.softmax(q @ k.mT / np.sqrt(d) + mt.tensor(bias)) @ v
    return mt.linear(o.transpose(1, 2).reshape(B, T, D), attention.output.weight, attention.output.bias)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("options", PLAIN + VARIANTS, ids=str)
def test_fused_is_composed(options, kernel_set):
    """Output and every gradient."""
    attention, dy = layer(options), Generator(9).normal((B, T, D), dtype=np.float64)
    found = []
    with kernels.use(kernel_set):
        for forward in (attention, lambda x: composed(attention, x)):
            attention.zero_grad()
            x = stream()
            y = forward(x)
            y.backward(dy)
            found.append([y.numpy(), x.grad, *[p.grad for p in attention.parameters()]])
    for fused, expected in zip(*found, strict=True):
        np.testing.assert_allclose(fused, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_with_a_cache_token_by_token_it_is_the_whole_pass(options):
    attention, x = layer(options), stream()
    G = attention.key_value_heads
    with mt.no_grad():
        whole = attention(x).numpy()
        cache = nn.LayerCache(B, G, T, d, "float64")
        pages = nn.PagedCache(1, pages=8, page_size=3, heads=G, head_width=d, dtype="float64")
        rows = [pages.start() for _ in range(B)]
        for a, b in ((0, 4), (4, 5), (5, 8), (8, 9)):
            np.testing.assert_allclose(attention(x[:, a:b], cache).numpy(), whole[:, a:b], rtol=1e-12, atol=1e-13)
            paged = attention(x[:, a:b], pages.extend(rows, b - a).layers[0])
            np.testing.assert_allclose(paged.numpy(), whole[:, a:b], rtol=1e-12, atol=1e-13)


def test_captured_probabilities_know_the_options():
    attention, x = layer({"key_value_heads": 2, "window": 3, "alibi": True}), stream()
    recording = nn.Recording()
    _, p = attention(x, capture=recording)
    distance = np.arange(T)[:, None] - np.arange(T)
    assert p.shape == (B, H, T, T) and np.array_equal(p > 0, np.broadcast_to((distance >= 0) & (distance < 3), p.shape))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(p @ recording.values[0], recording.outputs[0].numpy(), rtol=1e-12, atol=1e-13)


def test_probabilities_of_some_heads_and_rows():
    """In any order; a head and a row may come twice."""
    attention, (q, k, v) = (
        layer({"key_value_heads": 2}),
        (stream(i).reshape(B, T, -1, d).transpose(1, 2) for i in range(3)),
    )
    k, v = k[:, :2], v[:, :2]
    whole, heads, rows = attention.probabilities(q, k, v), np.array([3, 0, 3]), np.array([8, 2])
    assert np.array_equal(attention.probabilities(q, k, v, heads), whole[:, heads])
    assert np.array_equal(attention.probabilities(q, k, v, rows=rows), whole[:, :, rows])
    assert np.array_equal(attention.probabilities(q, k, v, heads, rows), whole[:, heads][:, :, rows])
    with pytest.raises(TypeError, match="heads must be an integer array, got list"):
        attention.probabilities(q, k, v, heads=[1])


def test_the_slopes_of_the_paper():
    assert nn.alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert nn.alibi_slopes(1).tolist() == [2.0**-8]
    # 12 heads: those of 8, then every second one of 16
    np.testing.assert_allclose(nn.alibi_slopes(12)[8:], [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5])


def test_fewer_key_value_heads_are_fewer_parameters_and_a_smaller_cache():
    counts = [nn.MultiHeadAttention(16, 4, key_value_heads=G, generator=Generator(0)).parameter_count() for G in (4, 2)]
    assert counts[0] - counts[1] == 2 * (16 * 8 + 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_value_heads": 3}, "3 key/value heads do not divide 4 heads"),
        ({"key_value_heads": 0}, "key_value_heads must be a positive integer, got 0"),
        ({"window": -1}, "window must be a positive integer, got -1"),
        ({"window": 0}, "window must be a positive integer, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.MultiHeadAttention(D, H, generator=Generator(0), **options)
