"""What must hold of attention beyond agreeing with its definition: gradients, causality, memory, rows without keys."""

import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels import native

SETS = ("numpy", "native")


def inputs(rng, B, H, Tq, Tk, d, dv=None, dtype=np.float64):
    """q, k, v and a cotangent of o, as views of (B, T, H, d) activations."""
    dv = dv or d
    shapes = (Tq, d), (Tk, d), (Tk, dv), (Tq, dv)
    return [rng.standard_normal((B, T, H, width)).astype(dtype).transpose(0, 2, 1, 3) for T, width in shapes]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=SETS)
def attention(request, implementations):
    return implementations(request.param)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("Tq, Tk, causal", [(6, 6, True), (5, 9, True), (9, 5, True), (140, 133, False), (2, 70, True)])
def test_gradients_by_central_differences(attention, rng, Tq, Tk, causal, masked):
    """<do, o> changes along a random direction of each input as the gradient says."""
    *qkv, do = inputs(rng, 2, 2, Tq, Tk, 7, 5)
    mask = np.where(rng.random((2, 1, Tq, Tk)) < 0.3, -np.inf, rng.standard_normal((2, 1, Tq, Tk))) if masked else None
    options = {"scale": 0.4, "causal": causal, "mask": mask}

    def value(*arrays):
        return np.vdot(attention["attention_forward"](*arrays, **options)[0], do)

    gradients = attention["attention_backward"](do, *qkv, *attention["attention_forward"](*qkv, **options), **options)
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        step = 1e-5 * direction
        up, down = ([x + sign * step if j == i else x for j, x in enumerate(qkv)] for sign in (1, -1))
        numeric = (value(*up) - value(*down)) / 2e-5
        assert abs(numeric) > 1e-3
        assert np.vdot(gradient, direction) == pytest.approx(numeric, rel=1e-7, abs=1e-7)


# ---------------------------------------------------------------- causality and rows without keys


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [16, 65])
def test_a_changed_token_leaves_every_earlier_output_bit_equal(attention, rng, d, dtype):
    q, k, v, _ = inputs(rng, 1, 2, 150, 150, d, dtype=dtype)
    o, lse = attention["attention_forward"](q, k, v, scale=0.2, causal=True)
    for t in (0, 1, 31, 32, 100, 128, 149):
        changed = [x.copy() for x in (q, k, v)]
        for x in changed:
            x[:, :, t] += 3
        o2, lse2 = attention["attention_forward"](*changed, scale=0.2, causal=True)
        assert np.array_equal(o2[:, :, :t], o[:, :, :t]) and np.array_equal(lse2[:, :, :t], lse[:, :, :t])
        assert (o2[:, :, t:] != o[:, :, t:]).any(axis=(0, 1, 3)).all()


def test_a_later_token_gets_no_gradient_from_an_earlier_output(attention, rng):
    q, k, v, do = inputs(rng, 1, 2, 150, 150, 8)
    do[:, :, 70:] = 0  # only outputs before 70 count
    saved = attention["attention_forward"](q, k, v, scale=0.3, causal=True)
    for gradient in attention["attention_backward"](do, q, k, v, *saved, scale=0.3, causal=True):
        assert not gradient[:, :, 70:].any() and gradient[:, :, :70].any(axis=(0, 1, 3)).all()


