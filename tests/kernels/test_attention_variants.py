"""Attention's variants against the dense formula, and against each other where one is a case of another."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import kernels
from minitransformer.kernels import paging

from .cases.attention import every_head, paged
from .test_against_numpy import samples
from .tolerance import compare

SETS = ("numpy", "native")


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture(params=SETS)
def attention(request, implementations):
    return implementations(request.param)


def arrays(rng, B, H, G, Tq, Tk, d, dv=None, dtype=np.float64):
    """q, k, v and a cotangent of o."""
    dv = dv or d
    shapes = (H, Tq, d), (G, Tk, d), (G, Tk, dv), (H, Tq, dv)
    return [rng.standard_normal((B, T, heads, w)).astype(dtype).transpose(0, 2, 1, 3) for heads, T, w in shapes]


def run(routines, q, k, v, do, **options):
    """o, lse, dq, dk, dv"""
    saved = routines["attention_forward"](q, k, v, **options)
    return (*saved, *routines["attention_backward"](do, q, k, v, *saved, **options))


def close(found, expected, tolerance=1e-11):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance)


def equal(found, expected):
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# ---------------------------------------------------------------- the dense formula


def dense(q, k, v, do, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None):
    """o, lse, dq, dk, dv and p with the whole (Tq, Tk) matrix in memory, pair by pair as the contract states it."""
    (B, H, Tq, _), G, Tk = q.shape, k.shape[1], k.shape[2]
    keys, values = every_head(k, q), every_head(v, q)
    j, t = np.arange(Tk), (np.arange(Tq) + (Tk - Tq if offset is None else offset))[:, None]
    s = scale * q @ keys.swapaxes(2, 3)
    if slopes is not None:
        s = s - slopes[:, None, None] * abs(t - j)
    if mask is not None:
        s = s + mask
    sees = np.ones((B, 1, Tq, Tk), bool)
    if causal:
        sees = sees & (j <= t)
    if window is not None:
        sees = sees & (abs(t - j) < window)
    if spans is not None:
        sees = sees & ((spans[:, None, :, :1] <= j) & (j < spans[:, None, :, 1:]))
    p = np.where(sees, np.exp(s), 0)
    total = p.sum(-1)
    with np.errstate(divide="ignore"):
        lse = np.log(total)
    p = p / np.where(total == 0, 1, total)[..., None]
    o = p @ values
    ds = scale * p * (do @ values.swapaxes(2, 3) - (do * o).sum(-1, keepdims=True))
    dk, dv = ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ do

    def grouped(x):
        return x.reshape(B, G, H // G, Tk, x.shape[-1]).sum(2)

    return o, lse, ds @ keys, grouped(dk), grouped(dv), p


@st.composite
def calls(draw):
    """(seed, sizes, options): shapes around the sizes of tiles and blocks, and any mixture of the variants."""
    size = st.one_of(st.integers(0, 5), st.sampled_from([8, 9, 31, 32, 33, 97, 129, 161]))
    B, G, shared = (draw(st.integers(1, 2)) for _ in range(3))
    Tq, Tk = draw(size), draw(size)
    d, dv = draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 16, 33]))
    options = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        options["window"] = draw(st.integers(1, Tk + 2))
    if draw(st.booleans()):
        options["offset"] = draw(st.integers(-Tq - 2, Tk + 2))
    if draw(st.booleans()):
        options["slopes"] = np.linspace(0.3, 0.0, G * shared)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        shape = [n if draw(st.booleans()) else 1 for n in (B, G * shared, Tq, Tk)]
        options["mask"] = np.where(rng.random(shape) < 0.2, -np.inf, rng.standard_normal(shape))
    if draw(st.booleans()):
        rows = draw(st.sampled_from([1, B]))
        options["spans"] = np.sort(rng.integers(-2, Tk + 3, (rows, Tq, 2)), axis=1)
    return rng, (B, G * shared, G, Tq, Tk, d, dv), options


@settings(max_examples=120, deadline=None, derandomize=True)
@given(calls())
def test_any_mixture_of_variants_is_the_dense_formula(call):
    rng, sizes, options = call
    q, k, v, do = arrays(rng, *sizes)
    *expected, p = dense(q, k, v, do, scale=0.4, **options)
    for name in SETS:
        if not kernels.available()[name]:
            routines = getattr(kernels, name).ROUTINES
            found = run(routines, q, k, v, do, scale=0.4, **options)
            close(found, expected)
            close([routines["attention_probabilities"](q, k, found[1], scale=0.4, **options)], [p])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 63, 64, 65, 256])
@pytest.mark.parametrize("T", [0, 1, 33])
def test_head_widths_and_short_texts_from_strided_read_only_arrays(attention, rng, T, d, dtype):
    given = [rng.standard_normal((2, n, 2 * T, 2 * d)).astype(dtype)[:, :, ::2, ::2] for n in (4, 2, 2, 4)]
    for x in given:
        x.flags.writeable = False
    options = {"scale": d**-0.5, "causal": True, "window": 9, "slopes": np.array([0.5, 0.25, 0.0, 1.0], dtype)}
    found = run(attention, *given, **options)
    *expected, _ = dense(*[x.astype(np.float64) for x in given], **options)
    assert all(x.dtype == dtype for x in found)
    close(found, expected, 2e-5 if dtype == np.float32 else 1e-12)


# ---------------------------------------------------------------- one variant is a case of another


def test_a_window_as_long_as_the_text_is_causal_attention_bit_for_bit(attention, rng):
    given = arrays(rng, 1, 2, 1, 150, 150, 16)
    causal = run(attention, *given, scale=0.2, causal=True)
    for window in (150, 151, 2**31):
        equal(run(attention, *given, scale=0.2, causal=True, window=window), causal)
    assert not np.array_equal(run(attention, *given, scale=0.2, causal=True, window=149)[0], causal[0])


def test_a_window_of_one_copies_the_values(attention, rng):
    q, k, v, do = arrays(rng, 1, 2, 2, 70, 70, 8)
    o, _, dq, dk, dv = run(attention, q, k, v, do, scale=0.2, window=1)
    close([o, dv, dq, dk], [v, do, 0 * q, 0 * k])


@pytest.mark.parametrize("shared", [2, 5])
@pytest.mark.parametrize("Tq", [1, 150])
def test_grouped_heads_are_repeated_heads(attention, rng, Tq, shared):
    q, k, v, do = arrays(rng, 2, 2 * shared, 2, Tq, 150, 16)
    grouped = run(attention, q, k, v, do, scale=0.2, causal=True, window=100)
    repeated = run(attention, q, every_head(k, q), every_head(v, q), do, scale=0.2, causal=True, window=100)
    equal(grouped[:2], repeated[:2])
    close(grouped[2:3], repeated[2:3])
    for summed, single in zip(grouped[3:], repeated[3:], strict=True):
        close([summed], [single.reshape(2, 2, shared, 150, 16).sum(2)])


def test_packed_texts_are_each_text_by_itself(attention, rng):
    ends = [0, 40, 40, 41, 170, 300]
    given = arrays(rng, 1, 4, 2, 300, 300, 16)
    spans = np.zeros((1, 300, 2), np.int64)
    for a, b in pairwise(ends):
        spans[0, a:b] = a, b
    options = {"scale": 0.2, "causal": True, "window": 64, "slopes": np.array([0.5, 0.25, 0.125, 0.0])}
    packed = run(attention, *given, spans=spans, **options)
    for a, b in pairwise(ends):
        close([x[:, :, a:b] for x in packed], run(attention, *[x[:, :, a:b] for x in given], **options))


def test_padded_keys_are_shorter_texts(attention, rng):
    lengths = (140, 1, 0)
    given = arrays(rng, 3, 2, 1, 33, 140, 16)
    padded = run(attention, *given, scale=0.2, spans=_ending(lengths, 33))
    for b, n in enumerate(lengths):
        q, k, v, do = (x[b : b + 1] for x in given)
        o, lse, dq, dk, dv = run(attention, q, k[:, :, :n], v[:, :, :n], do, scale=0.2)
        close([x[b : b + 1] for x in padded[:3]], [o, lse, dq])
        close([padded[3][b : b + 1, :, :n], padded[4][b : b + 1, :, :n]], [dk, dv])
        assert not padded[3][b, :, n:].any() and not padded[4][b, :, n:].any()


def _ending(lengths, Tq):
    spans = np.zeros((len(lengths), Tq, 2), np.int64)
    spans[..., 1] = np.array(lengths)[:, None]
    return spans


def test_a_block_of_queries_is_a_part_of_the_whole(attention, rng):
    q, k, v, _ = arrays(rng, 1, 2, 2, 200, 200, 16)
    options = {"scale": 0.2, "causal": True, "window": 50, "slopes": np.array([0.5, 0.1])}
    whole = attention["attention_forward"](q, k, v, **options)
    for a, b in ((0, 40), (60, 61), (130, 200)):
        part = attention["attention_forward"](q[:, :, a:b], k, v, offset=a, **options)
        close(part, [x[:, :, a:b] for x in whole])


def test_slopes_are_a_mask_of_distances(attention, rng):
    given = arrays(rng, 1, 2, 2, 70, 90, 8)
    slopes, distance = np.array([0.5, 0.0625]), np.arange(70)[:, None] + 20 - np.arange(90)
    with_mask = run(attention, *given, scale=0.2, causal=True, mask=-slopes[:, None, None] * abs(distance))
    close(run(attention, *given, scale=0.2, causal=True, slopes=slopes), with_mask)


def test_chosen_heads_and_rows_are_those_of_all_probabilities(attention, rng):
    q, k, v, _ = arrays(rng, 2, 4, 2, 50, 170, 8)
    options = {"scale": 0.4, "causal": True, "window": 150, "mask": rng.standard_normal((4, 1, 170))}
    _, lse = attention["attention_forward"](q, k, v, **options)
    p = attention["attention_probabilities"](q, k, lse, **options)
    heads, rows = np.array([3, 0, 0]), np.array([49, 1, 7, 7], np.int32)
    chosen = attention["attention_probabilities"](q, k, lse, heads=heads, rows=rows, **options)
    close([chosen], [p[:, heads][:, :, rows]], 1e-14)
    assert attention["attention_probabilities"](q, k, lse, rows=rows[:0], **options).shape == (2, 4, 0, 170)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("Tq, window", [(1, None), (3, 50), (40, None), (40, 33)])
def test_pages_are_contiguous_keys_bit_for_bit(attention, rng, Tq, window, dtype):
    lengths = (300, 61, 129)
    keys, values, table, counts = paged(rng, lengths, 16, dtype, (2, 24), (2, 40))
    q, slopes = arrays(rng, 3, 4, 2, Tq, 1, 24, dtype=dtype)[0], np.array([0.5, 0.25, 0.0, 0.125], dtype)
    options = {"scale": 0.2, "window": window, "slopes": slopes}
    o, lse = attention["paged_attention_forward"](q, keys, values, table, counts, **options)
    for b, n in enumerate(lengths):
        k, v = (pool[table[b, : -(-n // 16)]].transpose(1, 0, 2, 3) for pool in (keys, values))
        k, v = (x.reshape(1, 2, -1, x.shape[-1])[:, :, :n] for x in (k, v))
        alone = attention["attention_forward"](q[b : b + 1], k, v, causal=True, **options)
        if attention is kernels.native.ROUTINES:
            equal([o[b : b + 1], lse[b : b + 1]], alone)
        else:  # rows of other lengths move the borders of its blocks
            close([o[b : b + 1], lse[b : b + 1]], alone, 1e-5 if dtype == np.float32 else 1e-13)


def test_rows_of_pages_lined_up_at_their_ends(rng):
    table, lengths = np.array([[4, 2, -1], [0, 4, 1]]), np.array([3, 5])
    pages, slots, filled = paging.places(table, lengths, 2)
    assert filled.tolist() == [[False, False, True, True, True], [True] * 5]
    assert pages[filled].tolist() == [4, 4, 2, 0, 0, 4, 4, 1] and slots[filled].tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    pool = rng.standard_normal((5, 3, 2, 4))
    gathered = paging.gather(pool, pages, slots)
    assert gathered.shape == (2, 3, 5, 4) and np.array_equal(gathered[1, :, 4], pool[1, :, 0])
    back = paging.scatter_add(np.ones_like(gathered), pool, pages, slots)
    assert back[:, 0, :, 0].tolist() == [[1, 1], [1, 0], [1, 0], [0, 0], [2, 2]]


# ---------------------------------------------------------------- what is hidden does not matter


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Tq", [1, 150])
@pytest.mark.parametrize("how", ["causal", "window", "spans", "mask"])
def test_hidden_keys_and_values_may_hold_anything(attention, rng, how, Tq, bad):
    """Every output that may not see the damaged rows is what it was, bit for bit or but for rounding."""
    q, k, v, do = arrays(rng, 1, 2, 1, Tq, 150, 8)
    options, damaged = {"scale": 0.3}, slice(60, 71)
    if how == "causal":
        options |= {"causal": True, "offset": 59 if Tq == 1 else 0}
    elif how == "window":
        options |= {"window": 20, "offset": 100 if Tq == 1 else 0}
    elif how == "spans":
        options["spans"] = np.repeat([[[0, 60]], [[71, 150]]], [(Tq + 1) // 2, Tq // 2], axis=0).reshape(1, Tq, 2)
    else:
        options["mask"] = np.where((np.arange(150) >= 60) & (np.arange(150) < 71), -np.inf, 0.0) + np.zeros((Tq, 1))
    position = np.arange(Tq) + options.get("offset", 0)
    sees = np.zeros(Tq, bool)
    if how == "causal":
        sees = position >= 60
    elif how == "window":
        sees = (position > 40) & (position < 90)
    before = run(attention, q, k, v, do * ~sees[:, None], **options)
    k, v = k.copy(), v.copy()
    k[:, :, damaged], v[:, :, damaged] = bad, -bad
    q, do = q.copy(), do * ~sees[:, None]
    o, lse, dq, dk, dv = run(attention, q, k, v, do, **options)
    close([o[:, :, ~sees], lse[:, :, ~sees], dq[:, :, ~sees]], [x[:, :, ~sees] for x in before[:3]])
    if not sees.any():
        close([dk, dv], before[3:])
        assert not dk[:, :, damaged].any() and not dv[:, :, damaged].any()
    elif np.isnan(bad):
        assert np.isnan(o[:, :, sees]).all()


def test_a_query_that_is_nan_spoils_no_key_that_it_does_not_see(attention, rng):
    q, k, v, do = arrays(rng, 1, 2, 1, 150, 150, 8)
    q[:, :, 70], do[:, :, 70] = np.nan, np.inf
    o, _, dq, dk, dv = run(attention, q, k, v, do, scale=0.3, causal=True)
    assert np.isnan(o[:, :, 70]).all() and np.isnan(dk[:, :, :71]).all() and np.isnan(dv[:, :, :71]).all()
    assert all(np.isfinite(x[:, :, 71:]).all() for x in (o, dq, dk, dv))


def test_queries_without_a_width_look_at_all_keys_alike(attention, rng):
    q, k, v, _ = arrays(rng, 1, 2, 1, 5, 5, 0, 3)
    o, lse = attention["attention_forward"](q, k, v, scale=1.0, causal=True)
    mean = v[:, 0].cumsum(1) / np.arange(1, 6)[:, None]
    np.testing.assert_allclose(o, np.stack([mean, mean], 1), rtol=1e-12)
    np.testing.assert_allclose(lse, np.broadcast_to(np.log(np.arange(1, 6)), lse.shape), rtol=1e-12)


def test_an_infinite_slope_is_nan_and_no_warning(attention, rng):
    q, k, v, _ = arrays(rng, 1, 2, 1, 5, 5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        o, _ = attention["attention_forward"](q, k, v, scale=1.0, slopes=np.array([np.inf, 1.0]))
    assert np.isnan(o[:, 0]).all() and np.isfinite(o[:, 1]).all()


def test_the_definition_skips_what_nobody_sees(rng):
    """Pairs that are computed, counted: a window of 64 in 4096 needs few more than 64 of each query's 4096 keys."""
    x = np.zeros((1, 1, 4096, 1))
    scores = kernels.numpy.attention._Scores(x, x, 1.0, True, 64, None, None, None, None)
    pairs = sum((rows.stop - rows.start) * (keys.stop - keys.start) for rows, keys in scores.blocks())
    assert 64 * 4096 < pairs < 4 * 64 * 4096


