import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator
from minitransformer.optim import clip_grad_norm_


def parameters(scale=1.0):
    made = [mt.zeros(3, 4, requires_grad=True), mt.zeros(5, requires_grad=True), mt.zeros(2, requires_grad=True)]
    for i, p in enumerate(made[:2]):  # the third has no gradient
        p.grad = (Generator(i).normal(p.shape) * scale).astype(np.float32)
    return made


def norm(ps):
    return np.sqrt(sum((p.grad.astype(np.float64) ** 2).sum() for p in ps if p.grad is not None))


def test_a_long_gradient_keeps_its_direction():
    ps = parameters(100.0)
    before = [p.grad.copy() for p in ps[:2]]
    length = clip_grad_norm_(ps, 1.5)
    assert length == pytest.approx(np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in before)), rel=1e-12)
    assert norm(ps) == pytest.approx(1.5, rel=1e-6)
    for p, g in zip(ps, before):
        np.testing.assert_allclose(p.grad, g * (1.5 / length), rtol=1e-6)


def test_a_short_gradient_is_not_touched():
    ps = parameters(1e-3)
    before = [p.grad.copy() for p in ps[:2]]
    assert clip_grad_norm_(iter(ps), 1.0) == pytest.approx(norm(ps))
    assert all(np.array_equal(p.grad, g) for p, g in zip(ps, before))


def test_a_tied_parameter_counts_once():
    ps = parameters(100.0)
    length = clip_grad_norm_(parameters(100.0), 1.0)
    assert clip_grad_norm_([*ps, ps[0]], 1.0) == length
    assert norm(ps) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_is_returned(bad):
    ps = parameters()
    ps[0].grad[1, 1] = bad
    rest = ps[1].grad.copy()
    assert not np.isfinite(clip_grad_norm_(ps, 1e-3))
    assert np.array_equal(ps[1].grad, rest)


def test_nothing_to_clip_and_a_norm_of_no_use():
    assert clip_grad_norm_([mt.zeros(2, requires_grad=True)], 1.0) == 0.0
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="max_norm must be above 0"):
            clip_grad_norm_([], bad)
