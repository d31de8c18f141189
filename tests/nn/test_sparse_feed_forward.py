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
def test_reading_only_the_chosen_rows_changes_no_number(form, rank, shared, kernel_set, monkeypatch):
    feed_forward, x = layer(form, rank, shared=shared), stream()
    with kernels.use(kernel_set), mt.no_grad():
        sparse = feed_forward(x)
        monkeypatch.setattr(nn.sparse_feed_forward, "FEW", 0)
        dense = feed_forward(x)
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


@pytest.mark.parametrize("rank", [None, 6])
@pytest.mark.parametrize("backward", ["mask", "straight_through"])
def test_what_the_silent_neurons_of_the_gate_learn(backward, rank):
    """Nothing; or, straight through, what they would have learnt had nothing been cut off."""
    feed_forward, x, dy = layer("plain", rank, backward=backward), stream(), Generator(2).normal((TOKENS, D))
    feed_forward.down.data[:, :-1] = np.eye(HIDDEN)[:, : D - 1]  # the first neurons write a channel of their own
    y = feed_forward(x)
    y.backward(dy.astype(np.float64))
    pre = x.data @ feed_forward.gate.data.T
    dh = (dy @ feed_forward.down.data.T) * (pre > 0)
    if backward == "mask":
        dh[:, : D - 1] *= y.data[:, :-1] != 0
    expected = (dh.T @ x.data)[: D - 1]
    np.testing.assert_allclose(feed_forward.gate.grad[: D - 1], expected, rtol=1e-10, atol=1e-12)


def by_hand(gate, **options):
    """A layer of two neurons, of which one speaks: token t is the unit vector t, neuron m writes channel m."""
    feed_forward = nn.SparseFeedForward(2, 2, active=0.5, generator=Generator(0), **options)
    feed_forward.gate.data[...], feed_forward.up.data[...], feed_forward.down.data[...] = gate, 1, np.eye(2)
    silu = np.array(gate) / (1 + np.exp(-np.array(gate)))
    return feed_forward, mt.tensor(np.eye(2, dtype=np.float32)), silu.T


def test_swiglu_chooses_by_magnitude():
    """silu(-1.28) = -0.28 speaks louder than silu(0.3) = 0.17."""
    feed_forward, x, silu = by_hand([[-1.28, 0.1], [0.3, 0.9]])
    expected = silu * [[1, 0], [0, 1]]
    np.testing.assert_allclose(feed_forward(x).data, expected, rtol=1e-6)
    with mt.no_grad():
        np.testing.assert_allclose(feed_forward(x).data, expected, rtol=1e-6)


def test_a_shared_choice_counts_scores_of_both_signs():
    """0.31 and -0.28 are more than 0.17 twice, though their sum is less."""
    feed_forward, x, silu = by_hand([[0.5, -1.28], [0.3, 0.3]], shared=True)
    with mt.no_grad():
        np.testing.assert_allclose(feed_forward(x).data, silu * [1, 0], rtol=1e-6)


def test_a_shared_choice_is_not_for_training():
    feed_forward = layer("plain", shared=True)
    with pytest.raises(RuntimeError, match=r"shared lets tokens see later ones.*no_grad\(\)"):
        feed_forward(stream(grad=False))
    feed_forward.requires_grad_(False)
    assert feed_forward(stream(grad=False)).shape == (TOKENS, D)


@pytest.mark.parametrize("form", FORMS)
def test_every_matrix_learns_where_the_others_are_frozen(form):
    for name in ("gate", "up", "down")[:: 1 if form == "swiglu" else 2]:
        feed_forward = layer(form).requires_grad_(False)
        learning = getattr(feed_forward, name).requires_grad_(True)
        feed_forward(stream(grad=False)).backward(np.ones((TOKENS, D)))
        assert np.abs(learning.grad).max() > 0


@pytest.mark.parametrize(("active", "k"), [(0.15, 12), (0.145, 12), (0.13, 10), (0.001, 1), (1, 80)])
def test_how_many_neurons_a_fraction_is(active, k):
    """Rounded: 11.6 are 12."""
    assert layer("plain", active=active).k == k
    assert (mt.topk_activation(mt.tensor(np.arange(1.0, 81)), fraction=active).data > 0).sum() == k


def test_a_fitted_predictor_is_loaded_into_a_fresh_layer():
    fitted, x = layer("swiglu", rank=6), stream(grad=False)
    fresh = nn.SparseFeedForward(D, HIDDEN, rank=6, generator=Generator(9)).to("float64")
    with mt.no_grad():
        before = fresh(x).data
        fresh.load_state_dict(fitted.state_dict())
        assert np.array_equal(fresh(x).data, fitted(x).data) and not np.array_equal(before, fitted(x).data)


def test_without_inputs_a_predictor_of_full_rank_is_the_gate():
    exact, guessing = (nn.SparseFeedForward(D, HIDDEN, rank=rank, generator=Generator(0)) for rank in (None, D))
    x = stream(grad=False).to("float32")
    with mt.no_grad():
        np.testing.assert_allclose(guessing(x).data, exact(x).data, rtol=0, atol=1e-5)


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
        ({"active": np.nan}, r"fraction must lie in \(0, 1\]"),
        ({"active": 1.5}, r"fraction must lie in \(0, 1\]"),
        ({"form": "gelu"}, "form must be one of plain, relu2, swiglu"),
        ({"form": ["plain"]}, "form must be one of plain, relu2, swiglu"),
        ({"rank": 25}, r"rank must lie in 1\.\.24, got 25"),
        ({"backward": "none"}, 'backward must be "mask" or "straight_through"'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.SparseFeedForward(D, generator=Generator(0), **options)


def test_active_is_a_number():
    with pytest.raises(TypeError, match=r"fraction must be a number in \(0, 1\], got '15%'"):
        layer("plain", active="15%")


@pytest.mark.parametrize(
    ("x", "rank", "message"),
    [
        (np.ones((4, D)), 25, r"rank must lie in 1\.\.24, got 25"),
        (np.ones((4, D)), 2.5, r"rank must be a positive integer, got 2\.5"),
        (np.ones((4, D)), 0, "rank must be a positive integer, got 0"),
        (np.ones((4, 2 * D)), 2, r"x must be \(\.\.\., 24\), got shape \(4, 48\)"),
        (np.ones((0, D)), 2, r"hold at least one token, got shape \(0, 24\)"),
        (np.full((4, D), np.nan), 2, "x must be finite"),
    ],
)
def test_what_no_predictor_is_fitted_to(x, rank, message):
    feed_forward = layer("plain")
    with pytest.raises(ValueError, match=message):
        feed_forward.fit_predictor(x, rank)
    assert feed_forward.predictor is None


def test_a_wrong_width_is_refused():
    for x in (np.ones((3, 2 * D)), np.ones((D, 3)), np.float64(1)):
        with pytest.raises(ValueError, match=r"x must be \(\.\.\., 24\), got shape"):
            layer("plain")(mt.tensor(x, dtype="float64"))
