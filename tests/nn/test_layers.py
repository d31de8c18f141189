import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, nn


def random(*shape, seed=0):
    return Generator(seed).normal(shape, dtype=np.float64)


def filled(module):
    """Every parameter random, in float64: a bias of zeros would hide that it is forgotten."""
    module.to("float64")
    for i, p in enumerate(module.parameters()):
        p.data[...] = random(*p.shape, seed=i + 100)
    return module


def check(module, x, expected, reference):
    """Forward against `expected`; gradients of input and parameters by finite differences."""
    np.testing.assert_allclose(module(mt.tensor(x)).numpy(), expected, rtol=1e-12, atol=1e-12)
    tensors = [mt.tensor(x, requires_grad=True), *module.parameters()]
    assert mt.gradcheck(lambda x, *_: module(x), *tensors), reference


def test_linear():
    layer, x = filled(nn.Linear(4, 3, generator=Generator(0))), random(2, 5, 4)
    check(layer, x, x @ layer.weight.data.T + layer.bias.data, "linear")
    bare = nn.Linear(4, 3, bias=False, generator=Generator(0))
    assert bare.bias is None and [n for n, _ in bare.named_parameters()] == ["weight"]
    assert not nn.Linear(4, 3, generator=Generator(0)).bias.data.any()


def test_embedding():
    layer = filled(nn.Embedding(5, 3, generator=Generator(0)))
    ids, dy = np.array([[0, 4, 4]]), random(1, 3, 3)
    y = layer(ids)
    assert np.array_equal(y.numpy(), layer.weight.data[ids])
    y.backward(dy)
    expected = np.zeros((5, 3))
    expected[0], expected[4] = dy[0, 0], dy[0, 1] + dy[0, 2]  # a token read twice hears from both
    np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-15)
    with pytest.raises(IndexError, match="5"):
        layer(np.array([5]))


def test_layer_norm():
    layer, x = filled(nn.LayerNorm(6, eps=0.1)), random(2, 3, 6)
    centred = x - x.mean(-1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)
    check(layer, x, h * layer.weight.data + layer.bias.data, "layer norm")
    assert nn.LayerNorm(6, bias=False).bias is None


def test_rms_norm():
    layer, x = filled(nn.RMSNorm(6, eps=0.1)), random(2, 3, 6)
    check(layer, x, x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1) * layer.weight.data, "rms norm")


def test_feed_forward():
    layer, x = filled(nn.FeedForward(3, 5, generator=Generator(0))), random(2, 3)
    up = x @ layer.up.weight.data.T + layer.up.bias.data
    gelu = up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
    check(layer, x, gelu @ layer.down.weight.data.T + layer.down.bias.data, "feed forward")
    assert nn.FeedForward(3, generator=Generator(0)).up.out_features == 12


def test_feed_forward_ends_its_product_with_gelu_only_where_nobody_differentiates():
    layer, x = nn.FeedForward(33, 70, generator=Generator(0)), mt.tensor(random(5, 33).astype(np.float32))
    assert [call.routine for call in mt.kernels.explain(layer, x)] == ["linear", "gelu", "linear"]
    with mt.no_grad():
        assert [call.routine for call in mt.kernels.explain(layer, x)] == ["linear", "linear"]
        fused = layer(x)
    np.testing.assert_allclose(fused.numpy(), layer(x).numpy(), rtol=1e-5, atol=1e-6)


def test_block_adds_to_the_stream():
    block, x = filled(nn.Block(4, 2, generator=Generator(0))), random(2, 3, 4)
    with mt.no_grad():
        h = x + block.attention(block.attention_norm(mt.tensor(x))).numpy()
        y = h + block.feed_forward(block.feed_forward_norm(mt.tensor(h))).numpy()
    check(block, x, y, "block")


def test_a_block_whose_projections_are_zero_is_the_identity():
    block, x = filled(nn.Block(4, 2, generator=Generator(0))), random(2, 3, 4)
    for layer in (block.attention.output, block.feed_forward.down):
        layer.weight.data[:], layer.bias.data[:] = 0, 0
    assert np.array_equal(block(mt.tensor(x)).numpy(), x)


def test_dropout_drops_while_training_only():
    generator = Generator(3)
    layer, x = nn.Dropout(0.25, generator), mt.ones(100, 100)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=6 * np.sqrt(0.25 * 0.75 / 1e4))
    assert not np.array_equal(y, layer(x).numpy())  # a new mask each time ...
    state = generator.state_dict()
    expected = layer(x).numpy()
    generator.load_state_dict(state)
    assert np.array_equal(layer(x).numpy(), expected)  # ... and the same one from the same state
    layer.eval()
    assert layer(x) is x
    offset = generator.offset
    nn.Dropout(0.0, generator)(x)
    assert generator.offset == offset  # nothing is drawn where nothing is dropped


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: nn.Linear(0, 3, generator=g), "Linear: in_features must be a positive integer, got 0"),
        (lambda g: nn.Linear(3, 2.5, generator=g), "Linear: out_features must be a positive integer, got 2.5"),
        (lambda g: nn.Embedding(3, -1, generator=g), "Embedding: embedding_dim must be a positive integer, got -1"),
        (lambda g: nn.LayerNorm(0), "LayerNorm: width must be a positive integer, got 0"),
        (lambda g: nn.RMSNorm("8"), "RMSNorm: width must be a positive integer, got '8'"),
        (lambda g: nn.Dropout(1.5, g), r"Dropout: p must be a number in \[0, 1\), got 1.5"),
        (lambda g: nn.MultiHeadAttention(8, 3, generator=g), "3 heads do not divide the width 8"),
        (lambda g: nn.KVCache(1, 1, 1, 0, 4), "KVCache: capacity must be a positive integer, got 0"),
        (lambda g: nn.Linear(3, 4, generator=g)(mt.ones(2, 5)), "5 wide but weight"),
    ],
)
def test_sizes_that_make_no_layer(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(Generator(0))
    assert "\n" not in str(caught.value)
