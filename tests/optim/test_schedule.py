import itertools
import math

import pytest

from minitransformer.optim import warmup_cosine


def rates(**options):
    return [warmup_cosine(step, **options) for step in range(options["total"] + 3)]


def test_where_it_starts_peaks_and_ends():
    lr = rates(peak=2.0, warmup=4, total=20, floor=0.5)
    assert lr[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert lr[12] == pytest.approx((2.0 + 0.5) / 2)  # half way down the cosine
    assert lr[8] == pytest.approx(0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2)
    assert lr[20:] == [0.5, 0.5, 0.5]
    assert max(lr) == lr[4]
    assert all(a > b for a, b in itertools.pairwise(lr[4:21]))


def test_without_warmup_it_starts_at_the_peak():
    lr = rates(peak=1.0, warmup=0, total=10)
    assert lr[0] == 1.0 and lr[10] == 0.0 and lr[5] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 10}, r"warmup must lie in 0\.\.9 for 10 steps, got 10"),
        ({"warmup": -1}, "got -1"),
        ({"floor": 2.0}, r"floor must lie in 0\.\.peak, got floor=2.0, peak=1.0"),
        ({"peak": float("nan")}, "peak=nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine(0, **{"peak": 1.0, "warmup": 2, "total": 10, **options})
