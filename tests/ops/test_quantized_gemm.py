"""The straight-through gradient: that of a linear layer with the rounded weight and input. And the layer."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import nn
from minitransformer.kernels.numpy.quantized_gemm import quantize_rows
from minitransformer.kernels.quantized_weight import QuantizedWeight


def drawn(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("inputs", ["float", "int8"])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_the_rounded_layer(dtype, activation, inputs):
    x, w, b, dy = drawn(2, 5, 64, dtype=dtype), drawn(9, 64, seed=1, dtype=dtype), drawn(9, dtype=dtype), drawn(2, 5, 9)
    tensors = [mt.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = mt.quantized_gemm(*tensors, activation, format="int4", group=64, inputs=inputs)
    y.backward(dy.astype(dtype))

    rounded = x
    if inputs == "int8":
        codes, scales = quantize_rows(x)
        rounded = codes * scales[..., None].astype(dtype)
    rounded_w = QuantizedWeight.quantize(w, "int4", 64).dequantize(dtype)
    same = [mt.tensor(a, requires_grad=True) for a in (rounded, rounded_w, b)]
    z = mt.linear(*same)
    z = getattr(mt, activation)(z) if activation else z
    z.backward(dy.astype(dtype))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=0, atol=300 * eps)
    for got, expected in zip(tensors, same):
        assert np.abs(expected.grad).max() > 1e-2
        np.testing.assert_allclose(got.grad, expected.grad, rtol=0, atol=1000 * eps)
    assert np.abs(tensors[1].grad - dy.reshape(-1, 9).T @ x.reshape(-1, 64)).max() > 1e-3 or inputs == "float"


def test_a_fused_activation_gives_what_the_separate_one_gives():
    x, w = drawn(3, 64), mt.tensor(drawn(5, 64, seed=1), requires_grad=True)
    for activation in ("relu", "gelu", "silu"):
        separate = mt.quantized_gemm(x, w, activation=activation, format="q4_1")
        with mt.no_grad():
            fused = mt.quantized_gemm(x, w, activation=activation, format="q4_1")
        np.testing.assert_allclose(fused.numpy(), separate.numpy(), rtol=0, atol=1e-5)


def test_training_through_the_rounding_finds_weights_that_round_well():
    """Gradient descent on the rounded layer's own error gets below what rounding the exact solution leaves."""
    x, w = drawn(200, 32, seed=11), drawn(3, 32, seed=2)
    wanted = x @ w.T
    trained = mt.tensor(w.copy(), requires_grad=True)

    def loss():
        return mt.mse_loss(mt.quantized_gemm(x, trained, format="int4"), wanted)

    first, best = float(loss().numpy()), np.inf
    for _ in range(60):
        trained.grad = None
        value = loss()
        value.backward()
        best = min(best, float(value.numpy()))
        trained.data[...] -= 0.03 * trained.grad
    assert best < 0.95 * first


def test_what_it_refuses():
    x, w = drawn(3, 64), drawn(5, 64)
    with pytest.raises(TypeError, match="come with the format"):
        mt.quantized_gemm(x, w)
    with pytest.raises(TypeError, match="int8 already"):
        mt.quantized_gemm(x, QuantizedWeight.quantize(w, "int8"), format="int8")
    with pytest.raises(ValueError, match="activation must be"):
        mt.quantized_gemm(mt.tensor(x, requires_grad=True), w, activation="tanh", format="int8")


def test_quantized_linear():
    linear = nn.Linear(64, 5, generator=mt.Generator(0))
    linear.bias.data[...] = drawn(5)
    x, dy = mt.tensor(drawn(2, 3, 64), requires_grad=True), drawn(2, 3, 5, seed=2)
    for format in ("int8", "q4_1"):
        layer = nn.QuantizedLinear.from_linear(linear, format)
        w = QuantizedWeight.quantize(linear.weight.data, format).dequantize()
        np.testing.assert_allclose(layer(x).numpy(), x.numpy() @ w.T + linear.bias.data, rtol=0, atol=1e-5)
        assert [n for n, _ in layer.named_parameters()] == ["bias"] and layer.bias is linear.bias
        x.grad = None
        layer(x).backward(dy)
        np.testing.assert_allclose(x.grad, dy @ w, rtol=0, atol=1e-5)
        other = nn.QuantizedLinear.from_linear(nn.Linear(64, 5, generator=mt.Generator(1)), format)
        other.load_state_dict(layer.state_dict())
        assert np.array_equal(other(x).numpy(), layer(x).numpy())
