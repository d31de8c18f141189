"""Lesson 07: momentum, AdamW as a kernel of one's own, the schedule, a big batch in parts."""

import numpy as np

from ... import kernels, optim
from ...kernels.numpy import adamw as definition
from ...models.gpt import GPT, GPTConfig
from ...random import Generator
from ...tensor import tensor
from . import Wrong, arrays, check, cost, equal, forbid, frozen, only, parts, shown

# ---------------------------------------------------------------- 07.1 momentum_step


def _momentum(momentum_step, theta, g, u, **options):
    """Compare one step with loops over single numbers; returns what came back."""
    mu, rate = options["momentum"], options["rate"]
    right = np.empty((2, *theta.shape), theta.dtype)
    for at in np.ndindex(theta.shape):
        new = mu * float(u[at]) + float(g[at])
        along = float(g[at]) + mu * new if options.get("nesterov") else new
        right[(0, *at)], right[(1, *at)] = float(theta[at]) - rate * along, new
    got = parts("momentum_step", momentum_step(theta, g, u, **options), 2)
    for name, ours, expected in zip(("theta", "u"), got, right):
        equal(name, ours, expected, {"theta": theta, "g": g, "u": u, **options})
    return got


@check("07.1", "two steps on paper: (4, 0.02), then (-2, 0.02)")
def _(momentum_step):
    theta, u = frozen(np.ones(2)), frozen(np.zeros(2))
    for g in ((4, 0.02), (-2, 0.02)):
        theta, u = _momentum(momentum_step, theta, frozen(np.array(g)), u, rate=0.1, momentum=0.5)
    equal("theta", theta, np.array([0.6, 0.995]))


@check("07.1", "Nesterov: u = 1, g = 2, momentum 0.5: along 2 + 0.5 * 2.5")
def _(momentum_step):
    theta, g, u = (frozen(np.array([x])) for x in (1.0, 2.0, 1.0))
    _momentum(momentum_step, theta, g, u, rate=0.5, momentum=0.5, nesterov=True)


@check("07.1", "any shape, ten steps, without momentum too")
def _(momentum_step):
    for seed, (shape, mu) in enumerate((((), 0.9), ((3,), 0.0), ((2, 3), 0.9), ((0, 2), 0.5))):
        theta, u, *gradients = arrays(seed, *[shape] * 12)
        for nesterov in (False, True):
            after = np.asarray(theta), np.asarray(u)
            for g in gradients:
                after = _momentum(momentum_step, *(after[0], g, after[1]), rate=0.1, momentum=mu, nesterov=nesterov)
                after = tuple(frozen(np.asarray(x)) for x in after)


@check("07.1", "float32 stays float32")
def _(momentum_step):
    _momentum(momentum_step, *arrays(9, *[(4,)] * 3, dtype=np.float32), rate=0.01, momentum=0.9, nesterov=True)


# ---------------------------------------------------------------- 07.2 adamw_step

forbid("07.2", "adamw_step")
OPTIONS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "weight_decay": 0.1}


def _adamw(adamw_step, parameter, gradients, **options):
    """Steps of the answer beside the definition's, from m = v = 0; every array is compared after each."""
    ours = [np.array(parameter), np.zeros_like(parameter), np.zeros_like(parameter)]
    right = [x.copy() for x in ours]
    for step, gradient in enumerate(gradients, 1):
        before = [x.copy() for x in ours]
        returned = adamw_step(ours[0], gradient, *ours[1:], step=step, **options)
        if returned is not None:
            raise Wrong(f"adamw_step edits in place and returns nothing, got {type(returned).__name__}")
        definition.adamw_step(right[0], gradient, *right[1:], step=step, **options)
        inputs = {"parameter": before[0], "gradient": gradient, "m": before[1], "v": before[2], "step": step, **options}
        for name, got, expected in zip(("m", "v", "parameter"), (*ours[1:], ours[0]), (*right[1:], right[0])):
            equal(name, got, expected, inputs, terms=step, condition=4)
    return ours[0]


@check("07.2", "two steps on paper: (4, 0.02), then (-2, 0.02)")
def _(adamw_step):
    gradients = [frozen(np.array(g)) for g in ((4, 0.02), (-2, 0.02))]
    options = {"lr": 0.1, "beta1": 0.5, "beta2": 0.5, "eps": 0.0, "weight_decay": 0.5}
    equal("parameter", _adamw(adamw_step, np.ones(2), gradients, **options), np.array([0.8075, 0.7075]))


@check("07.2", "the first step is the rate times the sign, for gradients from 1e-6 to 1e6")
def _(adamw_step):
    gradient = frozen(np.array([1e-6, -1e-3, 1.0, -1e3, 1e6]))
    _adamw(adamw_step, np.zeros(5), [gradient], **{**OPTIONS, "eps": 0.0})
    _adamw(adamw_step, np.zeros(5), [gradient], **OPTIONS)  # where eps begins to show


@check("07.2", "without gradients a weight shrinks by 1 - lr * weight_decay, and nothing else")
def _(adamw_step):
    got = _adamw(adamw_step, np.array([1.0, -2.0]), [frozen(np.zeros(2))] * 3, **OPTIONS)
    equal("parameter after three steps", got, np.array([1.0, -2.0]) * 0.99**3, OPTIONS)


@check("07.2", "any shape, twenty steps, other options")
def _(adamw_step):
    for seed, shape in enumerate(((), (3,), (2, 5), (0,), (2, 0, 3))):
        parameter, *gradients = arrays(seed, *[shape] * 21)
        for options in (OPTIONS, {"lr": 1e-3, "beta1": 0.8, "beta2": 0.999, "eps": 0.1, "weight_decay": 0.0}):
            _adamw(adamw_step, parameter, gradients, **options)


