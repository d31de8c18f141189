"""Lesson 09: parameters of a GPT, a power law above a floor, exact match, the best split of a budget."""

import numpy as np

from ...models.gpt import GPT, GPTConfig
from . import Wrong, check, equal, frozen, parts


def _count(count_parameters, config, expected):
    got = parts("count_parameters", count_parameters(config), 2)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in got)
    if not whole or got != expected:
        raise Wrong(f"count_parameters({config}) = {got!r}, expected {expected[0]:,} and {expected[1]:,}")


@check("09.1", "one layer of width 1, on paper")
def _(count_parameters):
    _count(count_parameters, GPTConfig(3, context=2, layers=1, heads=1, width=1), (25, 3 + 2 + 2))


@check("09.1", "models of this package, counted")
def _(count_parameters):
    for V, T, L, H, D in ((3, 2, 1, 1, 2), (11, 5, 2, 2, 4), (7, 16, 3, 3, 6)):
        config = GPTConfig(V, context=T, layers=L, heads=H, width=D)
        named = list(GPT(config).named_parameters())
        inside = sum(p.size for name, p in named if name.startswith("blocks."))
        _count(count_parameters, config, (inside, sum(p.size for _, p in named) - inside))


@check("09.1", "GPT-2: 85,054,464 in the blocks of 124,439,808")
def _(count_parameters):
    _count(count_parameters, GPTConfig(50_257, context=1_024, layers=12, heads=12, width=768),
           (85_054_464, 124_439_808 - 85_054_464))  # fmt: skip


# ---------------------------------------------------------------- 09.2 fit_power_law


def _best(sizes, losses, floors):
    """By the normal equations, floor by floor."""
    found = []
    for E in floors:
        if E >= losses.min():
            continue
        x, y = np.log(sizes), np.log(losses - E)
        n, determinant = len(x), len(x) * (x @ x) - x.sum() ** 2
        slope = (n * (x @ y) - x.sum() * y.sum()) / determinant
        A = np.exp((y.sum() - slope * x.sum()) / n)
        found.append((((E + A * sizes**slope - losses) ** 2).sum(), E, A, -slope))
    return np.array(min(found)[1:])


def _fit(fit_power_law, sizes, losses, floors, expected=None):
    sizes, losses, floors = (frozen(np.array(values, float)) for values in (sizes, losses, floors))
    got = parts("fit_power_law", fit_power_law(sizes, losses, floors), 3)
    if not all(isinstance(value, (float, np.floating)) for value in got):
        raise Wrong(f"(E, A, alpha) must be three floats, got {got!r}")
    expected = _best(sizes, losses, floors) if expected is None else np.array(expected, float)
    equal("(E, A, alpha)", np.array(got), expected, {"sizes": sizes, "losses": losses, "floors": floors},
          terms=len(sizes), condition=1e4)  # fmt: skip


@check("09.2", "losses 3, 2, 1.5 at sizes 1, 4, 16, on paper")
def _(fit_power_law):
    _fit(fit_power_law, [1, 4, 16], [3, 2, 1.5], [0, 0.5, 1, 1.25], (1, 2, 0.5))


@check("09.2", "one floor: nothing to choose")
def _(fit_power_law):
    _fit(fit_power_law, [10, 1000], [5, 1.04], [1], (1, 40, 1))


@check("09.2", "floors that are no floors are left out, wherever they stand")
def _(fit_power_law):
    _fit(fit_power_law, [1, 4, 16], [3, 2, 1.5], [1.5, 4, 1, 0, 2], (1, 2, 0.5))


@check("09.2", "twenty laws with noise")
def _(fit_power_law):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = np.geomspace(1e2, 1e6, 4 + seed % 5)
        E, A, alpha = rng.uniform(0.5, 2), rng.uniform(5, 50), rng.uniform(0.2, 0.6)
        losses = (E + A * sizes**-alpha) * np.exp(0.03 * rng.standard_normal(len(sizes)))
        _fit(fit_power_law, sizes, losses, np.linspace(0, 2, 41))


