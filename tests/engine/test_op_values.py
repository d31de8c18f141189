"""Values of ops where a formula alone is not enough: limits, extremes, ties, and composed forms equal to fused ones."""

import math

import numpy as np
import pytest

import minitransformer as mt

G = mt.Generator(11)


def f64(*shape):
    return mt.tensor(G.normal(shape, dtype=np.float64), requires_grad=True)


def same_values_and_gradients(fused, composed, *inputs, tolerance=1e-12):
    """Two functions agree, and so do their gradients under one random cotangent."""
    found = []
    for function in (fused, composed):
        for x in inputs:
            x.grad = None
        y = function(*inputs)
        y.backward(mt.Generator(2).normal(y.shape, dtype=np.float64))
        found.append([y.data, *(x.grad for x in inputs)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_softmax_composed():
    def composed(x):
        e = mt.exp(x - x.max(axis=-1, keepdims=True).detach())
        return e / e.sum(axis=-1, keepdims=True)

    same_values_and_gradients(mt.softmax, composed, f64(3, 5))
    same_values_and_gradients(mt.log_softmax, lambda x: x - mt.logsumexp(x, axis=-1, keepdims=True), f64(3, 5))


def test_layer_norm_and_rms_norm_composed():
    def layer(x, w, b):
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / mt.sqrt(x.var(axis=-1, correction=0, keepdims=True) + 1e-5) * w + b

    def rms(x, w):
        return x / mt.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w

    same_values_and_gradients(mt.layer_norm, layer, f64(3, 7), f64(7), f64(7))
    same_values_and_gradients(mt.rms_norm, rms, f64(3, 7), f64(7))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_composed(causal):
    def composed(q, k, v):
        s = mt.matmul(q, k.mT) / math.sqrt(q.shape[-1])
        if causal:
            i, j = np.indices(s.shape[-2:])
            s = s + np.where(j > i + k.shape[2] - q.shape[2], -np.inf, 0.0)
        return mt.matmul(mt.softmax(s), v)

    q, k, v = f64(2, 3, 5, 4), f64(2, 3, 8, 4), f64(2, 3, 8, 6)
    same_values_and_gradients(lambda *t: mt.scaled_dot_product_attention(*t, is_causal=causal), composed, q, k, v)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_composed_and_soft(smoothing):
    targets = np.array([0, 3, 3, -100, 1])

    def composed(x):
        keep = np.flatnonzero(targets != -100)
        rows = mt.log_softmax(x)[keep]
        hit = rows[np.arange(len(keep)), targets[keep]]
        return -(hit * (1 - smoothing) + rows.mean(axis=-1) * smoothing).mean()

    x = f64(5, 4)
    same_values_and_gradients(lambda t: mt.cross_entropy(t, targets, label_smoothing=smoothing), composed, x)
    one_hot = np.eye(4)[[0, 3, 3, 1, 1]]
    same_values_and_gradients(
        lambda t: mt.cross_entropy(t, one_hot, label_smoothing=smoothing),
        lambda t: mt.cross_entropy(t, np.array([0, 3, 3, 1, 1]), label_smoothing=smoothing), x)  # fmt: skip


def test_gelu_silu_softplus_composed():
    phi = np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)
    x = f64(40)
    np.testing.assert_allclose(mt.gelu(x).data, x.data * phi(x.data), rtol=1e-13, atol=1e-15)
    same_values_and_gradients(
        lambda t: mt.gelu(t, "tanh"),
        lambda t: t * 0.5 * (1 + mt.tanh((t + t * t * t * 0.044715) * math.sqrt(2 / math.pi))),
        x,
    )
    same_values_and_gradients(mt.silu, lambda t: t * mt.sigmoid(t), x)
    same_values_and_gradients(mt.softplus, lambda t: mt.log(1 + mt.exp(t)), x)


def test_extremes_neither_overflow_nor_warn():
    x = mt.tensor(np.array([-1e4, -100.0, 0.0, 100.0, 1e4], np.float32), requires_grad=True)
    with np.errstate(all="raise", under="ignore"):
        for f in (
            mt.sigmoid,
            mt.softplus,
            mt.silu,
            mt.gelu,
            mt.tanh,
            mt.softmax,
            mt.log_softmax,
            lambda t: mt.gelu(t, "tanh"),
        ):
            y = f(x)
            y.backward(np.ones(5))
            assert np.isfinite(y.data).all(), f
    assert np.isfinite(x.grad).all()
    assert mt.logsumexp(mt.tensor([-np.inf, -np.inf])).item() == -np.inf


def test_sigmoid_and_softplus_keep_the_digits_of_small_values():
    x = mt.tensor([-30.0, -20.0], requires_grad=True)
    for f in (mt.sigmoid, mt.softplus):
        x.grad = None
        y = f(x)
        y.backward(np.ones(2))
        np.testing.assert_allclose(y.data, np.exp(x.data), rtol=1e-6)  # both are exp x there, and so are the slopes
        np.testing.assert_allclose(x.grad, np.exp(x.data), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_added_up_in_float32(dtype):
    """In bfloat16 256 + 1 is 256, and float16 ends at 65504: neither may show in a sum."""
    n = 100_000
    x = mt.ones(n, dtype=dtype, requires_grad=True)
    assert x[:1000].sum().item() == x[:1000].cumsum(0)[-1].item() == 1000 and x.mean().item() == 1
    x.mean().backward()
    np.testing.assert_allclose(x.grad.astype(np.float64), 1 / n, rtol=0.01)  # subnormal in float16
    spread = mt.tensor(np.tile([0.0, 2.0], n // 2)).to(dtype)
    assert spread.var(correction=0).item() == 1 and mt.mse_loss(spread, spread * 0).item() == 2
    eps = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    assert mt.logsumexp(x[:1000]).item() == pytest.approx(1 + math.log(1000), rel=eps)
    assert mt.cross_entropy(mt.zeros(2000, 8, dtype=dtype), np.zeros(2000, int)).item() == pytest.approx(
        math.log(8), rel=2 * eps
    )
    row = mt.zeros(1, dtype=dtype, requires_grad=True)
    for function in (
        lambda r: r + mt.zeros(1000, 1, dtype=dtype),
        lambda r: r[np.zeros(1000, int)],
        lambda r: r.gather(0, np.zeros(1, int)) + mt.zeros(1000, 1, dtype=dtype),
    ):
        row.grad = None
        y = function(row)
        y.backward(np.ones(y.shape))
        assert row.grad.tolist() == [1000]
    source = mt.ones(1000, dtype=dtype)
    assert mt.zeros(1000, dtype=dtype).scatter_add(0, np.zeros(1000, int), source)[0].item() == 1000
    assert mt.clamp(source, max=0.5).dtype == source.dtype


def test_uniform_never_yields_its_upper_end(monkeypatch):
    ones = lambda key, offset, count, device: np.full(count, 2**32 - 1, np.uint32)  # noqa: E731
    monkeypatch.setattr(mt.kernels, "random_bits", ones)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        dtype = mt.zeros(1, dtype=dtype).dtype
        for low, high in (
            (0.0, 1.0),
            (1.0, 2.0),
            (-5.0, -4.0),
            (2.0**40, 2.0**40 + 1) if dtype.itemsize == 8 else (3, 7),
        ):
            value = float(mt.Generator(0).uniform((1,), low, high, dtype)[0])
            assert low <= value < high


def test_ties_share_the_gradient():
    x = mt.tensor([[2.0, 5.0, 5.0], [1.0, 1.0, 1.0]], requires_grad=True)
    x.max(axis=1).backward(np.array([6.0, 6.0]))
    assert x.grad.tolist() == [[0.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    a, b = mt.tensor([1.0], requires_grad=True), mt.tensor([1.0], requires_grad=True)
    mt.maximum(a, b).backward()
    assert a.grad.tolist() == b.grad.tolist() == [0.5]


def test_power_at_its_edges():
    x = mt.tensor([0.0, 2.0], requires_grad=True)
    (x**2).backward(np.ones(2))
    assert x.grad.tolist() == [0.0, 4.0]
    x.grad = None
    (x**0).backward(np.ones(2))
    assert x.grad.tolist() == [0.0, 0.0]


def test_kl_divergence_is_zero_at_equality_and_counts_rows():
    t = mt.softmax(f64(6, 5)).detach()
    assert abs(mt.kl_div(mt.log(t), t).item()) < 1e-15
    p, q = np.array([[1.0, 0.0]]), np.array([[0.25, 0.75]])
    assert mt.kl_div(np.log(q) + mt.zeros(1, 2, dtype="float64"), p).item() == pytest.approx(math.log(4))


def test_dropout_keeps_the_mean_and_the_same_mask_in_backward():
    x = mt.ones(200_000, requires_grad=True)
    y = mt.dropout(x, 0.25, mt.Generator(1))
    y.backward(np.ones(200_000))
    assert (y.data == x.grad).all()
    assert set(np.unique(y.data)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    dropped = (y.data == 0).mean()
    assert abs(dropped - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 200_000)


BAD = {
    "matmul inner sizes": (lambda: mt.ones(2, 3) @ mt.ones(4, 5), ValueError, "3 columns but b .* has 4 rows"),
    "matmul batch": (lambda: mt.ones(2, 1, 3) @ mt.ones(3, 3, 1), ValueError, "do not broadcast"),
    "linear width": (lambda: mt.linear(mt.ones(2, 3), mt.ones(4, 5)), ValueError, "3 wide but weight .* takes 5"),
    "softmax axis": (lambda: mt.softmax(mt.ones(2, 3), 2), ValueError, "axis 2 is out of range"),
    "softmax of integers": (lambda: mt.softmax(mt.arange(3)), TypeError, "must be a float array, got int64"),
    "reduction axis": (lambda: mt.ones(2).sum(axis=1), ValueError, "axis 1 is out of range"),
    "axis twice": (lambda: mt.ones(2, 2).sum(axis=(0, -2)), ValueError, "stands twice"),
    "mean of nothing": (lambda: mt.ones(0).mean(), ValueError, "nothing to average"),
    "variance of one": (lambda: mt.ones(1).var(), ValueError, "too few"),
    "reshape": (lambda: mt.ones(6).reshape(4, 2), ValueError, "6 elements .* do not fit"),
    "permute": (lambda: mt.ones(2, 3).permute(0, 0), ValueError, "each of 2 axes once"),
    "expand": (lambda: mt.ones(2).expand(3), ValueError, "does not broadcast"),
    "cat shapes": (lambda: mt.cat([mt.ones(2, 3), mt.ones(2, 4)]), ValueError, "does not fit beside"),
    "cat of nothing": (lambda: mt.cat([]), ValueError, "at least one"),
    "stack axis": (lambda: mt.stack([mt.ones(2), mt.ones(2)], 2), ValueError, "axis 2 is out of range"),
    "split into nothing": (lambda: mt.split(mt.ones(0), []), ValueError, "do not add up"),
    "split sizes": (lambda: mt.split(mt.ones(5), [2, 2]), ValueError, "do not add up to 5"),
    "pad": (lambda: mt.pad(mt.ones(2), ((1, -1),)), ValueError, "non-negative"),
    "clamp": (lambda: mt.clamp(mt.ones(2), 2, 1), ValueError, "min 2 is above max 1"),
    "where mask": (lambda: mt.where(mt.ones(2), mt.ones(2), mt.ones(2)), TypeError, "must be boolean"),
    "gather index": (lambda: mt.gather(mt.ones(2, 3), 1, np.array([[3], [0]])), IndexError, r"outside 0\.\.2"),
    "gather shape": (lambda: mt.gather(mt.ones(2, 3), 1, np.array([[0]])), ValueError, "must agree"),
    "float index": (lambda: mt.ones(3)[mt.ones(1)], TypeError, "integers or booleans"),
    "embedding index": (lambda: mt.embedding(np.array([5]), mt.ones(4, 2)), IndexError, "index 5 is outside"),
    "target": (lambda: mt.cross_entropy(mt.ones(2, 3), np.array([0, 3])), IndexError, r"targets\[1\] is 3"),
    "cross-entropy shape": (lambda: mt.cross_entropy(mt.ones(2, 3), np.array([0])), ValueError, r"shape \(2,\)"),
    "all ignored": (lambda: mt.cross_entropy(mt.ones(1, 3), np.array([-100])), ValueError, "nothing to average"),
    "smoothing": (lambda: mt.cross_entropy(mt.ones(1, 3), np.array([0]), label_smoothing=2), ValueError, r"\[0, 1\]"),
    "dropout p": (lambda: mt.dropout(mt.ones(3), 1.0, mt.Generator(0)), ValueError, r"\[0, 1\)"),
    "gelu form": (lambda: mt.gelu(mt.ones(3), "quick"), ValueError, '"none" or "tanh"'),
    "attention rank": (lambda: mt.scaled_dot_product_attention(*[mt.ones(2, 3, 4)] * 3), ValueError, r"\(B, H, T, d\)"),
    "attention heads": (
        lambda: mt.scaled_dot_product_attention(mt.ones(1, 3, 3, 4), mt.ones(1, 2, 3, 4), mt.ones(1, 2, 3, 4)),
        ValueError, "2 key/value heads do not divide 3 query heads"),
    "attention window": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(1, 2, 3, 4)] * 3, window=0),
        ValueError, "window must lie in 1"),
    "attention lengths": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(2, 1, 3, 4)] * 3, key_lengths=[1, 4]),
        ValueError, r"key_lengths must be 2 numbers in 0\.\.3"),
    "attention boundaries": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(1, 2, 3, 4)] * 3, boundaries=[0, 2]),
        ValueError, "boundaries must rise from 0 to 3"),
    "slopes that learn": (
        lambda: mt.scaled_dot_product_attention(
            *[mt.ones(1, 2, 3, 4)] * 3, alibi_slopes=mt.ones(2, requires_grad=True)),
        TypeError, "constants"),
    "page table": (
        lambda: mt.paged_attention(
            mt.ones(1, 2, 1, 4), *[mt.ones(3, 1, 2, 4)] * 2, np.array([[0, 3]]), np.array([3])),
        IndexError, r"table\[0, 1\] is 3, allowed are 0 to 2"),
    "attention mask": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(1, 2, 3, 4)] * 3, attn_mask=mt.zeros(2, 3)),
        ValueError, "does not broadcast"),
    "a mask that learns": (
        lambda: mt.scaled_dot_product_attention(
            *[mt.ones(1, 2, 3, 4)] * 3, attn_mask=mt.zeros(3, 3, requires_grad=True)),
        TypeError, "constant"),
    "no norm weight": (lambda: mt.rms_norm(mt.ones(2, 3), None), TypeError, "weight must be a float array, got None"),
    "layer norm weight": (lambda: mt.layer_norm(mt.ones(2, 3), mt.ones(4)), ValueError, r"weight must have shape"),
    "mse shapes": (lambda: mt.mse_loss(mt.ones(2), mt.ones(3)), ValueError, "differ"),
    "seed": (lambda: mt.Generator(-1), ValueError, "a seed is an integer"),
    "integers": (lambda: mt.Generator(0).integers(3, 3), ValueError, "low < high"),
    "kernel set": (lambda: mt.kernels.use("cudnn").__enter__(), ValueError, "no kernel set named 'cudnn'"),
    "attention causal": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(1, 2, 3, 4)] * 3, is_causal="no"),
        TypeError, "causal must be True or False, got 'no'"),
    "attention scale": (
        lambda: mt.scaled_dot_product_attention(*[mt.ones(1, 2, 3, 4)] * 3, scale=mt.ones(1)),
        TypeError, "scale must be a number, got Tensor"),
    "topk fraction": (
        lambda: mt.topk_activation(mt.ones(3), fraction="a"), TypeError, r"fraction must be a number in \(0, 1\]"),
    "topk without axes": (lambda: mt.topk_activation(mt.ones(), fraction=0.5), ValueError, "x must have at least 1"),
}  # fmt: skip


def test_queries_without_a_width_look_at_all_keys_alike():
    o = mt.scaled_dot_product_attention(mt.ones(1, 1, 2, 0), mt.ones(1, 1, 2, 0), mt.tensor([[[[1.0], [3.0]]]]))
    assert o.tolist() == [[[[2.0], [2.0]]]]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line(case):
    run, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)
