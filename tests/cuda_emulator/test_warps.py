"""Warps: every shuffle at every width, votes, masks."""

import numpy as np
import pytest

from minitransformer.kernels.cuda import emulator

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("n", [0, 1, 3, 5, 16, 31, 33, -1, 2**31 - 1, -(2**31)])
def test_shuffles(launch, width, n):
    x, y = RNG.integers(0, 1000, 64).astype(np.int32), np.zeros((4, 64), np.int32)
    launch("warps.cu", "shuffles", (1,), (64,), (x, y, np.int32(n), np.int32(width)))
    i, n = np.arange(64), n % 32  # of which five bits count
    first = i - i % width
    sources = [first + n % width, np.where(i - n >= first, i - n, i), np.where(i + n < first + width, i + n, i)]
    sources.append(np.where(i ^ n < first + width, i ^ n, i))
    assert (y == x[np.stack(sources)]).all()


def test_doubles_and_lanes_that_are_not_there(launch):
    x, y = RNG.standard_normal(32), np.zeros(32)
    launch("warps.cu", "shuffles_of_doubles", (1,), (32,), (x, y))
    assert (y == x[np.arange(32) ^ 1]).all()
    y = np.zeros(20, np.float32)
    launch("warps.cu", "partial_warp", (1,), (20,), (y,))
    assert (y[:19] == np.arange(1, 20)).all() and np.isnan(y[19])


@pytest.mark.parametrize("most", [1, 3, 12])
def test_votes(launch, most):
    x, y = RNG.integers(0, most, 64).astype(np.int32), np.zeros((64, 6), np.uint32)
    launch("warps.cu", "votes", (1,), (64,), (x, y))
    for mine, warp in ((y[:32], x[:32]), (y[32:], x[32:])):
        bits = [sum(1 << j for j in np.flatnonzero(warp == v)) for v in warp]
        ballot = sum(1 << j for j in np.flatnonzero(warp > 0))
        expected = [[ballot, (warp > 8).any(), True, same, warp.sum(), warp.min()] for same in bits]
        assert (mine == np.array(expected, np.uint32)).all()


def test_halves_of_a_warp_meet_by_themselves(launch):
    y = np.zeros(64, np.int32)
    launch("warps.cu", "halves", (1,), (64,), (y,))
    lanes = np.arange(16)
    v = lanes.copy()
    for _ in range(3):
        v = v + v[lanes ^ 1]
    assert (y.reshape(2, 32) == np.concatenate([v, np.full(16, 16)])).all()


def test_syncwarp(launch):
    x, y = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    launch("warps.cu", "through_shared", (1,), (128,), (x, y))
    assert (y == np.arange(128) ^ 1).all()


@pytest.mark.parametrize("n", [1, 20, 33])
def test_meetings_do_not_wait_for_lanes_that_returned(launch, n):
    y = np.zeros(64, np.int32)
    launch("warps.cu", "some_return", (1,), (64,), (y, np.int32(n)))
    assert (y[:n] == [min(32, n - i // 32 * 32) for i in range(n)]).all() and not y[n:].any()


@pytest.mark.parametrize(
    ("kernel", "comments", "what"),
    [
        ("left_out", ["left out"], "the mask leaves out the lane"),
        ("other_mask", ["other mask"], "masks 0xffffffff and 0xfffffffe|masks 0xfffffffe and 0xffffffff"),
        ("other_shuffle", ["other shuffle, one", "other shuffle, two"], "in __shfl_sync meets lane"),
        ("bad_width", ["bad width"], "width 12 is none of"),
    ],
)
@pytest.mark.parametrize("order", ["first", "last", "random"])
def test_mistakes_are_reported(module, line, kernel, comments, what, order):
    with pytest.raises(emulator.KernelError, match=what) as error, emulator.schedule(order=order):
        module("bugs.cu").get_function(kernel)((2,), (32,), (np.zeros(32, np.int32),))
    assert all(line("bugs.cu", comment) in str(error.value) for comment in comments)
