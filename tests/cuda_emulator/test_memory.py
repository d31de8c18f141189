"""Atomics, fences and flags."""

import numpy as np
import pytest


def test_histogram(launch):
    x, counts = np.random.default_rng(2).integers(0, 200, 5000).astype(np.uint8), np.zeros(256, np.int32)
    launch("memory.cu", "histogram", (4,), (96,), (x, counts, np.int32(x.size)))
    assert (counts == np.bincount(x, minlength=256)).all()


def test_every_atomic(launch):
    n = 3 * 40
    i = np.arange(n)
    ints = np.zeros(6, np.int32)
    unsigneds = np.array([0, 0xFFFFFFFF, 0, 0], np.uint32)
    longs, floats, doubles = np.zeros(1, np.uint64), np.zeros(1, np.float32), np.zeros(1)
    launch("memory.cu", "every_atomic", (3,), (40,), (ints, unsigneds, longs, floats, doubles))
    assert list(ints) == [i.sum(), -i.sum(), n - 1, 1 - n, np.bitwise_xor.reduce(i), n - 1]
    assert list(unsigneds) == [0xFFFFFFFF, 0, n % 10, -n % 10]
    assert longs == n << 33 and floats == n / 2 and doubles == n / 4


def test_last_block_sees_what_the_others_wrote(launch):
    x = np.random.default_rng(3).integers(-9, 9, 64 * 7).astype(np.float32)
    sums, finished, total = np.zeros(7, np.float32), np.zeros(1, np.uint32), np.zeros(1, np.float32)
    launch("memory.cu", "last_block_adds", (7,), (64,), (x, sums, finished, total))
    assert total == x.sum() and finished == 7


def test_a_thread_that_waits_for_a_flag_lets_others_run(launch):
    y = np.zeros(1, np.int32)
    launch("memory.cu", "flag", (1,), (64,), (y,))
    assert y == 1


@pytest.mark.parametrize("sets", [0, 30, 63])
def test_threads_that_wait_for_a_flag_let_the_one_that_sets_it_run(launch, sets):
    y = np.zeros(64, np.int32)
    launch("memory.cu", "flag_of_one", (1,), (64,), (y, np.int32(sets)))
    assert (y == 7).all()


@pytest.mark.parametrize(
    ("atomic", "number"),
    [
        ("atomicAdd", "long long"),
        ("atomicSub", "float"),
        ("atomicMax", "float"),
        ("atomicMin", "double"),
        ("atomicExch", "double"),
        ("atomicOr", "long long"),
    ],
)
def test_atomics_that_no_gpu_has_do_not_compile(module, atomic, number):
    with pytest.raises(RuntimeError, match=rf"^memory.cu does not compile: memory.cu:\d+:.*no matching .*{atomic}"):
        module("memory.cu", f"-DATOMIC={atomic}", f"-DNUMBER={number}")
