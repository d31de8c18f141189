import copy

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels
from minitransformer.models import GPT, GPTConfig

from .helpers import KERNEL_SETS, random_ids, small_gpt


def gradients(model, ids, targets):
    model.zero_grad()
    model.loss(ids, targets).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_gradient_of_the_whole_model_with_dropout(kernel_set):
    """d loss / d θ along a random direction, against central differences, the same dropout masks every time."""
    model = small_gpt(dropout=0.2)
    ids, targets = random_ids(model, 3, 12, seed=1), random_ids(model, 3, 12, seed=2)
    masks = model.generator.state_dict()

    def loss():
        model.generator.load_state_dict(masks)
        return model.loss(ids, targets)

    with kernels.use(kernel_set):
        loss().backward()
        directions = [Generator(i).normal(p.shape, dtype=np.float64) for i, p in enumerate(model.parameters())]
        slope = sum(float((p.grad * v).sum()) for p, v in zip(model.parameters(), directions))
        step, values = 1e-6, []
        for sign in (1, -2, 1):  # to θ + εv, to θ - εv, and back
            for p, v in zip(model.parameters(), directions):
                p.data += sign * step * v
            values.append(loss().item())
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 1e-2
    assert slope == pytest.approx(expected, rel=1e-7)


def test_every_parameter_gets_a_gradient():
    model = small_gpt()
    found = gradients(model, random_ids(model, 2, 12), random_ids(model, 2, 12, seed=1))
    assert all(g is not None and np.abs(g).max() > 0 for g in found.values())


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_token_does_not_reach_back_in_time(dtype, kernel_set):
    model = small_gpt(dtype)
    ids = random_ids(model, 2, 12)
    with kernels.use(kernel_set):
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
    model = small_gpt(dtype)
    ids = random_ids(model, 2, 12)
    with kernels.use(kernel_set), model.evaluating():
        full = model(ids).numpy()
        cache, cached, start = model.new_cache(batch=2), [], 0
        for length in pieces:
            cached.append(model(ids[:, start : start + length], cache).numpy())
            start += length
            assert cache.length == start
    error = np.abs(np.concatenate(cached, axis=1) - full).max()
    assert error <= tolerance * np.abs(full).max()


def test_last_only_is_the_last_position():
    model = small_gpt()
    ids = random_ids(model, 2, 9)
    np.testing.assert_allclose(model(ids, last_only=True).numpy(), model(ids).numpy()[:, -1:], rtol=1e-13)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputation_changes_no_bit(dropout):
    """Same gradients, and the random stream stands where it stands without recomputation."""
    plain, recomputed = small_gpt("float32", dropout), small_gpt("float32", dropout, recompute=True)
    ids, targets = random_ids(plain, 3, 12), random_ids(plain, 3, 12, seed=1)
    for _ in range(2):
        expected, got = gradients(plain, ids, targets), gradients(recomputed, ids, targets)
        for name in expected:
            assert np.array_equal(expected[name], got[name]), name
        assert plain.generator.state_dict() == recomputed.generator.state_dict()


def test_captured_attention():
    model = small_gpt()
    ids = random_ids(model, 3, 10)
    logits, attentions = model(ids, capture_attention=True)
    assert np.array_equal(logits.numpy(), model(ids).numpy())
    assert [a.shape for a in attentions] == [(3, 2, 10, 10)] * 2
    for a in attentions:
        np.testing.assert_allclose(a.sum(-1), 1, rtol=1e-12)
        assert (np.triu(a, 1) == 0).all() and a.std() > 0.01


def test_a_head_that_is_switched_off_is_as_good_as_gone():
    """Zeroing the columns of the output projection that read the head does the same."""
    model, removed = small_gpt(), small_gpt()
    ids = random_ids(model, 2, 12)
    removed.blocks[1].attention.output.weight.data[:, :8] = 0  # head 0 of layer 1
    whole = model(ids).numpy()
    with model.without_heads([(1, 0)]):
        ablated = model(ids).numpy()
        with model.without_heads([(1, 1)]):
            both = model(ids).numpy()
        assert np.array_equal(model(ids).numpy(), ablated)
    with model.without_heads([(1, 0), (1, 1)]):
        assert np.array_equal(model(ids).numpy(), both)
    np.testing.assert_allclose(ablated, removed(ids).numpy(), rtol=1e-12, atol=1e-14)
    assert not np.allclose(ablated, whole)
    assert np.array_equal(model(ids).numpy(), whole)
    with pytest.raises(IndexError, match=r"no head \(0, 2\) in 2 layers of 2 heads"), model.without_heads([(0, 2)]):
        pass