@check("07.2", "float32 stays float32")
def _(adamw_step):
    parameter, *gradients = arrays(6, *[(7,)] * 6, dtype=np.float32)
    _adamw(adamw_step, parameter, gradients, **OPTIONS)


@check("07.2", "inside the engine: optim.AdamW on a bowl")
def _(adamw_step):
    ends = []
    for mine in (adamw_step, definition.adamw_step):
        theta = tensor(np.array([1.0, -1.0]), requires_grad=True)
        optimizer = optim.AdamW([theta], lr=0.05, weight_decay=0.1)
        with only("adamw_step", mine):
            for _ in range(25):
                optimizer.zero_grad()
                (theta * theta * np.array([1.0, 25.0])).sum().backward()
                optimizer.step()
        ends.append(theta.data)
    equal("theta after 25 steps", *ends, terms=25, condition=100)


@cost("07.2", "1,000,000 parameters, float32", naive=definition.adamw_step, engine=kernels.adamw_step)
def _():
    state = [np.array(x) for x in arrays(0, *[(1_000_000,)] * 4, dtype=np.float32)]
    return (*state[:3], np.abs(state[3])), {**OPTIONS, "step": 3}


# ---------------------------------------------------------------- 07.3 warmup_cosine


def _schedule(warmup_cosine, steps, **options):
    steps = frozen(np.asarray(steps, np.int64))
    right = np.array([optim.warmup_cosine(int(step), **options) for step in steps], np.float64)
    equal("rates", warmup_cosine(steps, **options), right, {"steps": steps, **options}, condition=4)


@check("07.3", "warm-up of 1, 4 steps, on paper: 1, 2, then 2 (1 + cos)/2")
def _(warmup_cosine):
    _schedule(warmup_cosine, [0, 1, 2, 3, 4], peak=2.0, warmup=1, total=4)


@check("07.3", "no warm-up, a floor, and long after the end")
def _(warmup_cosine):
    _schedule(warmup_cosine, range(9), peak=1.0, warmup=0, total=8)
    _schedule(warmup_cosine, range(30), peak=1.0, warmup=3, total=10, floor=0.25)
    _schedule(warmup_cosine, range(6), peak=0.5, warmup=2, total=3, floor=0.5)


@check("07.3", "any steps in any order; none")
def _(warmup_cosine):
    _schedule(warmup_cosine, [70, 3, 3, 99, 0, 10_000], peak=3e-3, warmup=10, total=100, floor=3e-4)
    _schedule(warmup_cosine, [], peak=3e-3, warmup=10, total=100)


# ---------------------------------------------------------------- 07.4 accumulate


def _model(seed):
    return GPT(GPTConfig(vocab_size=5, context=6, layers=1, heads=2, width=4), Generator(seed)).to("float64")


def _part(seed, rows, length, hidden=()):
    """ids and targets (rows, length); the targets at the places of `hidden` do not count."""
    ids = np.random.default_rng(seed).integers(0, 5, (rows, length + 1))
    targets = ids[:, 1:].copy()
    for at in hidden:
        targets[at] = -100
    return frozen(ids[:, :-1]), frozen(targets)


def _gradients(model):
    """By name; nothing in .grad is a gradient of 0."""
    return {name: np.zeros(p.shape) if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}


def _one_by_one(model, batches):
    """(loss, gradients): every target that counts in a forward of its own, then the mean over all."""
    losses = []
    model.zero_grad()
    for ids, targets in batches:
        for at in zip(*np.nonzero(targets != -100)):
            alone = np.full(targets.shape, -100)
            alone[at] = targets[at]
            loss = model.loss(ids, alone)
            loss.backward()
            losses.append(loss.item())
    found = {name: gradient / len(losses) for name, gradient in _gradients(model).items()}
    model.zero_grad()
    return np.float64(np.mean(losses)), found


def _accumulated(accumulate, batches, seed=0, stale=False):
    model = _model(seed)
    loss, right = _one_by_one(model, batches)
    if stale:
        model.loss(*batches[0]).backward()  # a gradient that is to go
    inputs = {f"targets of part {i}": targets for i, (_, targets) in enumerate(batches)}
    equal("loss", accumulate(model, batches), loss, inputs, terms=30, condition=10)
    largest = max(np.abs(gradient).max() for gradient in right.values())
    for name, got in _gradients(model).items():
        error = np.abs(got - right[name]).max()
        if not error <= 1e-12 * largest:
            sizes = [targets.shape for _, targets in batches]
            raise Wrong(
                f"expected gradient of {name} = {shown(right[name])}\ngot {shown(got)}\n"
                f"worst: off by {error:.2g}, where the largest gradient is {largest:.2g}\nshapes of the parts: {sizes}"
            )


@check("07.4", "one part alone")
def _(accumulate):
    _accumulated(accumulate, [_part(0, 1, 2)])


@check("07.4", "equal parts")
def _(accumulate):
    _accumulated(accumulate, [_part(seed, 2, 3) for seed in range(4)])


@check("07.4", "parts with other numbers of rows and lengths")
def _(accumulate):
    _accumulated(accumulate, [_part(1, 3, 4), _part(2, 1, 4), _part(3, 2, 6)], seed=1)


@check("07.4", "targets of -100 do not count, nor does a part that has no others")
def _(accumulate):
    parts_ = [_part(4, 2, 3, [(0, 0), (0, 1), (1, 2)]), _part(5, 2, 3), _part(6, 1, 2, [(0, 0), (0, 1)])]
    _accumulated(accumulate, parts_, seed=2)


@check("07.4", "what lay in .grad before is gone")
def _(accumulate):
    _accumulated(accumulate, [_part(7, 1, 3), _part(8, 2, 2)], seed=3, stale=True)
