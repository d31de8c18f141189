"""Statistics of heads against closed forms: patterns whose entropy, distance and scores are known on paper."""

import numpy as np
import pytest

from minitransformer.visualization import head_statistics as hs

T = 9
IDENTITY = np.eye(T)
UNIFORM = np.full((T, T), 1 / T)
CAUSAL = np.tri(T) / np.arange(1, T + 1)[:, None]
PREVIOUS = np.eye(T, k=-1)
PREVIOUS[0, 0] = 1
SINK = np.zeros((T, T))
SINK[:, 0] = 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (
            IDENTITY,
            {
                "entropy": 0,
                "effective keys": 1,
                "strongest weight": 1,
                "mean distance": 0,
                "first token": 0,
                "diagonal": 1,
                "previous token": 0,
            },
        ),
        (
            UNIFORM,
            {
                "entropy": 1,
                "effective keys": T,
                "strongest weight": 1 / T,
                "mean distance": (T * T - 1) / (3 * T),  # E|i - j| of two uniform positions
                "first token": 1 / T,
                "diagonal": 1 / T,
                "previous token": 1 / T,
            },
        ),
        (
            CAUSAL,
            {
                "entropy": 1,  # uniform over what is visible
                "effective keys": (T + 1) / 2,
                "strongest weight": np.mean(1 / np.arange(2, T + 1)),  # the first row, always 1, is left out
                "mean distance": (T - 1) / 4,  # query i: i/2 on average
                "first token": np.mean(1 / np.arange(2, T + 1)),
                "diagonal": np.mean(1 / np.arange(2, T + 1)),
                "previous token": np.mean(1 / np.arange(2, T + 1)),
            },
        ),
        (
            PREVIOUS,
            {
                "entropy": 0,
                "strongest weight": 1,
                "mean distance": (T - 1) / T,
                "first token": 1 / (T - 1),
                "diagonal": 0,
                "previous token": 1,
            },
        ),
        (SINK, {"entropy": 0, "effective keys": 1, "mean distance": (T - 1) / 2, "first token": 1, "diagonal": 0}),
    ],
    ids=["identity", "uniform", "causal", "previous", "sink"],
)
def test_closed_forms(pattern, expected):
    found = hs.statistics(pattern)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_one_value_per_head_and_any_float_dtype():
    stacked = np.stack([np.stack([IDENTITY, UNIFORM]), np.stack([SINK, PREVIOUS])]).astype(np.float32)
    found = hs.statistics(stacked, token_ids=np.arange(T))
    assert all(values.shape == (2, 2) for values in found.values())
    assert np.allclose(found["diagonal"], [[1, 1 / T], [0, 0]])
    assert np.isnan(found["induction"]).all()  # no token repeats: not defined anywhere


def test_entropy_counts_visible_keys_only():
    band = np.tri(T) - np.tri(T, k=-3)  # the last three positions
    uniform = band / band.sum(axis=1, keepdims=True)
    assert hs.entropy(uniform, visible=band.astype(bool)) == pytest.approx(1)
    assert hs.entropy(uniform) < 1
    assert hs.strongest_weight(uniform) == pytest.approx((1 / 2 + (T - 2) / 3) / (T - 1))
    assert np.isnan(hs.entropy(np.ones((1, 1)))) and np.isnan(hs.strongest_weight(np.ones((1, 1))))


def test_induction_finds_the_token_after_the_earlier_occurrence():
    tokens = np.array([5, 6, 7, 8, 5, 6, 7])  # A B C D A B C: query 4 should look at 1, 5 at 2, 6 at 3
    head = np.eye(7)
    head[[4, 5, 6]] = 0
    head[[4, 5, 6], [1, 2, 3]] = 1
    assert hs.induction(head, tokens) == 1
    assert hs.induction(np.eye(7), tokens) == 0
    assert hs.induction(np.tri(7) / np.arange(1, 8)[:, None], tokens) == pytest.approx(np.mean([1 / 5, 1 / 6, 1 / 7]))
    assert np.isnan(hs.induction(np.eye(2), [5, 5]))  # what followed is the query itself: not counted
    with pytest.raises(ValueError, match="key axis has length 7"):
        hs.induction(head, tokens[:-1])


