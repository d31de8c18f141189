"""What attention refuses, through the contract and past it: one line that names the argument, never a wild read."""

import numpy as np
import pytest

from minitransformer import kernels

FORWARD, BACKWARD, PAGED = "attention_forward", "attention_backward", "paged_attention_forward"
PROBABILITIES = "attention_probabilities"


def _wrong_shapes_and_dtypes():
    x, wrong = np.zeros((2, 3, 5, 4), np.float32), np.zeros((2, 3, 6, 4), np.float32)
    lse = np.zeros((2, 3, 5), np.float32)
    yield ValueError, "q must", FORWARD, (x[0], x, x), {}
    yield ValueError, "k must", FORWARD, (x, x[:1], x), {}
    yield ValueError, "k must", FORWARD, (x, x[..., :3], x), {}
    yield ValueError, "v must", FORWARD, (x, x, wrong), {}
    yield ValueError, "v must", FORWARD, (x, x, x[:, :2]), {}
    yield TypeError, "v is float64", FORWARD, (x, x, x.astype(np.float64)), {}
    yield ValueError, "mask", FORWARD, (x, x, x), {"mask": np.zeros((5, 6), np.float32)}
    yield ValueError, "mask", FORWARD, (x, x, x), {"mask": np.zeros((1, 2, 3, 5, 5), np.float32)}
    yield TypeError, "mask is bool|mask must be a float", FORWARD, (x, x, x), {"mask": np.zeros((5, 5), bool)}
    yield ValueError, "do must", BACKWARD, (wrong, x, x, x, x, lse), {}
    yield ValueError, "o must", BACKWARD, (x, x, x, x, wrong, lse), {}
    yield ValueError, "lse must", BACKWARD, (x, x, x, x, x, lse[..., :4]), {}
    yield TypeError, "lse is float64", BACKWARD, (x, x, x, x, x, lse.astype(np.float64)), {}
    yield ValueError, "lse must", PROBABILITIES, (x, x, lse[:, :2]), {}


def _wrong_options():
    x, lse = np.zeros((2, 4, 5, 4), np.float32), np.zeros((2, 4, 5), np.float32)
    spans = np.zeros((1, 5, 2), np.int64)
    yield ValueError, "3 key/value heads", FORWARD, (x, x[:, :3], x[:, :3]), {}
    yield ValueError, "0 key/value heads", FORWARD, (x, x[:, :0], x[:, :0]), {}
    yield ValueError, "v must", FORWARD, (x, x, x[:, :2]), {}
    yield ValueError, "window", FORWARD, (x, x, x), {"window": 0}
    yield ValueError, "window", FORWARD, (x, x, x), {"window": 2**40}
    yield ValueError, "offset", FORWARD, (x, x, x), {"offset": 2**40}
    yield ValueError, "slopes must", FORWARD, (x, x, x), {"slopes": lse[0, :3, 0]}
    yield TypeError, "slopes is float64", FORWARD, (x, x, x), {"slopes": np.zeros(4)}
    yield TypeError, "spans must", FORWARD, (x, x, x), {"spans": spans.astype(np.int32)}
    yield ValueError, "spans must", FORWARD, (x, x, x), {"spans": spans[:, :4]}
    yield ValueError, "spans must", FORWARD, (x, x, x), {"spans": np.zeros((3, 5, 2), np.int64)}
    far = np.zeros((1, 2, 4000, 64), np.float32)  # of so many keys, memory that is not the kernel's would be read
    for ends in ([[100, 4000], [0, 4000]], [[0, 4000], [0, 3999]]):
        spans = np.array([[[0, 0], [0, 0]], ends])
        q, k = np.zeros((2, 2, 2, 64), np.float32), np.repeat(far, 2, 0)
        yield ValueError, "spans must not decrease", FORWARD, (q, k, k), {"spans": spans}
    yield IndexError, "heads", PROBABILITIES, (x, x, lse), {"heads": np.array([4])}
    yield IndexError, "rows", PROBABILITIES, (x, x, lse), {"rows": np.array([0, -1])}
    yield ValueError, "rows must", PROBABILITIES, (x, x, lse), {"rows": np.array([[0]])}
    yield TypeError, "heads must", PROBABILITIES, (x, x, lse), {"heads": np.array([0.0])}
    pool, table, lengths = np.zeros((3, 2, 2, 4), np.float32), np.array([[0, 2], [1, 7]]), np.array([4, 2])
    yield ValueError, "keys must", PAGED, (x, pool[..., :3], pool, table, lengths), {}
    yield ValueError, "values must", PAGED, (x, pool, pool[:2], table, lengths), {}
    yield ValueError, "table must", PAGED, (x, pool, pool, table[:1], lengths), {}
    yield ValueError, "lengths must", PAGED, (x, pool, pool, table, lengths[:1]), {}
    yield TypeError, "table must", PAGED, (x, pool, pool, table * 1.0, lengths), {}
    yield IndexError, "lengths", PAGED, (x, pool, pool, table, lengths + 1), {}
    yield IndexError, "lengths", PAGED, (x, pool, pool, table, -lengths), {}
    yield IndexError, r"table\[1, 1\] is 7", PAGED, (x, pool, pool, table, lengths + [0, 1]), {}
    yield IndexError, "table", PAGED, (x, pool[:0], pool[:0], table * 0, lengths), {}
    yield ValueError, "a page must", PAGED, (x, pool[:, :, :0], pool[:, :, :0], table, lengths * 0), {}