# ---------------------------------------------------------------- the cases notice mistakes


def _options(**change):
    """The definition, called with other options."""

    def damage(routine):
        def implementation(*args, **kwargs):
            changed = {name: f(kwargs[name]) for name, f in change.items() if kwargs.get(name) is not None}
            return kernels.numpy.ROUTINES[routine](*args, **kwargs | changed)

        return implementation

    return damage


def _other_heads(routine):
    """Query head h reads key/value head h mod G."""

    def implementation(*args, **kwargs):
        first = 1 if routine == "attention_backward" else 0
        args = list(args)
        H, G = args[first].shape[1], args[first + 1].shape[1]
        order = np.argsort(np.arange(H) % G, kind="stable")  # the head that now comes h-th
        back = np.argsort(order, kind="stable")
        for i, x in enumerate(args):
            if x.shape[1] == H and not (G == H and i > 0):
                args[i] = x[:, order]
        o, lse = kernels.numpy.ROUTINES[routine](*args, **kwargs)
        return o[:, back], lse[:, back]

    return implementation


def _first_head_only(routine):
    """dk and dv of the group's first head, not summed."""

    def implementation(do, q, k, v, *saved, **options):
        definition = kernels.numpy.ROUTINES[routine]
        dq, _, _ = definition(do, q, k, v, *saved, **options)
        alone = definition(do, q, every_head(k, q), every_head(v, q), *saved, **options)
        shared = q.shape[1] // k.shape[1] if k.shape[1] else 1
        return (dq, *(x[:, :: shared or 1].copy() for x in alone[1:]))

    return implementation


