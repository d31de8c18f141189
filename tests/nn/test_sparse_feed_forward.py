import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn

from ..models.helpers import KERNEL_SETS

D, HIDDEN, TOKENS = 24, 80, 5
FORMS = ["plain", "relu2", "swiglu"]


def layer(form, rank=None, **options):
    made = nn.SparseFeedForward(D, HIDDEN, form=form, generator=Generator(0), **options).to("float64")
    if rank:
        made.fit_predictor(Generator(3).normal((60, D)), rank)
    return made


def stream(grad=True):
    return mt.tensor(Generator(1).normal((TOKENS, D), dtype=np.float64), requires_grad=grad)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rank", [None, 6])
@pytest.mark.parametrize("form", FORMS)
def test_reading_only_the_chosen_rows_changes_no_number(form, rank, shared, kernel_set):
    with kernels.use(kernel_set):
        feed_forward, x = layer(form, rank, shared=shared), stream()
        dense = feed_forward(x)
        with mt.no_grad():
            sparse = feed_forward(x)
    assert dense.requires_grad and not sparse.requires_grad
    np.testing.assert_allclose(sparse.data, dense.data, rtol=0, atol=1e-13 * np.abs(dense.data).max())


@pytest.mark.parametrize("form", FORMS)
def test_all_neurons_active_is_the_dense_layer(form):
    feed_forward, x = layer(form, active=1.0), stream(grad=False)
    gate = x.data @ feed_forward.gate.data.T
    h = gate / (1 + np.exp(-gate)) if form == "swiglu" else np.maximum(gate, 0)
    h = h * (x.data @ feed_forward.up.data.T) if form == "swiglu" else h**2 if form == "relu2" else h
    np.testing.assert_allclose(feed_forward(x).data, h @ feed_forward.down.data, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_silent_neurons_of_down_get_no_gradient(form):
    feed_forward = layer(form, active=0.1)
    x = stream()[:1]
    feed_forward(x).backward(np.ones((1, D)))
    alive = np.abs(feed_forward.down.grad).sum(1) > 0
    assert 0 < alive.sum() <= feed_forward.k == 8


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_the_whole_layer(form):
    feed_forward = layer(form)

    def function(x, gate, down):
        feed_forward.gate, feed_forward.down = gate, down
        return feed_forward(x)

    mt.gradcheck(function, stream().data, feed_forward.gate.data, feed_forward.down.data)


def test_a_predictor_of_full_rank_finds_every_neuron_and_of_low_rank_few():
    feed_forward, x = layer("swiglu"), Generator(5).normal((200, D))
    assert feed_forward.fit_predictor(x, D) > 0.999
    assert 0.2 < feed_forward.fit_predictor(x, 4) < 0.9
    low_rank = x[:, :3] @ Generator(6).normal((3, D))  # inputs that live in three directions need three numbers
    assert feed_forward.fit_predictor(low_rank, 3) > 0.999


def test_the_predictor_is_state_and_not_trained():
    feed_forward = layer("plain", rank=4)
    assert {name for name, _ in feed_forward.named_state()} > {"predictor.0", "predictor.1"}
    assert [name for name, _ in feed_forward.named_parameters()] == ["gate", "down"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"active": 0.0}, r"fraction must lie in \(0, 1\]"),
        ({"active": 1.5}, r"fraction must lie in \(0, 1\]"),
        ({"form": "gelu"}, "form must be one of plain, relu2, swiglu"),
        ({"backward": "none"}, 'backward must be "mask" or "straight_through"'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.SparseFeedForward(D, generator=Generator(0), **options)


def test_a_rank_that_cannot_be():
    with pytest.raises(ValueError, match=r"rank must lie in 1\.\.24"):
        layer("plain").fit_predictor(np.ones((4, D)), 25)
