"""Layers and ops that keep arrays of their own compute where their inputs live, or say in one line that they cannot."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn
from minitransformer.kernels import devices, paging
from minitransformer.kernels.cuda import standin
from minitransformer.kernels.quantized_weight import QuantizedWeight
from minitransformer.models import RecurrentLM, RecurrentLMConfig

THERE = "cuda-emulated"
F32 = np.float32


def there(array):
    return devices.device(THERE).put(np.asarray(array))


def draw(*shape, seed=0):
    return Generator(seed).normal(shape)


def output_and_gradients(module, x):
    x = x.requires_grad_()
    y = module(x)
    y.backward(mt.Generator(5).normal(y.shape, device=y.device))
    return [devices.fetch(a) for a in (y.data, x.grad, *[p.grad for p in module.parameters()])]


def same_there(module, *shape):
    """Output and every gradient of a module, here and there."""
    here = output_and_gradients(module, mt.tensor(draw(*shape)))
    module.zero_grad()
    with kernels.use("numpy"):
        away = output_and_gradients(module.to(THERE), mt.tensor(draw(*shape), device=THERE))
    for a, b in zip(here, away, strict=True):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM])
def test_a_recurrent_layer(layer):
    model = layer(3, 5, generator=Generator(0))
    model.forward, walk = (lambda x: walk(x)[0]), model.forward
    same_there(model, 2, 4, 3)


def test_a_recurrent_language_model():
    model = RecurrentLM(RecurrentLMConfig(7, width=6))
    ids = np.array([[1, 2, 6], [0, 5, 5]])
    here = model.loss(ids, ids).item()
    ids = mt.tensor(ids, device=THERE)
    with kernels.use("numpy"):
        assert model.to(THERE).loss(ids, ids).item() == pytest.approx(here, rel=1e-5)


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize("form", ["plain", "relu2", "swiglu"])
def test_a_sparse_feed_forward_layer(form, predicted):
    here, away = (nn.SparseFeedForward(8, 20, 0.3, form, generator=Generator(1)) for _ in range(2))
    away.to(THERE)
    if predicted:
        recall = here.fit_predictor(draw(40, 8, seed=2), 6)
        assert away.fit_predictor(there(draw(40, 8, seed=2)), 6) == pytest.approx(recall, abs=0.05)
    for tokens in (3, 20):
        x = draw(tokens, 8, seed=tokens)
        for grad in (mt.no_grad, mt.enable_grad):
            with grad():
                y, expected = away(mt.tensor(x, device=THERE)), here(mt.tensor(x))
                assert y.device == THERE and np.allclose(y.cpu().numpy(), expected.numpy(), atol=1e-5), (tokens, grad)


def test_what_lives_on_the_cpu_says_so_in_one_line():
    layer = nn.QuantizedLinear.from_linear(nn.Linear(32, 4, generator=Generator(0))).to(THERE)
    with pytest.raises(TypeError, match=r"QuantizedLinear: it computes on cpu, .* cuda-emulated; \.to") as caught:
        layer(mt.zeros(2, 32, device=THERE))
    assert "\n" not in str(caught.value)
    cache = nn.PagedCache(1, 4, 4, 2, 8)
    (layer,) = cache.extend([cache.start()], 3).layers
    q = mt.zeros(1, 2, 3, 8, device=THERE)
    with pytest.raises(TypeError, match=r"paged cache: its pages live on cpu, .* cuda-emulated; \.to") as caught:
        layer.attend(q, q, q)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("format", "inputs"),
    [("int8", "float"), ("int8", "int8"), ("q4_1", "float"), ("q4_1", "int8"), ("bfloat16", "float")],
)
def test_a_quantised_product_in_array_expressions(format, inputs):
    w, x = draw(6, 64), draw(3, 64, seed=1)
    fixed, scale = QuantizedWeight.quantize(w, format), 0.02 if inputs == "int8" else None
    with kernels.use("numpy"):
        for input_scale in (None, scale):
            options = None, None, inputs, input_scale
            here, away = (kernels.quantized_gemm(a, fixed, *options) for a in (x, there(x)))
            assert np.allclose(here, away.get(), atol=1e-5)
        trained = mt.quantized_gemm(mt.tensor(x, device=THERE), mt.tensor(w, device=THERE), format=format)
        assert np.allclose(trained.cpu().numpy(), kernels.quantized_gemm(x, fixed), atol=1e-5)
        codes, scales = kernels.quantize_rows(there(np.zeros((3, 0), F32)))
        assert codes.shape == (3, 0) and scales.tolist() == [0.0] * 3


def test_pages_are_found_without_waiting_and_never_beyond_the_pool():
    g = Generator(3)
    q, keys, values = g.normal((3, 2, 1, 4)), g.normal((5, 1, 2, 4)), g.normal((5, 1, 2, 3))
    table, lengths = np.array([[4, 2, -7], [0, 4, 1], [9, 3, -7]]), np.array([3, 5, 0])
    o, _ = kernels.paged_attention_forward(q, keys, values, table, lengths, scale=0.5)
    moved = [there(a) for a in (q, keys, values, table, lengths)]
    wrong = [*moved[:3], there([[4, 5, -7], [0, 4, -1], [9, 3, -7]]), there([3, 7, 0])]
    with kernels.use("numpy"), standin.counting() as counts:
        found, bad = (kernels.paged_attention_forward(*a, scale=0.5)[0] for a in (moved, wrong))
        pages, slots, _ = paging.places(*moved[3:], 2)
        back = paging.scatter_add(paging.gather(moved[1], pages, slots), moved[1], pages, slots)
        assert counts.to_device == counts.from_device == 0
    assert np.allclose(found.get(), o, atol=1e-6)
    assert np.isnan(bad.get()).all((1, 2, 3)).tolist() == [True, True, False] and not bad.get()[2].any()
    read = np.zeros((5, 2), int)
    np.add.at(read, (np.array([4, 4, 2, 0, 0, 4, 4, 1]), np.array([0, 1, 0, 0, 1, 0, 1, 0])), 1)
    assert np.allclose(back.get(), keys * read[:, None, :, None], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "who"),
    [
        (lambda x, i: kernels.attention_forward(x, x, x, scale=1.0, spans=i[None]), "attention_forward"),
        (lambda x, i: kernels.attention_probabilities(x, x, x[..., 0], scale=1.0, heads=i[0]), "probabilities"),
        (lambda x, i: kernels.attention_probabilities(x, x, x[..., 0], scale=1.0, rows=i[0]), "probabilities"),
        (lambda x, i: kernels.paged_attention_forward(x, x, x, i[:1], there([1]), scale=1.0), "paged_attention"),
        (lambda x, i: kernels.paged_attention_forward(x, x, x, there([[0]]), i[0, :1], scale=1.0), "paged_attention"),
        (lambda x, i: kernels.gathered_linear(x[0, 0], x[0, 0], i), "gathered_linear"),
        (lambda x, i: kernels.gathered_sum(x[0, 0], x[0, 0], i), "gathered_sum"),
        (lambda x, i: mt.scaled_dot_product_attention(*[mt.Tensor(x)] * 3, key_lengths=i[0, :1]), "Attention"),
        (lambda x, i: mt.scaled_dot_product_attention(*[mt.Tensor(x)] * 3, alibi_slopes=x[0, 0, 0].get()[:1]), "Att"),
    ],
)
def test_numbers_that_say_where_to_look_live_where_the_rest_does(call, who):
    x = there(np.ones((1, 1, 2, 2), F32))
    with pytest.raises(TypeError, match=rf'{who}.*one array lives on .*\.to\("cpu"\)'):
        call(x, np.zeros((2, 2), np.int64))


@pytest.mark.parametrize("wanted", ["table", "lengths", "heads", "rows", "indices"])
def test_a_list_in_place_of_an_array_is_told_so(wanted):
    x, one = np.ones((1, 1, 2, 2), F32), np.array([0])
    with pytest.raises(TypeError, match=rf"{wanted} must be an integer array, got list"):
        if wanted in ("heads", "rows"):
            kernels.attention_probabilities(x, x, x[..., 0], scale=1.0, **{wanted: [0]})
        elif wanted == "indices":
            kernels.gathered_sum(x[0, 0], x[0, 0], [[0, 1]])
        else:
            places = {"table": one[None], "lengths": one, wanted: [[0]]}
            kernels.paged_attention_forward(x, x, x, places["table"], places["lengths"], scale=1.0)


@pytest.mark.parametrize("name", [["cpu"], None, 3, np.array(1)])
def test_a_device_is_named_by_a_string(name):
    with pytest.raises(ValueError, match=r"no device named .*; known are cpu, cuda, cuda-emulated"):
        mt.device(name)


@pytest.mark.parametrize(
    ("options", "arrays"),
    [
        ({"is_causal": True}, {"alibi_slopes": np.array([0.5, 0.25], F32)}),
        ({"window": 3}, {"key_lengths": np.array([4, 0])}),
        ({"is_causal": True, "one": True}, {"boundaries": np.array([0, 2, 2, 5])}),
    ],
)
def test_attentions_options_on_the_device_make_nobody_wait(options, arrays):
    one = options.pop("one", False)
    x = [draw(1 if one else 2, 2, 5, 4, seed=i) for i in range(3)]
    results = []
    for place in ("cpu", THERE):
        q, k, v = (mt.tensor(a, device=place).requires_grad_() for a in x)
        given, dy = {name: mt.tensor(a, device=place) for name, a in arrays.items()}, mt.tensor(x[0], device=place)
        with kernels.use("numpy"), standin.counting() as counts:
            y = mt.scaled_dot_product_attention(q, k, v, **options, **given)
            y.backward(dy.data)
            assert counts.to_device == counts.from_device == 0
        results.append([devices.fetch(a) for a in (y.data, q.grad, k.grad, v.grad)])
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_lists_of_lengths_are_checked_and_moved_in_one_piece():
    q = mt.tensor(draw(2, 1, 3, 4), device=THERE)
    with kernels.use("numpy"), standin.counting() as counts:
        mt.scaled_dot_product_attention(q, q, q, key_lengths=[2, 3])
        assert (counts.to_device, counts.from_device) == (1, 0)
    with pytest.raises(ValueError, match=r"key_lengths must be 2 numbers in 0\.\.3, got \[2, 4\]"):
        mt.scaled_dot_product_attention(q, q, q, key_lengths=[2, 4])
    with pytest.raises(ValueError, match=r"key_lengths must be 2 numbers in 0\.\.3, got shape \(3,\)"):
        mt.scaled_dot_product_attention(q, q, q, key_lengths=mt.tensor([2, 3, 1], device=THERE))
