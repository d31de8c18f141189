import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn

from ..models.helpers import KERNEL_SETS

B, T, D, H, d = 2, 7, 12, 3, 4


def layer(causal=True, dtype="float64"):
    attention = nn.MultiHeadAttention(D, H, causal, generator=Generator(0))
    for i, p in enumerate(attention.parameters()):
        p.data += Generator(i + 1).normal(p.shape, std=0.3)
    return attention.to(dtype)


def stream(seed=0, dtype=np.float64):
    return mt.tensor(Generator(seed).normal((B, T, D), dtype=dtype), requires_grad=True)


def projections(attention, x):
    """q, k, v as (B, H, T, d) arrays, straight from the definition."""
    parts = x.numpy() @ attention.qkv.weight.data.T + attention.qkv.bias.data
    return [part.reshape(B, T, H, d).transpose(0, 2, 1, 3) for part in np.split(parts, 3, axis=-1)]


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_captured_probabilities_times_values_are_the_output(kernel_set):
    attention, x = layer(), stream()
    attention.output.weight.data[:], attention.output.bias.data[:] = np.eye(D), 0  # lay the heads' outputs open
    with kernels.use(kernel_set):
        y, probabilities = attention(x, capture=True)
        assert np.array_equal(y.numpy(), attention(x).numpy())
    assert probabilities.shape == (B, H, T, T) and (np.triu(probabilities, 1) == 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-13)
    _, _, v = projections(attention, x)
    expected = (probabilities @ v).transpose(0, 2, 1, 3).reshape(B, T, D)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_heads_are_views_of_one_product(monkeypatch):
    seen = {}
    original = nn.attention.scaled_dot_product_attention

    def spy(q, k, v, **options):
        seen["qkv"] = [t.data for t in (q, k, v)]
        return original(q, k, v, **options)

    monkeypatch.setattr(nn.attention, "scaled_dot_product_attention", spy)
    attention, x = layer(), stream()
    attention(x)
    q, k, v = seen["qkv"]
    size = q.itemsize
    for array, expected in zip((q, k, v), projections(attention, x)):
        assert array.shape == (B, H, T, d)
        assert array.strides == (3 * T * D * size, d * size, 3 * D * size, size)  # of one (B, T, 3, H, d) array
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-13)
    first = q.__array_interface__["data"][0]
    assert [a.__array_interface__["data"][0] - first for a in (q, k, v)] == [0, D * size, 2 * D * size]


def test_the_head_mask_has_a_gradient():
    """It says how the loss would change if a head spoke louder; of a head of zeros, nothing."""
    attention, x = layer(), stream()
    attention.output.weight.data[:, :d] = 0  # nobody listens to head 0
    attention.head_mask = mt.ones(H, dtype="float64", requires_grad=True)
    assert "head_mask" not in dict(attention.named_state())
    whole = attention(x)
    whole.backward(Generator(4).normal((B, T, D), dtype=np.float64))
    gradient = attention.head_mask.grad
    assert gradient[0] == 0 and (np.abs(gradient[1:]) > 1e-3).all()
    attention.head_mask = mt.tensor(np.array([0.0, 1.0, 1.0]))
    np.testing.assert_allclose(attention(x).numpy(), whole.numpy(), rtol=1e-13)


def test_the_number_of_heads_costs_no_parameters():
    counts = {h: nn.MultiHeadAttention(16, h, generator=Generator(0)).parameter_count() for h in (1, 2, 8, 16)}
    assert set(counts.values()) == {4 * 16 * 16 + 4 * 16}


def test_without_positions_attention_does_not_see_order():
    """Permuting the tokens permutes the outputs, unless the mask tells before from after."""
    order = Generator(2).permutation(T)
    x = stream().numpy()
    shuffled = mt.tensor(x[:, order])
    plain, masked = layer(causal=False), layer(causal=True)
    np.testing.assert_allclose(plain(shuffled).numpy(), plain(mt.tensor(x)).numpy()[:, order], rtol=1e-11, atol=1e-12)
    assert not np.allclose(masked(shuffled).numpy(), masked(mt.tensor(x)).numpy()[:, order])
