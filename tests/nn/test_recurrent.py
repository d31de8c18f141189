import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn

from ..models.helpers import KERNEL_SETS

B, T, K, D = 2, 6, 3, 4
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM}
both = pytest.mark.parametrize("kind", LAYERS)


def layer(kind, dtype="float64", **options):
    made = LAYERS[kind](K, D, generator=Generator(0), **options)
    for i, p in enumerate(made.parameters()):
        p.data += Generator(i + 1).normal(p.shape, std=0.3)
    return made.to(dtype)


def stream(seed=0, steps=T, dtype=np.float64):
    return mt.tensor(Generator(seed).normal((B, steps, K), dtype=dtype), requires_grad=True)


def a_state(kind, seed=9):
    return tuple(
        mt.tensor(Generator(seed + i).normal((B, 1, D), dtype=np.float64), requires_grad=True)
        for i in range(len(layer(kind).state_names))
    )


def loop(kind, made, x, state):
    """The formulas, one number of one sequence at a time; the state is a list of arrays (B, D)."""
    W_x, b, W_h = made.input.weight.data, made.input.bias.data, made.hidden.weight.data
    outputs, state = [], [s.copy() for s in state]
    for t in range(x.shape[1]):
        a = np.empty((B, len(b)))
        for n in range(B):
            for j in range(len(b)):
                a[n, j] = b[j] + sum(W_x[j] * x[n, t]) + sum(W_h[j] * state[0][n])
        if kind == "rnn":
            state = [np.tanh(a)]
        else:
            i, f, o = (1 / (1 + np.exp(-a[:, part * D : (part + 1) * D])) for part in range(3))
            c = f * state[1] + i * np.tanh(a[:, 3 * D :])
            state = [o * np.tanh(c), c]
        outputs.append(state[0])
    return np.stack(outputs, axis=1), state


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
@both
def test_it_is_its_formula(kind, given, kernel_set):
    made, x, state = layer(kind), stream(), a_state(kind)
    with kernels.use(kernel_set):
        y, after = made(x, state if given else None)
    start = [s.numpy()[:, 0] if given else np.zeros((B, D)) for s in state]
    expected, last = loop(kind, made, x.numpy(), start)
    assert y.shape == (B, T, D)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14)
    for got, right in zip(after, last, strict=True):
        np.testing.assert_allclose(got.numpy()[:, 0], right, rtol=1e-12, atol=1e-14)
    assert np.array_equal(after[0].numpy(), y.numpy()[:, -1:])


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@both
def test_gradients_of_input_state_and_every_weight(kind, kernel_set):
    made, x, state = layer(kind), stream(steps=4), a_state(kind)
    weights = list(made.parameters())
    assert len(weights) == 3

    def run(x, *rest):
        y, after = made(x, rest[: len(state)])
        return y, *after

    with kernels.use(kernel_set):
        assert mt.gradcheck(run, x, *state, *weights)


@both
def test_a_state_that_is_carried_on_is_one_long_run(kind):
    made, x = layer(kind), stream()
    whole, last = made(x)
    dy = Generator(5).normal((B, T, D), dtype=np.float64)
    whole.backward(dy)
    expected = [x.grad, *[p.grad for p in made.parameters()]]
    for lengths in ([1] * T, [2, 3, 1]):
        made.zero_grad()
        x.grad, pieces, state = None, [], None
        for piece in x.split(lengths, axis=1):
            y, state = made(piece, state)
            pieces.append(y)
        joined = mt.cat(pieces, axis=1)
        joined.backward(dy)  # through the pieces: the state keeps its history
        np.testing.assert_allclose(joined.numpy(), whole.numpy(), rtol=1e-13, atol=1e-15)
        for got, right in zip(state, last, strict=True):
            np.testing.assert_allclose(got.numpy(), right.numpy(), rtol=1e-13, atol=1e-15)
        for got, right in zip([x.grad, *[p.grad for p in made.parameters()]], expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@both
def test_a_step_does_not_reach_back_in_time(kind, dtype, kernel_set):
    made, x = layer(kind, dtype), stream().numpy().astype(dtype)
    with kernels.use(kernel_set):
        before = made(mt.tensor(x))[0].numpy()
        assert before.dtype == dtype
        for t in range(T):
            changed = x.copy()
            changed[:, t] += 1
            after = made(mt.tensor(changed))[0].numpy()
            assert np.array_equal(before[:, :t], after[:, :t])
            assert all(not np.array_equal(before[:, s], after[:, s]) for s in range(t, T))  # but forward it reaches


def test_the_forget_bias_is_the_share_of_a_memory_that_stays():
    for bias, stays in ((0.0, 0.5), (1.0, 1 / (1 + np.exp(-1.0))), (4.0, 1 / (1 + np.exp(-4.0)))):
        made = nn.LSTM(K, D, generator=Generator(0), forget_bias=bias).to("float64")
        made.hidden.weight.data[:] = 0
        state = made.initial_state(B)[0], mt.ones(B, 1, D, dtype="float64")
        _, (_, c) = made(mt.zeros(B, 5, K, dtype="float64"), state)
        np.testing.assert_allclose(c.numpy(), stays**5, rtol=1e-6)  # the bias itself is rounded to float32
    assert not np.any(nn.RNN(K, D, generator=Generator(0)).input.bias.data)


def test_every_part_starts_with_a_spread_of_its_own():
    """Xavier of (D, D), not of the (4D, D) matrix that holds all four."""
    made = nn.LSTM(64, 64, generator=Generator(0))
    for weight in (made.input.weight.data, made.hidden.weight.data):
        for part in np.split(weight, 4):
            assert part.std() == pytest.approx(np.sqrt(2 / 128), rel=0.05)
    assert made.parameter_count() == 4 * (64 * 64 + 64 * 64 + 64)


@both
def test_what_does_not_fit(kind):
    made, x = layer(kind), stream()
    name, right = type(made).__name__, a_state(kind)
    for wrong in (np.zeros((B, T, K + 1)), np.zeros((T, K)), np.zeros((B, 0, K))):
        with pytest.raises(
            ValueError, match=rf"{name}: x must have shape \(B, T, 3\) with T > 0, got \({wrong.shape[0]}"
        ):
            made(mt.tensor(wrong))
    for wrong in (
        (),
        right[:-1],
        (*right, right[0]),
        right[0],
        tuple(s[:1] for s in right),
        tuple(s[:, 0] for s in right),
    ):
        with pytest.raises(
            ValueError, match=rf"{name}: the state must be a tuple \(h.*of tensors \(2, 1, 4\), got"
        ) as caught:
            made(x, wrong)
        assert "\n" not in str(caught.value)
    for sizes, said in (((0, 4), "input_width"), ((3, 2.0), "width")):
        with pytest.raises(ValueError, match=rf"{name}: {said} must be a positive integer"):
            LAYERS[kind](*sizes, generator=Generator(0))
