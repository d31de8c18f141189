"""Lesson 04: counting parameters, counting letters, calibration, the loss by position."""

import math

import numpy as np

from ...models.gpt import GPT, GPTConfig
from ...random import Generator
from . import Wrong, check, cost, equal, frozen


def _count(parameters, V, T, L, D, tied, expected):
    got = parameters(V, T, L, D, tied)
    if isinstance(got, bool) or not isinstance(got, (int, np.integer)) or got != expected:
        raise Wrong(f"parameters({V=}, {T=}, {L=}, {D=}, {tied=}) = {got!r}, expected {expected:,}")


@check("04.1", "no layers, width 1, on paper")
def _(parameters):
    _count(parameters, 2, 3, 0, 1, True, 2 + 3 + 2)
    _count(parameters, 2, 3, 0, 1, False, 2 + 3 + 2 + 2)


@check("04.1", "models of this package, counted")
def _(parameters):
    for V, T, L, D in ((3, 2, 1, 2), (11, 5, 2, 4), (7, 16, 3, 6)):
        model = GPT(GPTConfig(vocab_size=V, context=T, layers=L, heads=1, width=D))
        _count(parameters, V, T, L, D, True, model.parameter_count())
        _count(parameters, V, T, L, D, False, model.parameter_count() + V * D)


@check("04.1", "GPT-2: 124,439,808, and its large sister")
def _(parameters):
    _count(parameters, 50_257, 1_024, 12, 768, True, 124_439_808)
    _count(parameters, 50_257, 1_024, 48, 1_600, True, 1_557_611_200)


# ---------------------------------------------------------------- 04.2 trigram


def _counted(ids, V, k):
    counts = np.full((V, V, V), float(k))
    for a, b, c in zip(ids, ids[1:], ids[2:]):
        counts[a, b, c] += 1
    return np.log(counts / counts.sum(-1, keepdims=True))


def _trigram(trigram, ids, V, k):
    equal("log p", trigram(ids, V, k), _counted(ids.tolist(), V, k), {"ids": ids, "V": V, "k": k}, terms=V)


@check("04.2", "0 1 0 1 1 with two letters, on paper")
def _(trigram):
    ids = frozen(np.array([0, 1, 0, 1, 1]))
    got = trigram(ids, 2, 1.0)
    _trigram(trigram, ids, 2, 1.0)
    equal("p(0 | 0, 1)", np.exp(got[0, 1, 0]), np.float64(0.5))  # seen once, as was 1


@check("04.2", "repeats add up; every row is a distribution")
def _(trigram):
    for seed, (n, V, k) in enumerate(((2, 2, 0.5), (30, 3, 0.1), (500, 5, 2.0), (1000, 9, 1e-3))):
        ids = frozen(np.random.default_rng(seed).integers(0, V, n))
        _trigram(trigram, ids, V, k)
        equal("Σ p", np.exp(trigram(ids, V, k)).sum(-1), np.ones((V, V)), terms=V, condition=10)


@check("04.2", "letters that never came, and small integers")
def _(trigram):
    _trigram(trigram, frozen(np.array([3, 3, 3, 3, 0], np.uint8)), 5, 1.0)


@cost("04.2", "100,000 letters, V = 50", naive=_counted)
def _():
    return (frozen(np.random.default_rng(0).integers(0, 50, 100_000)), 50, 0.1), {}


# ---------------------------------------------------------------- 04.3 calibration


def _calibrated(probabilities, targets, bins):
    table = np.full((bins, 3), np.nan)
    table[:, 0] = 0
    told, right = [[] for _ in range(bins)], [[] for _ in range(bins)]
    for p, target in zip(probabilities, targets):
        i = min(int(p.max() * bins), bins - 1)
        told[i].append(float(p.max()))
        right[i].append(float(p.argmax() == target))
    for i in range(bins):
        if told[i]:
            table[i] = len(told[i]), np.mean(told[i]), np.mean(right[i])
    return table


def _calibration(calibration, probabilities, targets, bins):
    equal("table", calibration(probabilities, targets, bins), _calibrated(probabilities, targets, bins),
          {"probabilities": probabilities, "targets": targets, "bins": bins}, terms=len(targets))  # fmt: skip


@check("04.3", "four letters, two bins, on paper")
def _(calibration):
    p = frozen(np.array([[0.75, 0.25, 0.0], [0.0, 0.875, 0.125], [0.375, 0.25, 0.375], [0.25, 0.625, 0.125]]))
    _calibration(calibration, p, frozen(np.array([0, 2, 2, 1])), 2)


@check("04.3", "random predictions, 1 to 10 bins")
def _(calibration):
    for seed, (n, V, bins) in enumerate(((5, 3, 1), (40, 4, 5), (300, 6, 10))):
        rng = np.random.default_rng(seed)
        p = frozen(rng.dirichlet(np.full(V, 0.4), size=n))
        _calibration(calibration, p, frozen(rng.integers(0, V, n)), bins)


@check("04.3", "certainty: 1 lies in the last bin; empty bins say 0, NaN, NaN")
def _(calibration):
    _calibration(calibration, frozen(np.eye(3)), frozen(np.array([0, 1, 0])), 4)
    _calibration(calibration, frozen(np.array([[0.5, 0.25, 0.25]])), frozen(np.array([1])), 4)  # an edge: the bin above


# ---------------------------------------------------------------- 04.4 loss_by_position


def _model(seed, V, T, dropout=0.0):
    config = GPTConfig(vocab_size=V, context=T, layers=1, heads=2, width=8, dropout=dropout)
    model = GPT(config, Generator(seed)).to("float64")
    for _, parameter in model.named_parameters():
        parameter.data *= 10
    return model


def _positions(loss_by_position, model, ids, targets):
    with model.evaluating():
        logits = model(ids).data
    B, T, _ = logits.shape
    right = np.zeros(T)
    for b, t in np.ndindex(B, T):
        x = logits[b, t]
        right[t] += (x.max() + math.log(np.exp(x - x.max()).sum()) - x[targets[b, t]]) / B
    equal("loss", loss_by_position(model, ids, targets), right, {"ids": ids, "targets": targets}, terms=8, condition=10)


def _batch(seed, V, B, T):
    ids = np.random.default_rng(seed).integers(0, V, (B, T + 1))
    return ids[:, :-1], ids[:, 1:]


@check("04.4", "one text of two letters")
def _(loss_by_position):
    _positions(loss_by_position, _model(0, 3, 4), *_batch(0, 3, 1, 2))


@check("04.4", "batches, shorter than the context and full")
def _(loss_by_position):
    for seed, (V, B, T) in enumerate(((5, 3, 4), (9, 6, 8))):
        _positions(loss_by_position, _model(seed, V, 8), *_batch(seed, V, B, T))


@check("04.4", "its mean is model.loss")
def _(loss_by_position):
    model, (ids, targets) = _model(3, 6, 5), _batch(3, 6, 4, 5)
    got = np.asarray(loss_by_position(model, ids, targets))
    equal("the mean", got.mean(), np.float64(model.loss(ids, targets).item()), {"loss": got}, terms=30, condition=10)


@check("04.4", "a model with dropout is asked without it, and trains on afterwards")
def _(loss_by_position):
    model = _model(4, 5, 6, dropout=0.5)
    _positions(loss_by_position, model, *_batch(4, 5, 3, 6))
    if not model.training:
        raise Wrong("the model was left in evaluation mode")
