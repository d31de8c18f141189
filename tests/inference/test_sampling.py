import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import Generator
from minitransformer.inference import probabilities, sample

LOGITS = Generator(0).normal((4, 50), std=2.0, dtype=np.float64)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_temperature_divides_the_logits(temperature):
    np.testing.assert_allclose(probabilities(LOGITS, temperature), softmax(LOGITS / temperature), rtol=1e-12)


def test_greedy_takes_the_largest_and_the_first_among_equals():
    p = probabilities(np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 0.0, 0.0, 5.0]]), temperature=0)
    assert p.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_allclose(probabilities(LOGITS, 1e-4), probabilities(LOGITS, 0.0), atol=1e-12)  # and is the limit


@pytest.mark.parametrize("k", [1, 3, 50, 1000])
def test_top_k_keeps_k_and_their_proportions(k):
    p = probabilities(LOGITS, top_k=k)
    whole = softmax(LOGITS)
    assert ((p > 0).sum(-1) == min(k, 50)).all()
    for row, full in zip(p, whole):
        kept = row > 0
        assert full[kept].min() >= full[~kept].max(initial=0)
        np.testing.assert_allclose(row[kept], full[kept] / full[kept].sum(), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=12),
    st.floats(0.01, 1.0),
    st.one_of(st.none(), st.integers(1, 12)),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_top_p_is_the_smallest_set(logits, top_p, top_k, temperature):
    """Of what top_k left: the set reaches top_p, and without its least probable member it would not."""
    before = probabilities(logits, temperature, top_k)
    p = probabilities(logits, temperature, top_k, top_p)
    kept = p > 0
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert before[kept].sum() >= top_p - 1e-9
    assert kept.sum() == 1 or before[kept].sum() - before[kept].min() < top_p + 1e-9
    assert before[kept].min() >= before[~kept].max(initial=0.0) - 1e-15
    np.testing.assert_allclose(p[kept], before[kept] / before[kept].sum(), rtol=1e-9)


def test_ties_fall_to_the_lower_index():
    """Long enough that an unstable sort would mix them up."""
    equal = np.zeros(1000)
    assert np.flatnonzero(probabilities(equal, top_k=30)).tolist() == list(range(30))
    assert np.flatnonzero(probabilities(np.zeros(1024), top_p=0.5)).tolist() == list(range(512))
    steps = Generator(0).integers(0, 3, 1000).astype(np.float64)
    first = np.flatnonzero(steps == 2)[:10].tolist()
    assert np.flatnonzero(probabilities(steps, top_k=10)).tolist() == first


def test_extreme_logits():
    assert probabilities(np.array([-np.inf, 0.0, -np.inf])).tolist() == [0, 1, 0]
    assert probabilities(np.array([1e30, 0.0, -1e30])).tolist() == [1, 0, 0]
    assert probabilities(np.array([1.0, 0.0]), temperature=1e-300).tolist() == [1, 0]
    p = probabilities(mt.tensor(LOGITS).to("bfloat16"))
    assert p.dtype == np.float64 and p.sum(-1) == pytest.approx(1)


def test_draws_follow_the_distribution():
    """χ² of 20,000 draws: of 5 degrees of freedom, 30 is far beyond chance (p = 1.5e-5)."""
    p, n = np.array([0.4, 0.0, 0.3, 0.2, 0.05, 0.04, 0.01]), 20_000
    tokens = sample(np.broadcast_to(p, (n, 7)), Generator(0))
    counts = np.bincount(tokens, minlength=7)
    assert tokens.shape == (n,) and tokens.dtype == np.int64
    assert counts[1] == 0
    expected = n * p[p > 0]
    assert ((counts[p > 0] - expected) ** 2 / expected).sum() < 30


def test_the_seed_decides():
    p = np.broadcast_to(softmax(LOGITS)[0], (30, 50))
    assert np.array_equal(sample(p, Generator(7)), sample(p, Generator(7)))
    assert not np.array_equal(sample(p, Generator(7)), sample(p, Generator(8)))


class Fixed:
    """A generator that draws what it is told."""

    def __init__(self, u):
        self.u = u

    def uniform(self, shape, dtype):
        return np.full(shape, self.u, dtype)


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (0.2499, 1), (0.25, 3), (1 - 2**-32, 3)])
def test_the_ends_of_the_interval(u, token):
    """Token 0 has probability 0 and is not drawn even at u = 0, nor the last one at the largest u."""
    assert sample(np.array([0.0, 0.25, 0.0, 0.75, 0.0]), Fixed(u)) == token


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        ([1.0, 2.0], {"temperature": -0.1}, "temperature must be a number of at least 0, got -0.1"),
        ([1.0, 2.0], {"temperature": float("nan")}, "temperature"),
        ([1.0, 2.0], {"top_k": 0}, "top_k must be an integer of at least 1, got 0"),
        ([1.0, 2.0], {"top_k": 1.5}, "top_k must be an integer"),
        ([1.0, 2.0], {"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ([1.0, 2.0], {"top_p": 1.1}, "got 1.1"),
        ([1.0, np.nan], {}, "NaN or infinity"),
        ([1.0, np.inf], {}, "NaN or infinity"),
        ([-np.inf, -np.inf], {"temperature": 0.0}, "NaN or infinity"),
        ([], {}, r"must be \(..., V\) with V > 0, got shape \(0,\)"),
    ],
)
def test_bad_options_and_logits(logits, options, message):
    with pytest.raises(ValueError, match=message):
        probabilities(np.array(logits), **options)