def test_queries_of_a_cached_decode_stand_at_the_end():
    full = hs.statistics(CAUSAL[-3:] * 1.0)
    assert full["previous token"] == pytest.approx(np.mean(1 / np.arange(T - 2, T + 1)))
    assert full["mean distance"] == pytest.approx(np.mean(np.arange(T - 3, T) / 2))


def test_jensen_shannon_bounds_and_symmetry():
    random = np.random.default_rng(0).dirichlet(np.ones(T), size=(2, T))
    assert np.array_equal(hs.jensen_shannon(IDENTITY, IDENTITY), np.zeros(T))
    assert np.allclose(hs.jensen_shannon(IDENTITY, np.roll(IDENTITY, 1, axis=1)), 1)
    assert np.allclose(hs.jensen_shannon(*random), hs.jensen_shannon(*random[::-1]))
    assert np.all(hs.jensen_shannon(*random) > 0)
    half = hs.jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))  # H(3/4, 1/4) - 1/2
    assert half == pytest.approx(-0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5)
    with pytest.raises(ValueError, match="one shape"):
        hs.jensen_shannon(IDENTITY, IDENTITY[:2])


def test_rollout_closed_forms():
    assert np.allclose(hs.rollout(np.broadcast_to(IDENTITY, (3, 2, T, T))), IDENTITY)
    # Uniform: Â = I/2 + J/2 with J = 1/T everywhere; Âⁿ = 2⁻ⁿ I + (1 - 2⁻ⁿ) J because J² = J.
    flow = hs.rollout(np.broadcast_to(UNIFORM, (4, 3, T, T)))
    for layer in range(4):
        keep = 0.5 ** (layer + 1)
        assert np.allclose(flow[layer], keep * IDENTITY + (1 - keep) * UNIFORM)
    # Previous-token heads move along the sequence one step a layer: binomial weights.
    flow = hs.rollout(np.broadcast_to(PREVIOUS, (2, 1, T, T)))
    assert flow[-1][5, 3:6] == pytest.approx([0.25, 0.5, 0.25])
    random = np.random.default_rng(1).dirichlet(np.ones(T), size=(3, 2, T))
    assert np.allclose(hs.rollout(random).sum(axis=-1), 1)
    with pytest.raises(ValueError, match=r"\(layer, head, T, T\)"):
        hs.rollout(random[..., :-1])


def test_relevance_closed_forms():
    previous = np.broadcast_to(PREVIOUS, (3, 2, T, T))
    # One path a layer, gradient 1: R = (I + P)³, binomial along the sequence; the cell (0, 0) doubles every layer.
    flow = hs.relevance(previous, np.ones_like(previous))
    assert flow[-1][6, 3:7] == pytest.approx([1, 3, 3, 1])
    assert flow[-1][0, 0] == 8
    assert np.array_equal(hs.relevance(previous, -np.ones_like(previous))[-1], IDENTITY)  # nothing speaks for it
    one_head = np.ones_like(previous) * np.array([1.0, 0.0])[:, None, None]
    assert hs.relevance(previous, one_head)[0][4, 3] == 0.5  # the mean over heads
    with pytest.raises(ValueError, match="one shape"):
        hs.relevance(previous, one_head[:1])


def test_value_weighted_norms():
    random = np.random.default_rng(2)
    attention, values = random.dirichlet(np.ones(5), size=(2, 4)), random.normal(size=(2, 5, 3))
    found = hs.value_weighted(attention, values)
    assert found[1, 2, 3] == pytest.approx(np.linalg.norm(attention[1, 2, 3] * values[1, 3]))
    rotation = np.linalg.qr(random.normal(size=(2, 3, 3)))[0]
    assert np.allclose(hs.value_weighted(attention, values, rotation), found)  # a rotation keeps lengths
    projected = hs.value_weighted(attention, values, np.ones((2, 3, 1)))
    assert projected[0, 0, 0] == pytest.approx(abs(attention[0, 0, 0] * values[0, 0].sum()))
    with pytest.raises(ValueError, match=r"values must have shape \(\.\.\., key, d\)"):
        hs.value_weighted(attention, values[:, :-1])
