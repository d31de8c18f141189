"""Lesson 08: a softmax with a temperature, the two filters, and a sampler that only takes a largest element."""

import numpy as np

from ...random import Generator
from . import Wrong, arrays, check, equal, frozen, shown

PAPER = frozen(np.log([8.0, 4.0, 2.0, 2.0]))  # at temperature 1: 1/2, 1/4, 1/8, 1/8


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ---------------------------------------------------------------- 08.1 temperature_softmax


def _tempered(temperature_softmax, x, temperature, right, **options):
    inputs = {"logits": x, "temperature": temperature}
    equal("p", temperature_softmax(x, temperature), right, inputs, terms=x.shape[-1], **options)


@check("08.1", "four tokens, on paper: temperatures 1, 1/2 and 2")
def _(temperature_softmax):
    p = np.array([8.0, 4.0, 2.0, 2.0])
    for temperature, power in ((1.0, p), (0.5, p**2), (2.0, np.sqrt(p))):
        _tempered(temperature_softmax, PAPER, temperature, power / power.sum())


@check("08.1", "temperature 0: all on the largest, the first among equals, in each row")
def _(temperature_softmax):
    x = frozen(np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 0.0, 0.0, 5.0], [-1.0, -2.0, -3.0, 0.0]]))
    _tempered(temperature_softmax, x, 0.0, np.eye(4)[[1, 0, 3]], exact=True)


@check("08.1", "one row, a batch, two batch axes; float32 stays float32")
def _(temperature_softmax):
    for seed, shape in enumerate(((7,), (3, 5), (2, 3, 11), (4, 1))):
        for temperature in (0.3, 1.0, 1.7):
            (x,) = arrays(seed, shape)
            _tempered(temperature_softmax, x, temperature, _softmax(x / temperature), condition=10)
    for temperature in (0.0, 0.5):
        x = frozen(np.array([0.0, 1.0], np.float32))
        right = _softmax(np.array([0.0, 2.0])) if temperature else np.array([0.0, 1.0])
        _tempered(temperature_softmax, x, temperature, right.astype(np.float32))


@check("08.1", "large logits and small temperatures do not overflow")
def _(temperature_softmax):
    _tempered(temperature_softmax, frozen(np.array([1e4, 1e4, 0.0])), 1.0, np.array([0.5, 0.5, 0.0]))
    _tempered(temperature_softmax, frozen(np.array([2.0, 1.0, 0.0])), 1e-3, np.array([1.0, 0.0, 0.0]))


# ---------------------------------------------------------------- 08.2 top_k_filter, 08.3 top_p_filter