def test_the_table_of_tokens_is_one_parameter():
    """It reads tokens in and scores them on the way out: one entry, whose gradient is the sum of both uses."""
    model = small_gpt()
    assert [name for name, _ in model.named_parameters() if "token" in name] == ["token_embedding.weight"]
    V, T, D, L = 11, 12, 16, 2
    block = 4 * D * D + 4 * D + 8 * D * D + 5 * D + 4 * D
    assert model.parameter_count() == V * D + T * D + L * block + 2 * D
    ids = np.zeros((1, 4), np.int64)
    found = gradients(model, ids, ids)["token_embedding.weight"]
    assert np.abs(found[1:]).max() > 0  # scored, never read
    assert np.abs(found[0]).max() > 0


def test_state_round_trip():
    model, other = small_gpt(seed=0), small_gpt(seed=7)
    ids = random_ids(model, 2, 12)
    state = model.state_dict()
    assert not np.array_equal(model(ids).numpy(), other(ids).numpy())
    other.load_state_dict(state)
    assert np.array_equal(model(ids).numpy(), other(ids).numpy())
    model.blocks[0].feed_forward.up.weight.data[:] = 0
    assert state["blocks.0.feed_forward.up.weight"].any()  # a snapshot does not follow the model


def test_a_deep_copy_is_separate():
    model = small_gpt(dropout=0.5)
    twin = copy.deepcopy(model)
    assert twin.dropout.generator is twin.generator is twin.blocks[1].dropout.generator
    assert twin.generator is not model.generator
    twin.token_embedding.weight.data[:] = 0
    assert model.token_embedding.weight.data.any()


def test_one_generator_decides_everything():
    config = GPTConfig(vocab_size=11, context=8, layers=1, heads=2, width=8, dropout=0.5)
    ids = Generator(3).integers(0, 11, (2, 8))
    first, second, third = GPT(config), GPT(config, Generator(0)), GPT(config, Generator(1))
    a, b, again = first.loss(ids, ids).item(), second.loss(ids, ids).item(), first.loss(ids, ids).item()
    assert a == b and a != again  # the stream moves on from batch to batch
    assert a != third.loss(ids, ids).item()
    first.eval()
    assert first.loss(ids, ids).item() == first.loss(ids, ids).item()


def test_a_fresh_model_guesses_evenly():
    """Loss ln V at the start, and the residual stream does not grow with depth."""
    ids = Generator(1).integers(0, 65, (4, 33))
    for layers in (1, 6):
        model = GPT(GPTConfig(vocab_size=65, context=32, layers=layers, heads=2, width=48))
        assert model.loss(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(np.log(65), abs=0.1)
        weights = [block.feed_forward.down.weight.data.std() for block in model.blocks]
        assert np.mean(weights) == pytest.approx(0.02 / np.sqrt(2 * layers), rel=0.02)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "layers must be a positive integer, got 0"),
        ({"vocab_size": -3}, "vocab_size must be a positive integer, got -3"),
        ({"context": 2.5}, "context must be a positive integer, got 2.5"),
        ({"width": True}, "width must be a positive integer, got True"),
        ({"heads": 5}, "5 heads do not divide the width 16; these do: 1, 2, 4, 8, 16"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ({"dropout": float("nan")}, r"dropout must be a number in \[0, 1\), got nan"),
    ],
)
def test_sizes_that_make_no_model(sizes, message):
    with pytest.raises(ValueError, match=message) as caught:
        GPTConfig(**{"vocab_size": 11, "width": 16, **sizes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.zeros((1, 13), np.int64), ValueError, "13 tokens are more than the context of 12"),
        (np.zeros((1, 0), np.int64), ValueError, r"integers \(B, T\) with T > 0"),
        (np.zeros(4, np.int64), ValueError, r"integers \(B, T\) with T > 0, got int64 of shape \(4,\)"),
        (np.zeros((1, 4)), ValueError, "got float64"),
        (np.full((1, 4), 11), IndexError, "11"),
        (np.full((1, 4), -1), IndexError, "-1"),
    ],
)
def test_ids_that_do_not_fit(ids, error, message):
    with pytest.raises(error, match=message):
        small_gpt()(ids)


def test_a_cache_that_does_not_fit():
    model = small_gpt()
    with mt.no_grad():
        cache = model.new_cache()
        model(random_ids(model, 1, 10), cache)
        with pytest.raises(ValueError, match="3 tokens after 10 in the cache are more than the context of 12"):
            model(random_ids(model, 1, 3), cache)
        with pytest.raises(ValueError, match="made for shapes"):
            model(random_ids(model, 2, 1), cache)
    for recompute in (False, True):
        model.recompute = recompute
        with pytest.raises(RuntimeError, match="no_grad"):
            model(random_ids(model, 1, 1), model.new_cache())
