"""The CUDA attention kernels beyond the cases of tests/kernels: tensor cores against exact numbers, what is never read,
tiles that are never visited, and a whole model."""

from collections import Counter

import ml_dtypes
import numpy as np
import pytest

import minitransformer as mt
from minitransformer import kernels, optim
from minitransformer.kernels import Unsupported
from minitransformer.kernels.cuda import attention, launch

from ..kernels.cases.attention import paged, spans_of
from ..models.helpers import random_ids, small_gpt

pytestmark = pytest.mark.usefixtures("emulator")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
forward, backward = (kernels.cuda.ROUTINES["attention_" + way] for way in ("forward", "backward"))
definition = kernels.numpy.ROUTINES["attention_forward"]
VARIANTS = {
    "causal": {"causal": True},
    "window": {"window": 9},
    "alibi": {"causal": True, "slopes": (0.5, 0.0625)},
    "packed": {"causal": True, "spans": "packed"},
    "lengths": {"spans": "lengths"},
}


def inputs(T, d, dv, dtype, options, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 2, T, d), (2, 1, T, d), (2, 1, T, dv)))
    options = {"scale": d**-0.5, **options}
    if "slopes" in options:
        options["slopes"] = np.array(options["slopes"], dtype)
    if "spans" in options:
        options["spans"] = spans_of(options["spans"], 2, T, T)
    return q, k, v, options


def widened(arrays):
    return [a.astype(np.float64) for a in arrays]


# ---------------------------------------------------------------- tensor cores


@pytest.mark.parametrize(
    ("T", "d", "dv", "variant"),
    [
        (70, 64, 64, "causal"),
        (40, 63, 65, "window"),
        (130, 16, 1, "packed"),
        (20, 200, 256, "alibi"),
        (64, 1, 129, "lengths"),
    ],
)
def test_tensor_cores_err_by_the_rounding_of_the_weights_and_of_the_result(T, d, dv, variant):
    """bfloat16 has 8 bits: 2⁻⁸ of each weight at most, 2⁻⁸ of the sum. Products are exact, float sums err far less."""
    q, k, v, options = inputs(T, d, dv, BFLOAT16, VARIANTS[variant])
    assert attention.tensor_core_width(q, v) == next(w for w in (64, 128, 256) if max(d, dv) <= w)
    o, lse = forward(q, k, v, **options)
    wide = {name: a.astype(np.float64) if name == "slopes" else a for name, a in options.items()}
    exact, exact_lse = definition(*widened((q, k, v)), **wide)
    most = definition(*widened((q, k)), np.abs(v.astype(np.float64)), **wide)[0]
    assert (np.abs(o.astype(np.float64) - exact) <= 2**-8 * (most + np.abs(exact)) * 1.02 + 1e-5).all()
    seen = np.isfinite(exact_lse)
    assert (np.isneginf(lse.astype(np.float64)) == ~seen).all()
    error = np.abs(lse.astype(np.float64)[seen] - exact_lse[seen])
    assert (error <= 2**-8 * np.abs(exact_lse[seen]) + 1e-4).all()


@pytest.mark.parametrize("order", [{"order": "last"}, {"order": "random", "seed": 3, "os_threads": 2}], ids=str)
def test_no_order_of_threads_changes_a_bit_on_tensor_cores(order, emulator):
    q, k, v, options = inputs(130, 40, 33, BFLOAT16, VARIANTS["packed"])
    v[0, 0, 100] = np.inf  # a tile that takes the slow way
    expected = forward(q, k, v, **options)
    with emulator.schedule(**order):
        for got, want in zip(forward(q, k, v, **options), expected, strict=True):
            assert got.tobytes() == want.tobytes()


def test_who_takes_the_tensor_cores(monkeypatch):
    q = np.zeros((1, 1, 4, 8), BFLOAT16)
    wide = np.zeros((1, 1, 4, 257), BFLOAT16)
    assert attention.tensor_core_width(q, q) == 64 and attention.tensor_core_width(q, wide) == 0
    assert all(attention.tensor_core_width(q.astype(t), q) == 0 for t in (np.float16, np.float32, np.float64))
    monkeypatch.setattr(attention, "compute_capability", lambda place: 75)
    assert attention.tensor_core_width(q, q) == 0


# ---------------------------------------------------------------- what is hidden


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=str)
@pytest.mark.parametrize("variant", ["window", "packed"])
def test_hidden_keys_and_values_may_hold_anything(variant, dtype):
    """Those that queries 10 … 19 do not see are NaN and infinite: the gradients and results of these ten stay as they
    are, bit for bit. Key 41 lies in one tile with keys that are seen."""
    q, k, v, options = inputs(50, 16, 33, dtype, VARIANTS[variant] | {"causal": True})
    do = np.random.default_rng(1).standard_normal((2, 2, 50, 33)).astype(dtype)
    plain = forward(q, k, v, **options)
    k_bad, v_bad = k.copy(), v.copy()
    hidden = slice(41, 43)
    k_bad[:, :, hidden], v_bad[:, :, hidden] = np.nan, np.inf
    o, lse = forward(q, k_bad, v_bad, **options)
    rows = slice(10, 20)
    assert np.array_equal(o[:, :, rows], plain[0][:, :, rows]) and np.array_equal(lse[:, :, rows], plain[1][:, :, rows])
    assert np.isnan(o[:, :, 41].astype(np.float32)).all()  # who sees it, knows
    dq = backward(do, q, k, v, *plain, **options)[0]
    dq_bad = backward(do, q, k_bad, v_bad, o, lse, **options)[0]
    assert np.array_equal(dq[:, :, rows], dq_bad[:, :, rows])


