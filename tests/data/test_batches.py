"""Batches: y is x one token later, an epoch reads every token once, and a resumed sampler continues bit for bit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.data import BatchSampler, evaluation_batches, split
from minitransformer.random import Generator

IDS = np.arange(1000) * 7 % 1009  # distinct, so that a window tells where it came from


def take(sampler, count):
    return [next(sampler) for _ in range(count)]


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for one, two in zip(first, second) for a, b in zip(one, two)
    )


@given(st.integers(2, 300), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_windows_are_runs_of_the_text_and_y_is_x_shifted(n, context, batch_size, seed):
    context = min(context, n - 1)
    sampler = BatchSampler(IDS[:n].tolist(), batch_size, context, Generator(seed))
    place = {id: i for i, id in enumerate(IDS[:n])}
    for x, y in take(sampler, 4):
        assert x.shape == y.shape == (batch_size, context) and x.dtype == y.dtype == np.int64
        assert x.flags.c_contiguous and y.flags.c_contiguous
        for row, target in zip(x, y):
            start = place[row[0]]
            assert np.array_equal(row, IDS[start : start + context])
            assert np.array_equal(target, IDS[start + 1 : start + context + 1])


def test_an_epoch_reads_no_token_twice_and_next_to_all():
    context = 16
    sampler = BatchSampler(IDS, 1, context, Generator(3))
    cuts = set()
    for _ in range(3):
        epoch = [next(sampler)[1].ravel()]
        while sampler._position < len(sampler._starts):
            epoch.append(next(sampler)[1].ravel())
        read = np.concatenate(epoch)
        assert len(np.unique(read)) == len(read) > len(IDS) - 2 * context
        cuts.add(int(sampler._starts.min()))
        assert not np.array_equal(sampler._starts, np.sort(sampler._starts))
    assert len(cuts) > 1  # each epoch cuts at other places


def test_the_seed_decides():
    first, same, other = (take(BatchSampler(IDS, 4, 8, Generator(seed)), 40) for seed in (1, 1, 2))
    assert equal(first, same) and not equal(first, other)


@given(st.integers(0, 60), st.integers(0, 2**32))
def test_a_resumed_sampler_continues_bit_for_bit(steps, seed):
    sampler = BatchSampler(IDS[:150], 3, 8, Generator(seed))
    take(sampler, steps)
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = take(sampler, 20)
    resumed = BatchSampler(IDS[:150].astype(np.uint16), 3, 8, Generator(seed + 1))
    next(resumed)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state and equal(take(resumed, 20), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position": 10**6}, "position must be an integer in 0"),
        ({"position": -1}, "position must be an integer in 0"),
        ({"position": True}, "position must be an integer in 0"),
        ({"tokens": 5}, "tokens was 5 and is 150"),
        ({"checksum": 5}, "checksum was 5"),
        ({"context": 9}, "context was 9 and is 8"),
        ({"generator": {}}, "not the state of a batch sampler"),
        ({"more": 1}, "it needs generator, position, tokens"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(change, reason):
    sampler, twin = (BatchSampler(IDS[:150], 3, 8, Generator(0)) for _ in range(2))
    take(sampler, 3), take(twin, 3)
    with pytest.raises(ValueError, match=reason):
        sampler.load_state_dict({**sampler.state_dict(), **change})
    assert equal(take(sampler, 30), take(twin, 30))


def test_evaluation_reads_every_whole_window_in_order():
    batches = list(evaluation_batches(IDS[:100], 4, 9))
    assert [x.shape for x, _ in batches] == [(4, 9), (4, 9), (3, 9)]
    assert np.array_equal(np.concatenate([x.ravel() for x, _ in batches]), IDS[:99])
    assert np.array_equal(np.concatenate([y.ravel() for _, y in batches]), IDS[1:100])
    assert equal(list(evaluation_batches(IDS[:100], 4, 9, limit=2)), batches[:2])
    assert equal(list(evaluation_batches(IDS[:100], 4, 9, limit=99)), batches)
    assert [x.shape for x, _ in evaluation_batches(IDS[:10], 4, 9)] == [(1, 9)]


def test_split_is_one_cut():
    train, validation = split(list(range(105)))
    assert np.array_equal(train, np.arange(95)) and np.array_equal(validation, np.arange(95, 105))
    train, validation = split(np.arange(7), 0)
    assert len(train) == 7 and len(validation) == 0
    assert [len(part) for part in split([])] == [0, 0]


@pytest.mark.parametrize("make", [lambda *a: BatchSampler(*a, Generator(0)), evaluation_batches], ids=["draw", "all"])
@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ((range(8), 2, 8), ValueError, "a context of 8 needs at least 9 tokens, got 8"),
        (([], 2, 8), ValueError, "needs at least 9 tokens, got 0"),
        ((range(20), 0, 8), ValueError, "batch_size must be a positive integer, got 0"),
        ((range(20), 2, -1), ValueError, "context must be a positive integer, got -1"),
        ((range(20), 2, 1.5), ValueError, "context must be a positive integer, got 1.5"),
        ((np.zeros((4, 5), int), 2, 3), TypeError, "one dimension"),
        ((np.zeros(20), 2, 3), TypeError, "float64"),
    ],
)
def test_bad_arguments_give_one_line_at_once(make, arguments, error, reason):
    with pytest.raises(error, match=reason) as caught:
        make(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_bad_fraction_gives_one_line(fraction):
    with pytest.raises(ValueError, match="validation_fraction must be at least 0 and below 1"):
        split(range(10), fraction)