def _pages(change):
    def damage(routine):
        def implementation(q, keys, values, table, lengths, **options):
            return kernels.numpy.ROUTINES[routine](q, keys, values, *change(table, lengths, keys), **options)

        return implementation

    return damage


def _swapped_pages(table, lengths, keys):
    table = table.copy()
    for row, n in zip(table, lengths, strict=True):
        used = -(-n // keys.shape[2])
        row[:used] = row[:used][::-1]
    return table, lengths


FORWARD, BACKWARD, PAGED = "attention_forward", "attention_backward", "paged_attention_forward"
MUTANTS = [
    (routine, label, mutant)
    for routine in (FORWARD, BACKWARD, "attention_probabilities")
    for label, mutant in {
        "a window too wide by one": _options(window=lambda w: w + 1),
        "a window too narrow by one": _options(window=lambda w: max(w - 1, 1)),
        "an offset too large by one": _options(offset=lambda t: t + 1),
        "slopes of the wrong sign": _options(slopes=lambda s: -s),
        "slopes of the next head": _options(slopes=lambda s: np.roll(s, 1)),
        "a text that sees one token of the next": _options(spans=lambda s: s + [0, 1]),
    }.items()
]
MUTANTS += [
    (FORWARD, "heads of the wrong group", _other_heads),
    (BACKWARD, "dk and dv of one head of the group", _first_head_only),
    (PAGED, "pages in the wrong order", _pages(_swapped_pages)),
    (PAGED, "a token too few", _pages(lambda table, lengths, keys: (table, np.maximum(lengths - 1, 0)))),
    (PAGED, "a window too wide by one", _options(window=lambda w: w + 1)),
    (PAGED, "slopes of the wrong sign", _options(slopes=lambda s: -s)),
]


@pytest.mark.parametrize("routine, mutant", [(r, m) for r, _, m in MUTANTS], ids=[f"{r}-{w}" for r, w, _ in MUTANTS])
def test_the_cases_reject_a_wrong_kernel(routine, mutant):
    dtype, implementation = np.dtype(np.float32), mutant(routine)
    assert any(compare(routine, implementation, case, dtype) > 1 for case in samples(routine, dtype))