def test_an_entry_of_a_block_table_that_is_no_page_is_never_followed():
    """On a GPU nobody has looked at it. It matters to those rows only that see it."""
    rng = np.random.default_rng(3)
    keys, values, table, lengths = paged(rng, (37, 50), 8, np.dtype(np.float32), (1, 16), (1, 5))
    q = rng.standard_normal((2, 2, 1, 16)).astype(np.float32)
    run = kernels.cuda.ROUTINES["paged_attention_forward"]
    o, _ = run(q, keys, values, table, lengths, scale=0.25, window=20)
    for bad in (-1, len(keys), 2**40):
        damaged = table.copy()
        damaged[:, 0] = bad  # before the window
        assert np.array_equal(run(q, keys, values, damaged, lengths, scale=0.25, window=20)[0], o)
        damaged[1, 5] = bad
        got = run(q, keys, values, damaged, lengths, scale=0.25, window=20)[0]
        assert np.array_equal(got[0], o[0]) and np.isnan(got[1]).all()
    beyond = run(q, keys, values, table, np.array([37, 2**50]), scale=0.25)[0]
    assert np.isfinite(beyond[0]).all() and np.isnan(beyond[1]).all()


def count_tiles(monkeypatch, concept, counted):
    """The kernel writes, instead of lse, how many tiles of keys its block visited."""
    text = launch.source(concept)
    for old, new in counted.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    monkeypatch.setattr(launch, "source", lambda _: text)
    monkeypatch.setattr(launch, "module", launch.module.__wrapped__)
    monkeypatch.setattr(launch, "_function", launch._function.__wrapped__)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=str)
def test_tiles_that_nobody_sees_are_not_visited(dtype, monkeypatch):
    if dtype == BFLOAT16:
        rows, keys = 64, 64
        counted = {
            "float top = -infinity<float>(), mass = 0;": "float top = -infinity<float>(), mass = 0, visits = 0;",
            "        float higher = top;": "        visits++;\n        float higher = top;",
            "top + log(mass));": "visits);",
        }
        count_tiles(monkeypatch, "attention_tensor_cores", counted)
    else:
        rows, keys = 32, 32
        counted = {
            "    A top[R], mass[R];": "    A top[R], mass[R], visits = 0;",
            "        A s[R], keep[R];": "        A s[R], keep[R];\n        visits++;",
            "top[r] + log(mass[r]));": "visits);",
        }
        count_tiles(monkeypatch, "attention", counted)
    T, window = 256, 20
    for variant, most in (
        ({"causal": True}, lambda last: -(-last // keys)),
        ({"causal": True, "window": window}, lambda last: -(-(rows + window - 1) // keys)),
        ({"causal": True, "offset": -T}, lambda last: 0),
        ({"causal": True, "spans": "packed"}, lambda last: -(-last // keys)),
    ):
        q, k, v, options = inputs(T, 8, 8, dtype, variant)
        visits = forward(q, k, v, **options)[1].astype(int)
        for first in range(0, T, rows):
            assert (visits[:, :, first : first + rows] <= most(first + rows)).all(), (variant, first)


@pytest.mark.parametrize(
    ("widths", "way"), [((8, 700), forward), ((700, 8), lambda q, k, v, **o: backward(v, q, k, v, v, q[..., 0], **o))]
)
def test_heads_too_wide_for_shared_memory_are_refused_with_a_reason(widths, way):
    q, k, v = (np.zeros((1, 1, 3, n), np.float32) for n in (widths[0], *widths))
    with pytest.raises(Unsupported, match=r"700|708"):
        way(q, k, v, scale=1.0)


# ---------------------------------------------------------------- a model


def test_a_bfloat16_model_runs_on_tensor_cores_and_learns():
    there = "cuda-emulated"
    model = small_gpt("bfloat16").to(there)
    x = random_ids(model, 3, 10)
    x, y = (mt.tensor(ids, device=there) for ids in (x[:, :-1], x[:, 1:]))
    optimizer = optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    expected = small_gpt("float32").to(there).loss(x, y).item()
    assert losses[0] == pytest.approx(expected, rel=0.03)
    ran = Counter((call.routine, call.source) for call in kernels.explain(lambda: model.loss(x, y).backward()))
    assert ran["attention_forward", there] == ran["attention_backward", there] == 2