def _kept(p, count):
    """What a filter leaves of one row: its `count` largest, the lower index first among equals, with sum 1."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    right = np.zeros_like(p)
    right[order[:count]] = p[order[:count]]
    return right / right.sum()


def _by_rows(p, count):
    """count: row (V,) -> how many stay."""
    rows = p.reshape(-1, p.shape[-1])
    return np.stack([_kept(row, count(row)) for row in rows]).reshape(p.shape)


def _top_k(top_k_filter, p, k):
    equal("p", top_k_filter(p, k), _by_rows(p, lambda row: k), {"p": p, "k": k}, terms=p.shape[-1])


@check("08.2", "four tokens, on paper")
def _(top_k_filter):
    p = frozen(np.array([0.125, 0.5, 0.25, 0.125]))
    for k in (1, 2, 4):
        _top_k(top_k_filter, p, k)


@check("08.2", "ties: exactly k stay, those with the lower index")
def _(top_k_filter):
    _top_k(top_k_filter, frozen(np.array([0.125, 0.5, 0.25, 0.125])), 3)
    _top_k(top_k_filter, frozen(np.full(8, 0.125)), 3)
    _top_k(top_k_filter, frozen(np.full(1000, 0.001)), 30)  # an unstable sort would mix these up


@check("08.2", "a k of the vocabulary, or more, changes nothing")
def _(top_k_filter):
    p = frozen(np.array([0.25, 0.25, 0.5]))
    for k in (3, 4, 1000):
        equal("p", top_k_filter(p, k), np.array(p), {"p": p, "k": k})


@check("08.2", "rows of a batch, and two batch axes")
def _(top_k_filter):
    for seed, shape in enumerate(((3, 6), (2, 3, 9), (1, 2))):
        p = frozen(_softmax(2 * arrays(seed, shape)[0]))
        for k in (1, 2, 5):
            _top_k(top_k_filter, p, k)


def _nucleus_size(row, top_p):
    """The smallest number of largest probabilities whose sum reaches top_p, by counting up."""
    mass = 0.0
    for count, value in enumerate(sorted(row, reverse=True), 1):
        mass += value
        if mass >= top_p:
            return count
    return len(row)


def _top_p(top_p_filter, p, top_p):
    right = _by_rows(p, lambda row: _nucleus_size(row, top_p))
    equal("p", top_p_filter(p, top_p), right, {"p": p, "top_p": top_p}, terms=p.shape[-1])


@check("08.3", "four tokens, on paper: the one that crosses the line stays")
def _(top_p_filter):
    p = frozen(np.array([0.125, 0.5, 0.25, 0.125]))
    for top_p in (0.8, 0.6, 0.9):
        _top_p(top_p_filter, p, top_p)


@check("08.3", "exactly reached is reached; at least one token always stays; 1 keeps all")
def _(top_p_filter):
    p = frozen(np.array([0.125, 0.5, 0.25, 0.125]))
    for top_p in (0.75, 0.5, 0.01, 1.0):
        _top_p(top_p_filter, p, top_p)


@check("08.3", "equal probabilities: the lower index stays")
def _(top_p_filter):
    _top_p(top_p_filter, frozen(np.full(1024, 2.0**-10)), 0.5)


@check("08.3", "rows of a batch have nuclei of their own sizes")
def _(top_p_filter):
    p = frozen(np.array([[0.875, 0.0625, 0.0625, 0.0], [0.25, 0.25, 0.25, 0.25]]))
    _top_p(top_p_filter, p, 0.7)
    for seed, shape in enumerate(((5, 7), (2, 3, 12))):
        for top_p in (0.3, 0.62, 0.93):
            _top_p(top_p_filter, frozen(_softmax(2 * arrays(seed, shape)[0])), top_p)


# ---------------------------------------------------------------- 08.4 gumbel_sample


def _drawn(gumbel_sample, x, temperature, seed=0):
    tokens = gumbel_sample(x, temperature, Generator(seed))
    if isinstance(tokens, np.generic):
        tokens = np.asarray(tokens)
    if not isinstance(tokens, np.ndarray) or tokens.shape != x.shape[:-1] or tokens.dtype.kind not in "iu":
        what = f"{tokens.dtype} {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens).__name__
        raise Wrong(f"tokens must be integers of shape {x.shape[:-1]} for logits {x.shape}, got {what}")
    return tokens


@check("08.4", "one token a row: shapes, and ids in 0..V-1")
def _(gumbel_sample):
    for seed, shape in enumerate(((4,), (3, 5), (2, 3, 1))):
        tokens = _drawn(gumbel_sample, arrays(seed, shape)[0], 1.0)
        if tokens.min() < 0 or tokens.max() >= shape[-1]:
            raise Wrong(f"tokens must lie in 0..{shape[-1] - 1}, got {shown(tokens)}")


@check("08.4", "a token of probability 0 never comes, a certain one always")
def _(gumbel_sample):
    x = frozen(np.tile([-np.inf, 0.0, -np.inf, 0.0], (500, 1)))
    tokens = _drawn(gumbel_sample, x, 1.0)
    if not np.isin(tokens, (1, 3)).all():
        raise Wrong(f"logits {shown(x[0])}: only 1 and 3 can come, got {sorted(set(tokens.tolist()))}")
    certain = frozen(np.tile([0.0, 100.0, 0.0], (500, 1)))
    if (_drawn(gumbel_sample, certain, 1.0) != 1).any():
        raise Wrong(f"logits {shown(certain[0])}: token 1 has all the probability but e^-100, and others came")


@check("08.4", "20,000 draws at three temperatures come as often as the softmax says")
def _(gumbel_sample):
    n = 20_000
    for temperature in (1.0, 0.5, 3.0):
        counts = np.bincount(_drawn(gumbel_sample, frozen(np.tile(PAPER, (n, 1))), temperature), minlength=4)
        expected = n * _softmax(PAPER / temperature)
        # χ² of 3 degrees of freedom: above 30 once in 700,000 right answers, and the seed is fixed
        if ((counts - expected) ** 2 / expected).sum() > 30:
            raise Wrong(
                f"{n:,} draws, logits {shown(PAPER)}, temperature {temperature}:\n"
                f"expected about {shown(np.round(expected))}\ngot            {shown(counts)}"
            )


@check("08.4", "all randomness comes from the generator, and goes on from draw to draw")
def _(gumbel_sample):
    x = frozen(np.zeros((200, 8)))
    generator = Generator(5)
    first, second = gumbel_sample(x, 1.0, generator), gumbel_sample(x, 1.0, generator)
    equal("tokens with the same seed", _drawn(gumbel_sample, x, 1.0, seed=5), np.asarray(first), exact=True)
    if (np.asarray(first) == np.asarray(second)).all() or (_drawn(gumbel_sample, x, 1.0, seed=6) == first).all():
        raise Wrong("another call, and another seed, must give other tokens")
