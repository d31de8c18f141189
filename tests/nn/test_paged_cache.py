import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, nn

G, H, d = 2, 4, 8


def tokens(batch, count, seed):
    """q, k, v of `count` tokens."""
    g = Generator(seed)
    return [mt.tensor(g.normal((batch, heads, count, d), dtype=np.float64)) for heads in (H, G, G)]


def paged(pages=10, page_size=4, layers=1):
    return nn.PagedCache(layers, pages, page_size, G, d, "float64")


class Text:
    """A sequence and, beside it, all its keys and values in one piece."""

    def __init__(self, cache, number, k=None, v=None):
        empty = np.zeros((1, G, 0, d))
        self.cache, self.number, self.k, self.v = cache, number, empty if k is None else k, empty if v is None else v

    def fork(self):
        return Text(self.cache, self.cache.fork(self.number), self.k, self.v)


def extend(texts, count, seed):
    """Add tokens to several texts at once; what the cache attends to must be what each text holds."""
    cache = texts[0].cache
    q, k, v = tokens(len(texts), count, seed)
    batch = cache.extend([text.number for text in texts], count)
    for layer in batch.layers:
        found = layer.attend(q, k, v).numpy()
    for b, text in enumerate(texts):
        text.k = np.concatenate([text.k, k.numpy()[b : b + 1]], 2)
        text.v = np.concatenate([text.v, v.numpy()[b : b + 1]], 2)
        expected = mt.scaled_dot_product_attention(q[b : b + 1], mt.tensor(text.k), mt.tensor(text.v), is_causal=True)
        np.testing.assert_allclose(found[b : b + 1], expected.numpy(), rtol=1e-12, atol=1e-13)
    assert batch.lengths.tolist() == [text.k.shape[2] for text in texts]


def test_texts_of_different_lengths_share_a_pool():
    cache = paged(layers=2)
    a, b = (Text(cache, cache.start()) for _ in range(2))
    extend([a], 5, 0)
    extend([b], 1, 1)
    extend([a, b], 4, 2)
    extend([b, a], 1, 3)
    assert cache.free_pages == 10 - 3 - 2
    cache.free(a.number)
    assert cache.free_pages == 8
    extend([b], 20, 4)  # into pages that a had


@pytest.mark.parametrize("length", [3, 4, 6])
def test_a_fork_shares_pages_until_one_of_the_two_writes(length):
    cache = paged()
    a = Text(cache, cache.start())
    extend([a], length, 0)
    free, b = cache.free_pages, a.fork()
    assert cache.free_pages == free
    extend([b], 1, 1)
    assert cache.free_pages == free - 1  # a copy of the last page, or a new one behind full ones
    extend([a], 1, 2)  # does not disturb b
    extend([a, b], 3, 3)
    cache.free(a.number)
    extend([b], 1, 4)
    cache.free(b.number)
    assert cache.free_pages == 10


def test_a_full_pool_refuses_and_changes_nothing():
    cache = paged(pages=3)
    a = Text(cache, cache.start())
    extend([a], 6, 0)
    b = a.fork()
    before = [list(cache.sequences[text.number]) for text in (a, b)]
    with pytest.raises(RuntimeError, match="all 3 pages are in use"):
        cache.extend([b.number, a.number], 5)
    assert cache.free_pages == 1 and [cache.sequences[text.number] for text in (a, b)] == before
    extend([b], 2, 1)
    extend([a], 2, 2)


def test_misuse_is_explained():
    cache = paged()
    a = cache.start()
    with pytest.raises(KeyError, match="no sequence 7"):
        cache.extend([7], 1)
    with pytest.raises(ValueError, match="only once"):
        cache.extend([a, a], 1)
    with pytest.raises(ValueError, match="tokens must be a positive integer"):
        cache.extend([a], 0)
    layer = cache.extend([a], 2).layers[0]
    with pytest.raises(ValueError, match=r"expects keys and values \(1, 2, 2, 8\)"):
        layer.attend(*tokens(1, 3, 0))
    with pytest.raises(RuntimeError, match="no gradient flows"):
        q, k, v = tokens(1, 2, 0)
        layer.attend(q, k.requires_grad_(), v)
    with pytest.raises(TypeError, match="made for float64"):
        layer.attend(*[x.to("float32") for x in tokens(1, 2, 0)])
    q, k, v = tokens(1, 2, 0)
    with pytest.raises(TypeError, match="made for float64, got float64 and float32"):
        layer.attend(q, k, v.to("float32"))
    with pytest.raises(ValueError, match=r"expects queries \(B, H, 2, d\), got \(1, 4, 1, 8\)"):
        layer.attend(q[:, :, 1:], k, v)
    cache.free(a)
    with pytest.raises(KeyError, match="no sequence"):
        cache.free(a)


def test_places_that_were_freed_are_written_by_their_new_owner_only():
    cache = paged(pages=1)
    a = cache.start()
    stale = cache.extend([a], 3)
    cache.free(a)
    b = Text(cache, cache.start())
    extend([b], 3, 0)
    with pytest.raises(RuntimeError, match=r"of \[0\] one was freed, forked or extended since; extend anew"):
        stale.layers[0].attend(*tokens(1, 3, 1))
    extend([b], 1, 2)  # and attends to what it wrote itself


@pytest.mark.parametrize("then", ["fork", "extend"])
def test_a_written_batch_does_not_write_again_once_its_tokens_are_shared_or_behind(then):
    cache = paged()
    a = Text(cache, cache.start())
    old = cache.extend([a.number], 2)
    q, a.k, a.v = tokens(1, 2, 0)
    for _ in range(2):  # until then it may, say with the same values
        old.layers[0].attend(q, a.k, a.v)
    a.k, a.v = a.k.numpy(), a.v.numpy()
    b = a.fork() if then == "fork" else a
    extend([b], 1, 1)
    with pytest.raises(RuntimeError, match="freed, forked or extended since"):
        old.layers[0].attend(*tokens(1, 2, 2))
    extend([a], 1, 3)


def test_tokens_that_a_layer_has_yet_to_write_are_neither_shared_nor_followed():
    cache = paged(layers=2)
    a, b = cache.start(), cache.start()
    batch = cache.extend([a], 2)
    batch.layers[1].attend(*tokens(1, 2, 0))
    for step in (lambda: cache.fork(a), lambda: cache.extend([b, a], 1)):
        with pytest.raises(RuntimeError, match="sequence 0 still lacks tokens that a layer must write, by attend"):
            step()
    assert cache.lengths == {a: 2, b: 0}
    batch.layers[0].attend(*tokens(1, 2, 0))
    cache.extend([cache.fork(a), a], 1)
    cache.free(a)
