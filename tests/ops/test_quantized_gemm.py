"""The straight-through gradient: that of a linear layer with the rounded weight and input. And the layer."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import nn
from minitransformer.kernels.numpy.quantized_gemm import quantize_rows
from minitransformer.kernels.quantized_weight import QuantizedWeight


def drawn(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("inputs", "scale"), [("float", None), ("int8", None), ("int8", 0.01)])  # the last one clips
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_the_rounded_layer(dtype, activation, inputs, scale):
    x, w, b, dy = drawn(2, 5, 64, dtype=dtype), drawn(9, 64, seed=1, dtype=dtype), drawn(9, dtype=dtype), drawn(2, 5, 9)
    tensors = [mt.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = mt.quantized_gemm(*tensors, activation, format="int4", group=64, inputs=inputs, input_scale=scale)
    y.backward(dy.astype(dtype))

    rounded = x
    if inputs == "int8":
        codes, scales = quantize_rows(x, scale)
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
    with pytest.raises(ValueError, match="activation must be"):
        mt.quantized_gemm(mt.tensor(x, requires_grad=True), w, activation=["relu"], format="int8")
    with pytest.raises(ValueError, match="format must be one of"):
        mt.quantized_gemm(x, w, format=["int8"])


def test_quantized_linear():
    linear = nn.Linear(64, 5, generator=mt.Generator(0))
    linear.bias.data[...] = drawn(5)
    x, dy = mt.tensor(drawn(2, 3, 64), requires_grad=True), drawn(2, 3, 5, seed=2)
    for format in ("int8", "q4_1"):
        layer = nn.QuantizedLinear.from_linear(linear, format)
        w = QuantizedWeight.quantize(linear.weight.data, format).dequantize()
        np.testing.assert_allclose(layer(x).numpy(), x.numpy() @ w.T + linear.bias.data, rtol=0, atol=1e-5)
        assert [n for n, _ in layer.named_parameters()] == ["bias"]
        assert np.array_equal(layer.bias.data, linear.bias.data) and layer.bias.data is not linear.bias.data
        x.grad = None
        layer(x).backward(dy)
        np.testing.assert_allclose(x.grad, dy @ w, rtol=0, atol=1e-5)
        other = nn.QuantizedLinear.from_linear(nn.Linear(64, 5, generator=mt.Generator(1)), format)
        other.load_state_dict(layer.state_dict())
        assert np.array_equal(other(x).numpy(), layer(x).numpy())


def test_only_what_a_wanted_gradient_reads_is_kept_and_decoded(monkeypatch):
    dy, weight = drawn(3, 5, seed=2), QuantizedWeight.quantize(drawn(5, 64, seed=1), "q8_0")
    x, w, b = (mt.tensor(a, requires_grad=True) for a in (drawn(3, 64), drawn(5, 64, seed=1), drawn(5)))
    y = mt.quantized_gemm(x, weight, b)
    assert y.node.saved == (None,)
    y.backward(dy)
    np.testing.assert_allclose(x.grad, dy @ weight.dequantize(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(b.grad, dy.sum(0), rtol=0, atol=1e-5)
    y = mt.quantized_gemm(x.detach(), w, b, format="q8_0")
    monkeypatch.delattr(QuantizedWeight, "dequantize")
    y.backward(dy)
    np.testing.assert_allclose(w.grad, dy.T @ x.data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.01])
def test_quantized_linear_rounds_its_inputs_where_it_is_told_to(scale):
    linear, x = nn.Linear(64, 5, generator=mt.Generator(0)), drawn(3, 64)
    codes, scales = quantize_rows(x, scale)
    expected = (codes * scales[:, None]) @ QuantizedWeight.quantize(linear.weight.data, "q8_0").dequantize().T
    found = nn.QuantizedLinear.from_linear(linear, "q8_0", inputs="int8", input_scale=scale)(mt.tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - nn.QuantizedLinear.from_linear(linear, "q8_0")(mt.tensor(x)).numpy()).max() > 1e-4


def test_a_state_is_read_in_its_own_format_and_layout_only():
    w = drawn(16, 128)
    names = {
        "data.int8.rows": QuantizedWeight.quantize(w, "int8"),
        "data.int4.32.rows": QuantizedWeight.quantize(w, "int4"),
        "data.int4.64.panels": QuantizedWeight.quantize(w, "int4", 64).panels(),
        "data.q4_0.rows": QuantizedWeight.quantize(w, "q4_0"),
        "data.q4_0.panels": QuantizedWeight.quantize(w, "q4_0").panels(),
    }
    for name, weight in names.items():
        state = nn.QuantizedLinear(weight).state_dict()
        assert list(state) == [name]
        for other in names.values():
            if other is not weight:
                with pytest.raises(ValueError, match=f"unexpected: {name}"):
                    nn.QuantizedLinear(other).load_state_dict(state)
    with pytest.raises(TypeError, match=r"data\.q4_0\.panels must be uint8, in this state it is int16"):
        nn.QuantizedLinear(weight).load_state_dict({name: array.astype(np.int16) for name, array in state.items()})


def test_a_quantized_linear_that_could_not_run_is_not_made():
    weight, half = (QuantizedWeight.quantize(drawn(5, 64), format) for format in ("q4_1", "float16"))
    for error, words, arguments, options in (
        (TypeError, "weight must be a QuantizedWeight, got ndarray", (drawn(5, 64),), {}),
        (ValueError, r"bias must have shape \(5,\), got \(64,\)", (weight, drawn(64)), {}),
        (ValueError, 'inputs must be "float" or "int8"', (weight,), {"inputs": "int7"}),
        (ValueError, 'float16 takes inputs="float"', (half,), {"inputs": "int8"}),
        (ValueError, 'input_scale is for inputs="int8"', (weight,), {"input_scale": 0.1}),
        (ValueError, "input_scale must be positive", (weight,), {"inputs": "int8", "input_scale": 0}),
    ):
        with pytest.raises(error, match=words):
            nn.QuantizedLinear(*arguments, **options)