@pytest.mark.parametrize("how", ["mask", "causal", "no keys"])
def test_rows_without_keys_give_zeros_and_no_warning(attention, rng, how):
    Tq, Tk, mask, rows = 140, 140, None, slice(0, 50)
    if how == "mask":
        mask = np.zeros((Tq, Tk))
        mask[rows] = -np.inf
    elif how == "causal":
        Tk = 90
    else:
        Tk, rows = 0, slice(None)
    q, k, v, do = inputs(rng, 1, 2, Tq, Tk, 6)
    options = {"scale": 0.4, "causal": how == "causal", "mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        o, lse = attention["attention_forward"](q, k, v, **options)
        dq, dk, dv = attention["attention_backward"](do, q, k, v, o, lse, **options)
        p = attention["attention_probabilities"](q, k, lse, **options)
    assert (lse[:, :, rows] == -np.inf).all()
    assert not (o[:, :, rows].any() or dq[:, :, rows].any() or p[:, :, rows].any())
    assert all(np.isfinite(x).all() for x in (o, dq, dk, dv, p))
    if how != "no keys":
        assert np.isfinite(lse[:, :, 50:]).all() and o[:, :, 50:].all()
        assert np.allclose(p[:, :, 50:].sum(-1), 1)


def test_nan_stays_in_its_row(attention, rng):
    q, k, v, _ = inputs(rng, 1, 1, 70, 70, 8)
    q[0, 0, 40, 3] = np.nan
    o, lse = attention["attention_forward"](q, k, v, scale=0.3)
    assert np.isnan(o[0, 0, 40]).all() and np.isnan(lse[0, 0, 40])
    assert np.isfinite(np.delete(o, 40, axis=2)).all() and np.isfinite(np.delete(lse, 40, axis=2)).all()


# ---------------------------------------------------------------- what else the contract promises


def test_the_probabilities_are_those_of_the_forward_pass(attention, rng):
    q, k, v, _ = inputs(rng, 2, 2, 40, 150, 8, 5)
    o, lse = attention["attention_forward"](q, k, v, scale=0.4, causal=True)
    p = attention["attention_probabilities"](q, k, lse, scale=0.4, causal=True)
    assert np.allclose(p.sum(-1), 1, rtol=0, atol=1e-13) and np.allclose(p @ v, o, rtol=0, atol=1e-13)
    assert not p[:, :, 0, 111:].any() and p[:, :, 0, :111].all()


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_the_last_queries_by_themselves_are_those_of_the_whole(attention, rng, count):
    """Decoding with a cache: few queries at the end see what they saw in the full pass."""
    q, k, v, _ = inputs(rng, 2, 3, 150, 150, 24)
    whole = attention["attention_forward"](q, k, v, scale=0.2, causal=True)
    last = attention["attention_forward"](q[:, :, -count:], k, v, scale=0.2, causal=True)
    for a, b in zip(last, whole, strict=True):
        assert np.allclose(a, b[:, :, -count:], rtol=0, atol=1e-13)


def test_native_outputs_merge_their_heads_without_a_copy(rng, implementations):
    routines = implementations("native")
    q, k, v, do = inputs(rng, 2, 3, 9, 9, 8)
    o, lse = routines["attention_forward"](q, k, v, scale=1.0)
    for x in (o, *routines["attention_backward"](do, q, k, v, o, lse, scale=1.0)):
        assert x.flags.owndata and np.shares_memory(x, x.transpose(0, 2, 1, 3).reshape(2, 9, 24))


# ---------------------------------------------------------------- threads, instruction sets, memory


@pytest.mark.parametrize("heads", [1, 3, 17])
def test_no_result_depends_on_the_number_of_threads(rng, implementations, heads):
    routines, before = implementations("native"), native.thread_count()
    q, k, v, do = inputs(rng, 1, heads, 300, 411, 32, dtype=np.float32)
    found = []
    try:
        for threads in (1, 2, 3):
            native.set_thread_count(threads)
            saved = routines["attention_forward"](q, k, v, scale=0.2, causal=True)
            found.append((*saved, *routines["attention_backward"](do, q, k, v, *saved, scale=0.2, causal=True)))
    finally:
        native.set_thread_count(before)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def run(script, **environment):
    """What a Python of its own prints."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


AGREES = """
import numpy as np
from minitransformer.kernels import native, numpy as reference
rng = np.random.default_rng(1)
for d, dv in ((5, 9), (64, 64), (33, 70)):
    q, k, v = (rng.standard_normal((2, 2, T, w)) for T, w in ((150, d), (203, d), (203, dv)))
    mask = np.where(rng.random((150, 203)) < 0.3, -np.inf, 0.5)
    do = rng.standard_normal((2, 2, 150, dv))
    both = []
    for routines in (native.ROUTINES, reference.ROUTINES):
        saved = routines["attention_forward"](q, k, v, scale=0.2, causal=True, mask=mask)
        both.append((*saved, *routines["attention_backward"](do, q, k, v, *saved, scale=0.2, causal=True, mask=mask)))
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*both))
print(native.isa())
"""


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set_agrees(implementations, isa):
    implementations("native")
    if isa not in native._extension.isas():
        pytest.skip(f"this CPU does not run {isa}")
    assert run(AGREES, MINITRANSFORMER_ISA=isa).strip() == isa


GROWTH = """
import numpy as np
from minitransformer.kernels import native

def peak():
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def step(T):
    x = np.ones((1, 1, T, 16), np.float32)
    saved = native.ROUTINES["attention_forward"](x, x, x, scale=0.2, causal=True)
    native.ROUTINES["attention_backward"](x, x, x, x, *saved, scale=0.2, causal=True)

step(256)
before = peak()
step(8192)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_native_memory_is_linear_in_the_length(implementations):
    """One matrix of scores would be 256 MB. 40 arrays of the size of q, some of which are partial dq, are 20 MB."""
    implementations("native")
    assert int(run(GROWTH)) < 40 * 8192 * 16 * 4


def test_numpy_memory_is_linear_in_the_length():
    def peak(T):
        x = np.ones((1, 1, T, 4), np.float32)
        tracemalloc.start()
        try:
            saved = kernels.numpy.ROUTINES["attention_forward"](x, x, x, scale=0.5, causal=True)
            kernels.numpy.ROUTINES["attention_backward"](x, x, x, x, *saved, scale=0.5, causal=True)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2048) < 2.5 * peak(1024)  # quadratic: 4
