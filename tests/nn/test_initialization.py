import numpy as np
import pytest

from minitransformer import Generator, nn
from minitransformer.nn.initialization import normal, ones, xavier_normal, xavier_uniform, zeros

SHAPE = (300, 500)
N = 300 * 500


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_xavier_uniform_fills_its_interval(gain):
    w = xavier_uniform(SHAPE, Generator(0), gain)
    bound = gain * np.sqrt(6 / 800)
    assert w.dtype == np.float32 and np.abs(w).max() <= bound
    assert w.max() > 0.999 * bound and w.min() < -0.999 * bound
    # Of a uniform distribution x²/a² has mean 1/3 and variance 4/45; six standard errors.
    assert abs((w / bound).mean()) < 6 * np.sqrt(1 / 3 / N)
    assert abs(((w / bound) ** 2).mean() - 1 / 3) < 6 * np.sqrt(4 / 45 / N)


@pytest.mark.parametrize(
    ("w", "std"),
    [
        (xavier_normal(SHAPE, Generator(0)), np.sqrt(2 / 800)),
        (xavier_normal(SHAPE, Generator(0), gain=3.0), 3 * np.sqrt(2 / 800)),
        (normal(SHAPE, Generator(0)), 0.02),
    ],
)
def test_normal_distributions(w, std):
    z = w / std
    assert w.dtype == np.float32
    assert abs(z.mean()) < 6 / np.sqrt(N)
    assert abs((z**2).mean() - 1) < 6 * np.sqrt(2 / N)
    assert abs((np.abs(z) < 1).mean() - 0.6827) < 6 * 0.47 / np.sqrt(N)


def test_xavier_keeps_the_size_of_signals_and_gradients():
    """For a square matrix both directions keep the variance: the compromise is exact there."""
    g = Generator(1)
    w, x = xavier_uniform((400, 400), g), g.normal((400, 200))
    assert (w @ x).var() == pytest.approx(1, rel=0.05)
    assert (w.T @ x).var() == pytest.approx(1, rel=0.05)


def test_the_generator_decides():
    assert np.array_equal(xavier_uniform((3, 4), Generator(5)), xavier_uniform((3, 4), Generator(5)))
    g = Generator(5)
    assert not np.array_equal(xavier_uniform((3, 4), g), xavier_uniform((3, 4), g))
    assert not zeros(3).any() and (ones(3) == 1).all()


def test_only_matrices_have_two_fans():
    for init in (xavier_uniform, xavier_normal):
        with pytest.raises(ValueError, match=r"matrices \(fan_out, fan_in\), got shape \(3,\)"):
            init((3,), Generator(0))


def test_q_k_and_v_start_as_three_maps():
    """Xavier's bound is that of a (D, D) matrix, not of the (3D, D) one that they share."""
    attention = nn.MultiHeadAttention(64, 4, generator=Generator(0))
    bound = np.sqrt(6 / 128)
    for part in np.split(attention.qkv.weight.data, 3):
        assert 0.99 * bound < np.abs(part).max() <= bound