@pytest.mark.parametrize("error, says, routine, args, kwargs", [*_wrong_shapes_and_dtypes(), *_wrong_options()])
@pytest.mark.parametrize("through", ["contract", "native"])
def test_bad_input_is_an_error_that_names_the_argument(implementations, through, error, says, routine, args, kwargs):
    call = getattr(kernels, routine) if through == "contract" else implementations("native")[routine]
    with pytest.raises(error, match=f"{routine}: ({says})"):
        call(*args, scale=1.0, **kwargs)


def test_what_only_the_contract_refuses():
    x = np.zeros((1, 1, 3, 4), np.float32)
    with pytest.raises(TypeError, match="window must be an integer, got float"):
        kernels.attention_forward(x, x, x, scale=1.0, window=2.0)
    with pytest.raises(ValueError, match="spans must not decrease"):
        kernels.attention_forward(x, x, x, scale=1.0, spans=np.array([[[0, 3], [0, 2], [0, 2]]]))
    lse, ones = x[..., 0], np.ones((1, 1), int)
    calls = {
        FORWARD: (x, x, x), BACKWARD: (x, x, x, x, x, lse), PROBABILITIES: (x, x, lse),
        PAGED: (x, x, x, ones * 0, ones[0]),
    }  # fmt: skip
    for routine, args in calls.items():
        call = getattr(kernels, routine)
        for scale, error in ((None, TypeError), ("1", TypeError), (np.nan, ValueError), (np.inf, ValueError)):
            with pytest.raises(error, match=f"{routine}: scale must be"):
                call(*args, scale=scale)
        for causal in (2, "no", None):
            if routine != PAGED:
                with pytest.raises(TypeError, match=f"{routine}: causal must be True or False, got {causal!r}"):
                    call(*args, scale=1.0, causal=causal)
    with pytest.raises(TypeError, match="table must be an integer array, got list"):
        kernels.paged_attention_forward(x, x, x, [[0]], ones[0], scale=1.0)


def test_ends_that_decrease_past_the_contract_read_nothing_outside(implementations):
    """Memory safety does not rest on the contract's check."""
    rng, routines = np.random.default_rng(11), implementations("native")
    q, kv = rng.standard_normal((1, 2, 150, 8)), rng.standard_normal((1, 1, 150, 8))
    spans = rng.integers(-(2**62), 2**62, (1, 150, 2))
    spans[:, ::3] = rng.integers(-5, 160, (1, 50, 2))
    saved = routines[FORWARD](q, kv, kv, scale=0.2, spans=spans)
    routines[BACKWARD](q, q, kv, kv, *saved, scale=0.2, spans=spans)
