import numpy as np
import pytest

from minitransformer import Generator, kernels
from minitransformer.models import Llama, LlamaConfig

from .helpers import KERNEL_SETS, random_ids

SMALL = {"vocab_size": 11, "context": 12, "layers": 2, "heads": 4, "key_value_heads": 2, "width": 16, "hidden": 20}


def small_llama(dtype="float64", seed=0, **options) -> Llama:
    """Weights far enough from zero that attention is not uniform; a small base, so that every pair turns visibly."""
    config = LlamaConfig(**{**SMALL, "rope_base": 50.0, **options})
    model, noise = Llama(config, Generator(seed)), Generator(seed + 1)
    for parameter in model.parameters():
        parameter.data += noise.normal(parameter.shape, std=0.3)
    return model.to(dtype)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("options", [{}, {"tied": False, "rope_interleaved": True}, {"key_value_heads": 1}])
def test_gradient_of_the_whole_model(kernel_set, options):
    """d loss / d θ along a random direction, against central differences."""
    model = small_llama(**options)
    ids, targets = random_ids(model, 3, 12, seed=1), random_ids(model, 3, 12, seed=2)
    with kernels.use(kernel_set):
        model.loss(ids, targets).backward()
        directions = [Generator(i).normal(p.shape, dtype=np.float64) for i, p in enumerate(model.parameters())]
        slope = sum(float((p.grad * v).sum()) for p, v in zip(model.parameters(), directions))
        step, values = 1e-6, []
        for sign in (1, -2):  # to θ + εv, to θ - εv
            for p, v in zip(model.parameters(), directions):
                p.data += sign * step * v
            values.append(model.loss(ids, targets).item())
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 1e-2
    assert slope == pytest.approx(expected, rel=1e-7)
    assert all(np.abs(p.grad).max() > 0 for p in model.parameters())


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_token_does_not_reach_back_in_time(dtype, kernel_set):
    model = small_llama(dtype)
    ids = random_ids(model, 2, 12)
    with kernels.use(kernel_set), model.evaluating():
        before = model(ids).numpy()
        for t in range(12):
            changed = ids.copy()
            changed[:, t] = (changed[:, t] + 1) % 11
            after = model(changed).numpy()
            assert np.array_equal(before[:, :t], after[:, :t])
            assert not np.array_equal(before[:, t], after[:, t])
            assert t == 11 or not np.array_equal(before[:, 11], after[:, 11])  # forward in time it does reach


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("pieces", [[1] * 12, [7, 1, 1, 3], [12]])
def test_cached_decoding_is_the_full_forward(pieces, dtype, tolerance, kernel_set):
    model = small_llama(dtype)
    ids = random_ids(model, 2, 12)
    with kernels.use(kernel_set), model.evaluating():
        full = model(ids).numpy()
        cache, cached, start = model.new_cache(batch=2), [], 0
        for length in pieces:
            cached.append(model(ids[:, start : start + length], cache).numpy())
            start += length
            assert cache.length == start
    assert cache.layers[0].keys.shape[1] == 2, "only the key/value heads are stored"
    error = np.abs(np.concatenate(cached, axis=1) - full).max()
    assert error <= tolerance * np.abs(full).max()


def test_the_order_of_tokens_matters():
    """Without positions, a block of causal attention sees a set of earlier tokens: the last logits would be equal."""
    model = small_llama(layers=1)
    ids = random_ids(model, 1, 8)
    swapped = ids.copy()
    swapped[:, [2, 3]] = [[3, 2]]
    ids[:, [2, 3]] = [[2, 3]]
    assert np.abs(model(ids).numpy()[:, -1] - model(swapped).numpy()[:, -1]).max() > 1e-3


def test_interleaved_pairs_are_half_split_pairs_in_another_order():
    half, interleaved = small_llama(), small_llama(rope_interleaved=True)
    state = half.state_dict()
    d, turned = 4, 4 + 2  # heads of queries and keys are turned, those of values are not
    order = np.arange(d).reshape(2, d // 2).T.ravel()  # i, i + d/2 beside each other
    for name in state:
        if name.endswith("qkv.weight"):
            heads = state[name].reshape(-1, d, 16)
            heads[:turned] = heads[:turned, order]
    interleaved.load_state_dict(state)
    ids = random_ids(half, 2, 12)
    np.testing.assert_allclose(interleaved(ids).numpy(), half(ids).numpy(), rtol=1e-12, atol=1e-12)


def test_captured_attention_and_heads_switched_off():
    model = small_llama()
    ids = random_ids(model, 3, 10)
    logits, attentions = model(ids, capture_attention=True)
    assert np.array_equal(logits.numpy(), model(ids).numpy())
    assert [a.shape for a in attentions] == [(3, 4, 10, 10)] * 2
    for a in attentions:
        np.testing.assert_allclose(a.sum(-1), 1, rtol=1e-12)
        assert (np.triu(a, 1) == 0).all() and a.std() > 0.01
    with model.without_heads([(1, 0)]):
        assert np.abs(model(ids).numpy() - logits.numpy()).max() > 1e-3
    assert np.array_equal(model(ids).numpy(), logits.numpy())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 3}, "heads of an even width"),
        ({"heads": 16}, "heads of an even width"),
        ({"key_value_heads": 3}, "do not divide 4 heads"),
        ({"hidden": 0}, "hidden must be a positive integer"),
    ],
)
def test_sizes_that_make_no_model(wrong, said):
    with pytest.raises(ValueError, match=said):
        LlamaConfig(**{**SMALL, **wrong})


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_decoding_on_arrays_is_the_layers_bit_for_bit(kernel_set):
    """`_decode`, which runs without capture, against the modules and ops, which run with it."""
    model = small_llama("float32", rope_interleaved=True)
    ids = random_ids(model, 2, 12)
    with kernels.use(kernel_set), model.evaluating():
        short, long = model.new_cache(2), model.new_cache(2)
        for start, stop in ((0, 7), (7, 8), (8, 12)):
            a = model(ids[:, start:stop], short).numpy()
            b, _ = model(ids[:, start:stop], long, capture_attention=True)
            assert np.array_equal(a, b.numpy())
        for one, other in zip(short.layers, long.layers):
            assert np.array_equal(one.keys, other.keys) and np.array_equal(one.values, other.values)
