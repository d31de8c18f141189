import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, nn


def entry(length, seed=0, batch=2, dtype=np.float32):
    g, shape = Generator(seed), (batch, 3, length, 4)
    return mt.tensor(g.normal(shape, dtype=dtype)), mt.tensor(g.normal(shape, dtype=dtype))


def test_what_goes_in_comes_out_in_order():
    cache = nn.LayerCache(2, 3, 8, 4)
    pieces = [entry(n, seed=n) for n in (3, 1, 4)]
    for i, (k, v) in enumerate(pieces):
        keys, values = cache.append(k, v)
        for found, place in ((keys, 0), (values, 1)):
            expected = np.concatenate([piece[place].numpy() for piece in pieces[: i + 1]], axis=2)
            assert np.array_equal(found.numpy(), expected)
    assert cache.length == cache.capacity == 8
    assert np.shares_memory(keys.numpy(), cache.keys)  # a view, not a copy
    with pytest.raises(ValueError, match="8 of 8 positions are filled, 1 more do not fit"):
        cache.append(*entry(1))


def test_truncated_it_takes_other_tokens():
    cache = nn.KVCache(2, 2, 3, 5, 4)
    for layer in cache.layers:
        layer.append(*entry(5))
    cache.truncate(2)
    assert cache.length == 2 and cache.capacity == 5
    keys, _ = cache.layers[1].append(*entry(1, seed=7))
    assert np.array_equal(keys.numpy()[:, :, :2], entry(5)[0].numpy()[:, :, :2])
    assert np.array_equal(keys.numpy()[:, :, 2:], entry(1, seed=7)[0].numpy())
    cache.truncate()
    assert cache.length == 0
    with pytest.raises(ValueError, match="holds 0 tokens, cannot keep 1"):
        cache.truncate(1)


def test_its_memory():
    assert nn.KVCache(layers=2, batch=3, heads=4, capacity=5, head_width=6).nbytes == 2 * 2 * 3 * 4 * 5 * 6 * 4


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        (entry(1, batch=1), ValueError, r"made for shapes \(2, 3, T, 4\), got \(1, 3, 1, 4\)"),
        ((entry(1)[0], entry(2)[1]), ValueError, "made for shapes"),
        (entry(1, dtype=np.float64), TypeError, "made for float32, got float64 and float64"),
        ((entry(1)[0], entry(1, dtype=np.float64)[1]), TypeError, "made for float32, got float32 and float64"),
        ((entry(1)[0].requires_grad_(), entry(1)[1]), RuntimeError, r"no gradient flows through it.*no_grad\(\)"),
    ],
)
def test_what_does_not_fit_changes_nothing(pair, error, message):
    cache = nn.LayerCache(2, 3, 8, 4)
    with pytest.raises(error, match=message):
        cache.append(*pair)
    assert cache.length == 0
