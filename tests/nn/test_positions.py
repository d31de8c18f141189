import numpy as np
import pytest

from minitransformer import Generator, nn, tensor
from minitransformer.nn import PagedCache, RotaryEmbedding


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_the_distance_only(interleaved):
    """(R_m q)·(R_n k) is the same for every m and n = m + distance."""
    rotary = RotaryEmbedding(8, base=100.0, interleaved=interleaved)
    q, k = Generator(0).normal((2, 1, 1, 1, 8), dtype=np.float64)
    for distance in (0, 1, 7):
        scores = [
            float((rotary(tensor(q), m).data * rotary(tensor(k), m + distance).data).sum()) for m in (0, 1, 30, 1000)
        ]
        np.testing.assert_allclose(scores, scores[0], rtol=1e-10)
    lengths = [np.linalg.norm(rotary(tensor(q), m).data) for m in (0, 5)]
    np.testing.assert_allclose(lengths, np.linalg.norm(q), rtol=1e-14)


def test_by_hand():
    """d = 4, base 100: at position 3 the first pair turns by 3, the second by 3/10."""
    x = tensor(np.array([1.0, 2.0, 3.0, 4.0], np.float64).reshape(1, 1, 1, 4), dtype="float64")
    c, s, c2, s2 = np.cos(3), np.sin(3), np.cos(0.3), np.sin(0.3)
    half = [c - 3 * s, 2 * c2 - 4 * s2, 3 * c + s, 4 * c2 + 2 * s2]
    neighbours = [c - 2 * s, 2 * c + s, 3 * c2 - 4 * s2, 4 * c2 + 3 * s2]
    np.testing.assert_allclose(RotaryEmbedding(4, 100.0)(x, 3).data.ravel(), half, rtol=1e-14)
    np.testing.assert_allclose(RotaryEmbedding(4, 100.0, True)(x, 3).data.ravel(), neighbours, rtol=1e-14)


def test_a_start_for_each_row():
    rotary, x = RotaryEmbedding(6), Generator(1).normal((3, 2, 4, 6))
    rows = [rotary(tensor(x[i : i + 1]), start).data for i, start in enumerate((5, 0, 17))]
    np.testing.assert_array_equal(rotary(tensor(x), np.array([5, 0, 17])).data, np.concatenate(rows))


def test_a_paged_cache_knows_the_positions():
    """Sequences of different lengths, decoded together, get what each gets from a cache of its own."""
    generator = Generator(2)
    layer = nn.MultiHeadAttention(16, 2, rotary=RotaryEmbedding(8, 10.0), generator=generator)
    x = generator.normal((2, 6, 16))
    pages = PagedCache(1, pages=8, page_size=4, heads=2, head_width=8)
    with layer.evaluating():
        a, b = pages.start(), pages.start()
        layer(tensor(x[:1, :5]), pages.extend([a], tokens=5).layers[0])
        layer(tensor(x[1:, :2]), pages.extend([b], tokens=2).layers[0])
        together = layer(tensor(np.stack([x[0, 5:6], x[1, 2:3]])), pages.extend([a, b], tokens=1).layers[0]).numpy()
        alone = [layer(tensor(x[:1])).numpy()[0, 5], layer(tensor(x[1:, :3])).numpy()[0, 2]]
    np.testing.assert_allclose(together[:, 0], alone, rtol=1e-5, atol=1e-6)


def test_wrong_sizes():
    with pytest.raises(ValueError, match="width must be even"):
        RotaryEmbedding(5)
    with pytest.raises(ValueError, match="base positive"):
        RotaryEmbedding(4, base=0.0)
    with pytest.raises(ValueError, match="takes cos and sin"):
        RotaryEmbedding(4)(tensor(np.zeros((1, 1, 2, 6), np.float32)))
