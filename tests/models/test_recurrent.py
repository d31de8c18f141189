import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels
from minitransformer.models import RecurrentLM, RecurrentLMConfig

from .helpers import KERNEL_SETS, random_ids

both = pytest.mark.parametrize("cell", ["rnn", "lstm"])


def small(cell, dtype="float64", layers=2, seed=0):
    model = RecurrentLM(RecurrentLMConfig(vocab_size=11, cell=cell, layers=layers, width=8), Generator(seed))
    for i, parameter in enumerate(model.parameters()):
        parameter.data += Generator(seed + i + 1).normal(parameter.shape, std=0.2)
    return model.to(dtype)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@both
def test_gradient_of_the_whole_model(cell, kernel_set):
    model = small(cell)
    ids, targets = random_ids(model, 2, 3), random_ids(model, 2, 3, seed=1)
    with kernels.use(kernel_set):
        assert mt.gradcheck(lambda *_: model.loss(ids, targets), *model.parameters())


@both
def test_it_is_table_layers_and_head(cell):
    model = small(cell)
    ids = random_ids(model, 2, 7)
    x = mt.tensor(model.token_embedding.weight.data[ids])
    for layer in model.layers:
        x, _ = layer(x)
    expected = x.numpy() @ model.head.weight.data.T + model.head.bias.data
    np.testing.assert_allclose(model(ids).numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 4]])
@both
def test_reading_in_pieces_is_reading_at_once(cell, pieces):
    model = small(cell)
    ids = random_ids(model, 2, 9)
    whole, last = model.read(ids)
    state, read = None, []
    for piece in np.split(ids, np.cumsum(pieces)[:-1], axis=1):
        logits, state = model.read(piece, state)
        read.append(logits.numpy())
    np.testing.assert_allclose(np.concatenate(read, axis=1), whole.numpy(), rtol=1e-12, atol=1e-14)
    for layer, expected in zip(state, last, strict=True):
        for got, right in zip(layer, expected, strict=True):
            np.testing.assert_allclose(got.numpy(), right.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@both
def test_a_token_does_not_reach_back_in_time(cell, dtype):
    model = small(cell, dtype)
    ids = random_ids(model, 2, 8)
    before = model(ids).numpy()
    for t in range(8):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % 11
        after = model(changed).numpy()
        assert np.array_equal(before[:, :t], after[:, :t])
        assert not np.array_equal(before[:, t], after[:, t]) and not np.array_equal(before[:, -1], after[:, -1])


@both
def test_a_fresh_model_guesses_evenly_and_one_generator_decides_it(cell):
    config = RecurrentLMConfig(vocab_size=65, cell=cell, width=48)
    ids = Generator(1).integers(0, 65, (4, 17))
    losses = [RecurrentLM(config, g).loss(ids[:, :-1], ids[:, 1:]).item() for g in (None, Generator(0), Generator(1))]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(np.log(65), abs=0.05)


@both
def test_it_learns_what_follows_what(cell):
    """0 1 2 … round and round: known from the token before."""
    model = RecurrentLM(RecurrentLMConfig(vocab_size=5, cell=cell, width=12))
    optimizer, ids = mt.optim.AdamW(model.parameters(), lr=0.03, weight_decay=0.0), np.arange(28).reshape(4, 7) % 5
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * np.log(5)


@both
def test_counts_and_a_round_trip_of_the_state(cell):
    model, other = small(cell), small(cell, seed=5)
    V, D, parts = 11, 8, {"rnn": 1, "lstm": 4}[cell]
    assert model.parameter_count() == V * D + 2 * parts * (2 * D * D + D) + D * V + V
    ids = random_ids(model, 2, 5)
    assert not np.array_equal(model(ids).numpy(), other(ids).numpy())
    other.load_state_dict(model.state_dict())
    assert np.array_equal(model(ids).numpy(), other(ids).numpy())


def test_the_forget_bias_reaches_every_layer():
    model = RecurrentLM(RecurrentLMConfig(vocab_size=5, layers=2, width=3, forget_bias=4.0))
    for layer in model.layers:
        assert np.array_equal(layer.input.bias.data, np.repeat([0, 4, 0, 0], 3))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 0}, "RecurrentLM: vocab_size must be a positive integer, got 0"),
        ({"layers": 1.5}, "layers must be a positive integer, got 1.5"),
        ({"cell": "LSTM"}, "there is no cell 'LSTM'; did you mean 'lstm'?"),
        ({"cell": "attention"}, "there is no cell 'attention'; there are 'rnn', 'lstm'"),
        ({"cell": None}, "there is no cell None"),
        ({"cell": ["lstm"]}, "there is no cell ['lstm']"),
        ({"forget_bias": float("nan")}, "forget_bias must be a finite number, got nan"),
        ({"forget_bias": "1"}, "forget_bias must be a finite number, got '1'"),
    ],
)
def test_sizes_that_make_no_model(sizes, message):
    with pytest.raises(ValueError) as caught:
        RecurrentLMConfig(**{"vocab_size": 11, **sizes})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.zeros((1, 0), np.int64), ValueError, r"integers \(B, T\) with T > 0, got int64 of shape \(1, 0\)"),
        (np.zeros(4, np.int64), ValueError, r"integers \(B, T\) with T > 0"),
        (np.zeros((1, 4)), ValueError, "got float64"),
        (np.full((1, 4), 11), IndexError, "11"),
        (np.full((1, 4), -1), IndexError, "-1"),
    ],
)
def test_ids_that_do_not_fit(ids, error, message):
    with pytest.raises(error, match=message):
        small("rnn")(ids)


def test_a_state_that_does_not_fit():
    model = small("lstm")
    _, state = model.read(random_ids(model, 2, 3))
    with pytest.raises(ValueError, match="the state must be that of 2 layers, got 1"):
        model.read(random_ids(model, 2, 3), state[:1])
    with pytest.raises(
        ValueError,
        match=r"LSTM: the state must be a tuple \(h, c\) of tensors \(3, 1, 8\), got \(2, 1, 8\), \(2, 1, 8\)$",
    ):
        model.read(random_ids(model, 3, 3), state)