# ---------------------------------------------------------------- 09.3 exact_match


def _runs(right, k):
    found = [bool(row[i : i + k].all()) for row in right for i in range(len(row) - k + 1)]
    return np.array([sum(found) / len(found), (right.sum() / right.size) ** k])


def _match(exact_match, right, k):
    right = frozen(np.asarray(right, bool))
    got = parts("exact_match", exact_match(right, k), 2)
    equal("(exact match, p ** k)", np.array(got, float), _runs(right, k), {"right": right, "k": k}, terms=right.size)


@check("09.3", "two exams of three steps, on paper")
def _(exact_match):
    _match(exact_match, [[1, 1, 0], [0, 1, 1]], 1)
    _match(exact_match, [[1, 1, 0], [0, 1, 1]], 2)


@check("09.3", "all right, all wrong, one run that fills the exam")
def _(exact_match):
    for value in (0, 1):
        _match(exact_match, np.full((3, 4), value), 2)
    _match(exact_match, [[1, 1, 1], [1, 0, 1]], 3)


@check("09.3", "errors in clumps")
def _(exact_match):
    _match(exact_match, np.repeat([[1, 0, 1, 1], [0, 1, 1, 0]], 4, axis=1), 4)


@check("09.3", "30 random exams of different sizes")
def _(exact_match):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        right = rng.uniform(size=(rng.integers(1, 9), rng.integers(3, 12))) < 0.8
        _match(exact_match, right, int(rng.integers(1, right.shape[1] + 1)))


# ---------------------------------------------------------------- 09.4 compute_optimal


def _split(compute_optimal, flops, *constants):
    got = parts("compute_optimal", compute_optimal(flops, *constants), 2)
    return np.array([float(value) for value in got]), {"flops": flops, "A, alpha, B, beta": constants}


@check("09.4", "two equal terms, on paper: as many tokens as parameters")
def _(compute_optimal):
    got, given = _split(compute_optimal, 600.0, 3.0, 0.5, 3.0, 0.5)
    equal("(N, D)", got, np.array([10.0, 10.0]), given, condition=100)


@check("09.4", "6 N D is the budget")
def _(compute_optimal):
    for flops in (1e3, 1e12, 1e21):
        got, given = _split(compute_optimal, flops, 406.4, 0.34, 410.7, 0.28)
        equal("6 N D", np.float64(6 * got[0] * got[1]), np.float64(flops), given, condition=100)


@check("09.4", "no other split of the budget has less loss")
def _(compute_optimal):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        A, B, (alpha, beta) = rng.uniform(1, 500), rng.uniform(1, 500), rng.uniform(0.2, 0.8, 2)
        flops = 10 ** rng.uniform(6, 24)
        (N, D), given = _split(compute_optimal, flops, A, alpha, B, beta)
        if not (N > 0 and D > 0):
            raise Wrong(f"N and D must be above 0, got {N:.4g} and {D:.4g}, of {given}")
        ours = A * N**-alpha + B * D**-beta
        for factor in (0.5, 0.9, 1.1, 2.0):
            other = A * (N * factor) ** -alpha + B * (D / factor) ** -beta
            if other <= ours:
                raise Wrong(f"of {given}: N = {N:.4g}, D = {D:.4g} has {ours:.8g} above E, {factor} N has {other:.8g}")


@check("09.4", "the constants of Hoffmann et al.: tokens grow faster than parameters")
def _(compute_optimal):
    constants = (406.4, 0.34, 410.7, 0.28)
    small, large = (_split(compute_optimal, flops, *constants)[0] for flops in (1e21, 1e24))
    growth = np.array([1e3 ** (0.28 / 0.62), 1e3 ** (0.34 / 0.62)])
    equal("growth of (N, D) from 1e21 to 1e24 FLOPs", large / small, growth, condition=100)
