# %% [markdown]
# # Optimisation
#
# A gradient says which way is down; how far do you go, and how much do you trust the gradients of before? Three
# answers, SGD, momentum and AdamW, by hand and on a bowl where every rate is known on paper. Then a small GPT loses its
# good habits one by one: betas, clipping, warm-up, accumulation, initial scale, GELU. Not all of them are missed.
#
# | | |
# | --- | --- |
# | You will be able to | write AdamW, choose a rate by its limit, tell which habit a bad loss curve lacks |
# | Builds on | 01, gradients; 04, a GPT on real text |
# | Time | 50 minutes to read, 20 s to run |
# | Files to open | `optim/sgd.py`, `optim/adamw.py`, `optim/schedule.py`, `nn/initialization.py` |
# | Source | Polyak 1964; Kingma & Ba 2015; Loshchilov & Hutter 2019; Glorot & Bengio 2010; He et al. 2015 |
# | Documents | D5 §1.3, β = (0.9, 0.98), warm-up and cosine; D5 §4.3, Xavier, GELU; D2 §2.2 |
# | Next | 08, sampling: what to do with a model once it has learned |

# %%
import math
import sys
from functools import partial

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, optim
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.nn.initialization import normal, xavier_uniform
from minitransformer.visualization import lines
from minitransformer.visualization.style import FAINT, INK, PALETTE, WIDTH, drawing, new_figure, save

lesson = Lesson("07", "Optimisation")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claims
#
# D5 §1.3 gives a recipe in two lines: AdamW with $\beta = (0.9, 0.98)$ in place of SGD, a linear warm-up and a cosine
# decay. D5 §4.3 adds Xavier's uniform initialisation and GELU in place of ReLU. Nothing is said of *why*, nor of what
# happens without.
#
# ## 2. Numbers on paper
#
# Two weights, $\theta = (1, 1)$. The first has large gradients that change sign, the second small ones that agree:
# $g_1 = (4, 0.02)$, then $g_2 = (-2, 0.02)$. Rate 0.1, momentum 0.5, $\beta = (0.5, 0.5)$, weight decay 0.5:
#
# | | after $g_1$ | after $g_2$ |
# | --- | --- | --- |
# | SGD: $\theta - 0.1 g$ | (0.6, 0.998) | (0.8, 0.996) |
# | momentum: $u = 0.5 u + g$ | $u = (4, 0.02)$: (0.6, 0.998) | $u = (0, 0.03)$: (0.6, 0.995) |
# | AdamW: $m$, $v$ | (2, 0.01), (8, 0.0002) | (0, 0.015), (6, 0.0003) |
# | divided by $1 - 0.5^t$: $\hat m$, $\hat v$ | (4, 0.02), (16, 0.0004) | (0, 0.02), (8, 0.0004) |
# | $\theta (1 - 0.1 \cdot 0.5) - 0.1\, \hat m / \sqrt{\hat v}$ | (0.85, 0.85) | (0.8075, 0.7075) |
#
# Momentum cancels what disagrees and adds up what agrees. AdamW does that too, and then takes the *size* away: its
# first step is the rate times the sign. The second weight, whose gradient is 200 times smaller, went farthest.
#
# ## 3. The formulas, the naive code, the engine
#
# $$u \leftarrow \mu u + g,\quad \theta \leftarrow \theta - \eta u \qquad\qquad
# m \leftarrow \beta_1 m + (1-\beta_1) g,\quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,\quad
# \theta \leftarrow (1 - \eta\lambda)\theta - \eta\, \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}$$


# %%
def naive_momentum(theta, g, u, rate, mu):
    """All (n,) -> theta, u after one step; mu = 0 is SGD."""
    u = mu * u + g  # (n,)
    return theta - rate * u, u  # (n,), (n,)


def naive_adamw(theta, g, m, v, t, rate, beta1, beta2, decay=0.0, eps=1e-8):
    """theta, g, m, v (n,), step t from 1 -> theta, m, v after it. The betas may be numbers or (n,)."""
    m = beta1 * m + (1 - beta1) * g  # (n,): running mean of the gradients
    v = beta2 * v + (1 - beta2) * g**2  # (n,): running mean of their squares
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)  # (n,) each: the zeros they started from are taken out
    return theta * (1 - rate * decay) - rate * m_hat / (np.sqrt(v_hat) + eps), m, v


def walk(make, gradient, steps, start=(1.0, 1.0)):
    """An engine's optimiser over `steps` steps -> the path (steps + 1, n). gradient: (step, theta (n,)) -> (n,)."""
    theta = mt.tensor(np.array(start), requires_grad=True)
    optimizer, path = make([theta]), [theta.data.copy()]
    for step in range(steps):
        theta.grad = np.asarray(gradient(step, theta.data), float)
        optimizer.step()
        path.append(theta.data.copy())
    return np.array(path)


given = np.array([[4, 0.02], [-2, 0.02]])
two = partial(walk, gradient=lambda step, theta: given[step], steps=2)
np.testing.assert_allclose(two(partial(optim.SGD, lr=0.1))[1:], [[0.6, 0.998], [0.8, 0.996]])
np.testing.assert_allclose(two(partial(optim.SGD, lr=0.1, momentum=0.5))[1:], [[0.6, 0.998], [0.6, 0.995]])
paper = two(partial(optim.AdamW, lr=0.1, betas=(0.5, 0.5), weight_decay=0.5))
np.testing.assert_allclose(paper[1:], [[0.85, 0.85], [0.8075, 0.7075]], rtol=1e-6)  # eps moves the seventh digit

noise = mt.Generator(0).normal((20, 5), dtype=np.float64) * 10.0 ** np.arange(-2, 3)  # sizes 0.01 to 100
ours, adams, u, m, v = np.ones(5), np.ones(5), np.zeros(5), np.zeros(5), np.zeros(5)
for t, g in enumerate(noise, 1):
    ours, u = naive_momentum(ours, g, u, 0.01, 0.9)
    adams, m, v = naive_adamw(adams, g, m, v, t, 0.01, 0.9, 0.98, decay=0.1)
twenty = partial(walk, gradient=lambda step, theta: noise[step], steps=20, start=np.ones(5))
np.testing.assert_allclose(twenty(partial(optim.SGD, lr=0.01, momentum=0.9))[-1], ours)
np.testing.assert_allclose(twenty(partial(optim.AdamW, lr=0.01, betas=(0.9, 0.98), weight_decay=0.1))[-1], adams)
lesson.step("On paper, in NumPy and in the engine: the same steps")

# %% [markdown]
# ## 4. Predict: a bowl that is 25 times as steep one way
#
# $f = \tfrac12 (x^2 + 25 y^2)$ from $(1, 1)$. SGD multiplies $x$ by $1 - \eta$ and $y$ by $1 - 25\eta$ at every step.
# So it holds only below $\eta = 2/\lambda_{max} = 0.08$. How large is $|y|$ after 50 steps at 0.084, just above?
#
# The best rate makes both factors alike in size, $\eta = 2/(1 + 25)$: $|1 - \eta| = |1 - 25 \eta| = 12/13$. After how
# many steps has the distance to the minimum fallen to a thousandth?
#
# Momentum does best at $\eta = (2/(1 + \sqrt{25}))^2 = 1/9$ and $\mu = ((\sqrt{25} - 1)/(\sqrt{25} + 1))^2 = 4/9$
# (beyond SGD's limit). Then $x_t = (1 + \tfrac t3)(\tfrac23)^t$, $y_t = (1 + \tfrac{5t}3)(-\tfrac23)^t$. And here?
#
# Last, AdamW with a rate of 0.1. Its path: how far does $y$ ever stray from $x$?

# %%
lesson.step("A bowl: curvatures 1 and 25")
steep = np.array([1.0, 25.0])
down = partial(walk, gradient=lambda step, theta: steep * theta)


def steps_to_a_thousandth(path):
    return int(np.argmax(np.linalg.norm(path, axis=1) < 1e-3 * np.linalg.norm(path[0])))


guess_limit = lesson.predict("|y| after 50 steps of SGD at rate 0.084 (limit 0.08)?", 1.1**50)
guess_sgd = lesson.predict("steps of SGD at its best rate, 1/13, to a thousandth of the way?", 87, "steps")
guess_momentum = lesson.predict("steps with the best momentum?", 26, "steps")
guess_adam = lesson.predict("AdamW's path: largest |x - y| in 40 steps?", 0)
guess_limit.see(abs(down(partial(optim.SGD, lr=0.084), steps=50)[-1, 1]), allowed=(117.3, 117.5))
paths = {
    "SGD, a quarter of the limit": down(partial(optim.SGD, lr=0.02), steps=100),
    "SGD, best rate": down(partial(optim.SGD, lr=1 / 13), steps=100),
    "best momentum": down(partial(optim.SGD, lr=1 / 9, momentum=4 / 9), steps=100),
    "AdamW, rate 0.1": down(partial(optim.AdamW, lr=0.1, weight_decay=0.0), steps=100),
}
guess_sgd.see(steps_to_a_thousandth(paths["SGD, best rate"]), allowed=(87, 87))
guess_momentum.see(steps_to_a_thousandth(paths["best momentum"]), allowed=(26, 26))
guess_adam.see(np.abs(np.diff(paths["AdamW, rate 0.1"][:41])).max(), allowed=(0, 1e-6))
gusts = mt.Generator(1).normal((3000, 2), dtype=np.float64)
noisy = [walk(partial(optim.AdamW, lr=lr), lambda step, theta: steep * theta + gusts[step], 3000) for lr in (0.1, 0.01)]
coarse, fine = (np.linalg.norm(path[-1000:], axis=1).mean() for path in noisy)
lesson.say(f"  AdamW with noisy gradients stays {coarse:.2f} away on average at a rate of 0.1, {fine:.2f} at 0.01")
t = np.arange(101)[:, None]
formula = (1 + t * [1 / 3, 5 / 3]) * np.array([2 / 3, -2 / 3]) ** t  # (101, 2)
np.testing.assert_allclose(paths["best momentum"], formula, atol=1e-12)

with drawing():
    figure = new_figure(WIDTH, 5.0)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-0.6, 1.15, 150), np.linspace(-2.2, 2.2, 150))
    for axes, (name, path), colour in zip(panels.flat, paths.items(), PALETTE):
        axes.contour(x, y, 0.5 * (x**2 + 25 * y**2), levels=0.5 * 1.8 ** np.arange(-4, 8), colors=FAINT, linewidths=0.8)
        axes.plot(*path[:41].T, color=colour, marker="o", markersize=3, linewidth=1.2)
        axes.plot(0, 0, "+", color=INK, markersize=9)
        axes.set_title(f"{name}: {np.linalg.norm(path[40]):.1g} away", fontsize=9.5)
    figure.supxlabel("x, curvature 1", fontsize=9)
    figure.supylabel("y, curvature 25", fontsize=9)
    figure.suptitle("Forty steps down a bowl, from (1, 1)", x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    save(figure, lesson.figure("paths"))

# %% [markdown]
# With curvatures $1 : \kappa$ SGD needs about $\kappa/2$ steps for a factor e, momentum $\sqrt\kappa/2$. AdamW does not
# see $\kappa$ at all here, as each weight is divided by its own gradients: that works because the bowl lies along the
# axes. But where gradients are noisy, as those of batches are, its steps keep the length of the rate however near the
# minimum is. *That is why the rate has to decay.*
#
# ## 5. Predict: the size of a gradient, and weight decay
#
# Five weights with gradients of $10^{-6}, 10^{-3}, 1, 10^3, 10^6$. In AdamW's first step, how many times as far as the
# shortest does the longest go? ($\epsilon$ is $10^{-8}$, and there is a hint in that.)
#
# Weight decay: Adam with L2 adds $\lambda\theta$ to the *gradient*; AdamW shrinks the *weight*, beside the step. Two
# weights, both 1, with gradients $\pm 10$ and $\pm 0.1$ in turn, so that nothing but the decay moves them far. 1,000
# steps at a rate of 0.01 with $\lambda = 0.1$. What is left of each in AdamW, $0.999^{1000}$? With L2 the pull
# $\lambda\theta$ is divided by $\sqrt{\hat v}$, about 10 for the first: $0.9999^{1000}$. And for the second?

# %%
lesson.step("Sizes do not count; decay must stand beside")
guess_ratio = lesson.predict("AdamW's first step: the longest over the shortest of the five?", 1.01, "times")
guess_decoupled = lesson.predict("left of the weight with large gradients, AdamW?", math.exp(-1))
guess_l2 = lesson.predict("left of it, Adam with L2?", math.exp(-0.1))
first = walk(partial(optim.AdamW, lr=0.1), lambda step, theta: 10.0 ** np.arange(-6, 7, 3), 1, np.zeros(5))[-1]
guess_ratio.see(first.min() / first.max(), allowed=(1.009, 1.011))
swing = np.array([10.0, 0.1])
plain, decayed = (partial(optim.AdamW, lr=0.01, weight_decay=decay) for decay in (0.0, 0.1))
adamw_left = walk(decayed, lambda step, theta: swing * (-1) ** step, 1000)
l2_left = walk(plain, lambda step, theta: swing * (-1) ** step + 0.1 * theta, 1000)
guess_decoupled.see(adamw_left[-1, 0], allowed=(0.35, 0.38))
guess_l2.see(l2_left[-1, 0], allowed=(0.88, 0.92))
names = ("AdamW, gradients ±10", "AdamW, gradients ±0.1", "L2, gradients ±10", "L2, gradients ±0.1")
lines(np.arange(1001), dict(zip(names, (*adamw_left.T, *l2_left.T))), xlabel="step", ylabel="weight", markers=False,
      title="Through the gradient, decay spares large gradients", path=lesson.figure("weight_decay"))  # fmt: skip

# %% [markdown]
# ## 6. Predict: how long does $v$ remember?
#
# $1/(1-\beta_2)$ steps, more or less: 50 for D5's 0.98 (which is Vaswani et al.'s, with Adam), 1,000 for the usual
# 0.999. Let the gradient be 1 at every step, and once 1,000. Then $v$ leaps to $(1-\beta_2) 10^6$, 20,000 or 1,000, and
# falls by $\beta_2$ a step; a step is $1/\sqrt{v}$. It is back to half of normal when $v = 4$, that is when the leap is
# down to 3. For 0.98 that takes $\ln(20000/3) / {-\ln 0.98}$ steps. How many, and how many for 0.999?
#
# But the short memory has given the outlier twenty times the weight. After how many steps is it, at last, the better
# one: $20000 \cdot 0.98^t = 1000 \cdot 0.999^t$?

# %%
lesson.step("One huge gradient, two memories")
guess_short = lesson.predict("steps until a step is back to half its normal length, β₂ = 0.98?", 436, "steps")
guess_long = lesson.predict("and with 0.999?", 5806, "steps")
guess_cross = lesson.predict("steps until 0.98 takes the longer steps?", 156, "steps")
BEFORE, theta, m, v, moved = 5000, np.zeros(2), np.zeros(2), np.zeros(2), []
for t in range(1, 12_001):
    after, m, v = naive_adamw(theta, 1000.0 if t == BEFORE else 1.0, m, v, t, 1.0, 0.9, np.array([0.98, 0.999]))
    moved.append(theta - after)
    theta = after
moved = np.array(moved)[BEFORE - 1 :]  # (steps, 2), from the huge gradient on
half = [100 + int(np.argmax(moved[100:, i] > 0.5)) for i in (0, 1)]  # the first 100 still carry the outlier's m
guess_short.see(half[0], allowed=(430, 442))
guess_long.see(half[1], allowed=(5700, 5900))
crossing = int(np.argmax(moved[:, 0] > moved[:, 1]))
guess_cross.see(crossing, allowed=(150, 162))
lines(np.arange(len(moved)), {"β₂ = 0.98": moved[:, 0], "β₂ = 0.999": moved[:, 1]}, xlabel="steps after the outlier",
      ylabel="length of a step (before: 1)", logy=True, markers=False,
      title="The short memory slows down more, and forgets sooner", path=lesson.figure("memory"))  # fmt: skip

# %% [markdown]
# And how far is $\theta$ thrown? $m$ leaps to 100 and fades by 0.9 a step, 1,000 in sum, divided by $\sqrt v$:
# $1/\sqrt{1-\beta_2}$ rates, 7 for 0.98 and 32 for 0.999. Now a model that has something to lose.
#
# ## 7. One bad batch, and clipping
#
# A GPT of two layers, width 64, on the default text, a letter a token. It never sees a text twice here, so its training
# loss is an honest one. At step 60 the gradients of one batch are multiplied by 1,000. How much does that cost at the
# end, 160 steps later, with either $\beta_2$? And if gradients are clipped to a norm of 1 first?

# %%
text = data.default_corpus()
tokenizer = data.CharTokenizer.train(text)
train_ids, held_out = data.split(np.array(tokenizer.encode(text)))
V, T, STEPS = tokenizer.vocab_size, 32, 220


def new_model(seed=0):
    return GPT(GPTConfig(V, context=T, layers=2, heads=4, width=64), mt.Generator(seed))


def train(rate=lambda step: 3e-3, steps=STEPS, beta2=0.98, clip=None, bad=None, prepare=lambda model: model, seed=0):
    """A new GPT under `rate(step)` -> (model, losses (steps,)). bad: the step whose gradient is 1,000 times as long."""
    model, losses = new_model(seed), []
    prepare(model)
    batches = data.BatchSampler(train_ids, 16, T, mt.Generator(100 + seed))
    optimizer = optim.AdamW(optim.decay_groups(model, 0.1), betas=(0.9, beta2))
    for step in progress(steps, "training"):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        loss = model.loss(*next(batches))
        (loss * (1000 if step == bad else 1)).backward()
        if clip:
            optim.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return model, np.array(losses)


def end(run):
    return float(run[1][-30:].mean())


def curves(runs, name, title):
    """Loss curves, means of 10 steps."""
    at = np.arange(len(next(iter(runs.values()))[1]) // 10) * 10 + 5.5
    lines(at, {label: run[1].reshape(-1, 10).mean(axis=1) for label, run in runs.items()}, xlabel="step",
          ylabel="loss (nats a character)", markers=False, title=title, path=lesson.figure(name))  # fmt: skip


lesson.step("One bad batch")
guess_hit = lesson.predict("loss at the end above the undisturbed run's, β₂ = 0.98?", 0.5, "nats")
guess_memory = lesson.predict("0.999 minus 0.98, both hit?", 0, "nats")
guess_clipped = lesson.predict("clipped, above the undisturbed run's?", 0, "nats")
hit = {"hit, 0.98": train(bad=60), "hit, 0.999": train(bad=60, beta2=0.999), "hit, clipped": train(bad=60, clip=1.0)}
hit["undisturbed"] = train()
calm = end(hit["undisturbed"])
guess_hit.see(end(hit["hit, 0.98"]) - calm, allowed=(0.1, 1.5))
guess_memory.see(end(hit["hit, 0.999"]) - end(hit["hit, 0.98"]), allowed=(-0.5, 0.6))
guess_clipped.see(end(hit["hit, clipped"]) - calm, allowed=(-0.5, 0.15))
curves(hit, "bad_batch", "One gradient 1,000 times too long: clipped, it does no harm")
lesson.claim(
    "D5 §1.3: AdamW's β = (0.9, 0.98)",
    measured=f"after an outlier steps are back to half length in {half[0]} steps (0.999: {half[1]:,}), but shorter "
    f"than 0.999's for {crossing}; a GPT ends at " + ", ".join(f"{end(run):.2f} ({name})" for name, run in hit.items()),
    setup=f"constant gradients; GPT 2 layers, width 64, {STEPS} steps, one gradient × 1,000 at step 60, one seed",
    verdict="reproduced" if end(hit["hit, 0.999"]) - end(hit["hit, 0.98"]) > 0.1 else "not at this scale",
)

# %% [markdown]
# The memories differ as on paper; the losses do not show it. The harm is in the throw, and for the 156 steps after it
# the short memory goes slower. What protects is clipping: $g \leftarrow g \cdot \min(1, 1/\lVert g \rVert)$, one factor
# for *all* weights, so the direction stays. (It changes a run without a fault too: early gradients are long.)
#
# ## 8. Predict: warm-up and cosine
#
# Adam's first steps are a full rate long, though $v$ rests on a gradient or two: 0.01 is half the initial 0.02. With
# warm-up the rate climbs there in 30 steps; with a cosine it falls to 0 at the end. What is the warm-up worth?

# %%
lesson.step("Warm-up and cosine, at a high rate")
PEAK, WARMUP = 1e-2, 30
schedules = {
    "neither": lambda step: PEAK,
    "cosine alone": lambda step: optim.warmup_cosine(step, peak=PEAK, warmup=0, total=STEPS),
    "warm-up alone": lambda step: PEAK * min(1.0, (step + 1) / (WARMUP + 1)),
    "both": lambda step: optim.warmup_cosine(step, peak=PEAK, warmup=WARMUP, total=STEPS),
}
lines(range(STEPS), {name: [rate(step) for step in range(STEPS)] for name, rate in schedules.items()}, xlabel="step",
      ylabel="rate", markers=False, title="Four schedules, one peak", path=lesson.figure("schedule"))  # fmt: skip
guess_warmup = lesson.predict("mean loss of the runs without warm-up minus that with?", 0.3, "nats")
runs = {name: [train(rate, seed=seed) for seed in (0, 1)] for name, rate in schedules.items()}
ends = {name: np.array([end(run) for run in pair]) for name, pair in runs.items()}
neither, cosine, warm, both = ends.values()  # (seeds,) each
guess_warmup.see((neither + cosine - warm - both).mean() / 2, allowed=(0.02, 1.2))
curves({name: (None, np.mean([losses for _, losses in pair], axis=0)) for name, pair in runs.items()},
       "warmup", "At a high rate the start decides (mean of two seeds)")  # fmt: skip
lesson.claim(
    "D5 §1.3, D2 §2.2: linear warm-up, then cosine decay",
    measured=", ".join(f"{name} {pair.mean():.2f}" for name, pair in ends.items()) + " nats; above both, by seed: "
    f"without warm-up {np.round(cosine - both, 2)}, without cosine {np.round(warm - both, 2)}",
    setup=f"GPT 2 layers, width 64, peak {PEAK}, warm-up {WARMUP} of {STEPS} steps, no clipping, means of 2 seeds",
    verdict="reproduced" if min(*(cosine - both), *(warm - both)) > 0.1 else "partly",
)

# %% [markdown]
# Seeds of one recipe differ too, section 10 shows by how much: a gain below that proves nothing.
#
# ## 9. Predict: accumulation is the big batch
#
# A batch of 16 does not fit? Four of 4: gradients add up in `.grad` anyway. Each loss is a mean over its own quarter,
# so it has to be divided by 4 to be a quarter of the mean over all. Who forgets that: how long is the gradient, in
# lengths of the right one? SGD would leap. Would AdamW notice?

# %%
lesson.step("Accumulation")
guess_same = lesson.predict("largest relative difference to the big batch's gradient?", 0)
guess_four = lesson.predict("length of the gradient if nothing is divided?", 4, "times")
model, (ids, targets) = new_model(), next(data.BatchSampler(train_ids, 16, T, mt.Generator(5)))


def gradient(parts, share):
    """The gradient of all weights (P,), accumulated over so many parts of the batch, each loss times `share`."""
    model.zero_grad()
    for some_ids, some_targets in zip(np.split(ids, parts), np.split(targets, parts)):
        (model.loss(some_ids, some_targets) * share).backward()
    return np.concatenate([parameter.grad.ravel() for parameter in model.parameters()])


whole, quarters, forgotten = gradient(1, 1.0), gradient(4, 0.25), gradient(4, 1.0)
guess_same.see(np.abs(quarters - whole).max() / np.abs(whole).max(), allowed=(0, 1e-5))
guess_four.see(np.linalg.norm(forgotten) / np.linalg.norm(whole), allowed=(3.999, 4.001))

# %% [markdown]
# AdamW would not: four times the gradient, the same step. But a clip at 1 now bites at 1/4, and the logged norm is
# wrong. Where parts have different numbers of targets, a mean of means is no longer the mean: exercise 07.4.
#
# ## 10. Predict: Xavier, and twenty layers
#
# $z = Wh$ has variance $n \operatorname{Var}W \cdot E[h^2]$. Forward wants $\operatorname{Var}W = 1/\text{fan in}$,
# backward $1/\text{fan out}$; Xavier takes $2/(\text{in} + \text{out})$, here $1/n$. ReLU sets half of $z$ to 0, and
# with it half of $E[h^2]$. Through 20 layers of width 256: what power of ten is left with Xavier and ReLU? And of tanh
# with GPT-2's 0.02, where $n \operatorname{Var}W = 256 \cdot 0.0004 \approx 0.1$? He's answer to ReLU is
# $\operatorname{Var}W = 2/n$. Its power of ten?


# %%
def signals(init, relu, layers=20, n=256):
    """Mean squares after 0, 1, … layers, (layers + 1,) each: of the signal going up, of the gradient going down."""
    generator = mt.Generator(4)
    h, kept = generator.normal((n, n), dtype=np.float64), []  # (N, n): n inputs of width n
    forward = [np.mean(h**2)]
    for _ in range(layers):
        W = init((n, n), generator).astype(np.float64)  # (n, n)
        z = h @ W.T  # (N, n)
        h, slope = (np.maximum(z, 0), z > 0) if relu else (np.tanh(z), 1 - np.tanh(z) ** 2)  # (N, n) each
        kept.append((W, slope))
        forward.append(np.mean(h**2))
    dh = generator.normal(h.shape, dtype=np.float64)  # (N, n): a random cotangent
    backward = [np.mean(dh**2)]
    for W, slope in reversed(kept):
        dh = (dh * slope) @ W  # (N, n)
        backward.append(np.mean(dh**2))
    return np.array(forward), np.array(backward)


lesson.step("Twenty layers, five beginnings")
guess_half = lesson.predict("mean square after 20 layers of ReLU with Xavier: what power of ten?", -6.0)
guess_tiny = lesson.predict("tanh with 0.02: what power of ten?", -19.8)
guess_he = lesson.predict("ReLU with He: what power of ten?", 0)
beginnings = {
    "tanh from 0.02": signals(partial(normal, std=0.02), relu=False),
    "tanh from Xavier": signals(xavier_uniform, relu=False),
    "tanh from 4 × Xavier": signals(partial(xavier_uniform, gain=4.0), relu=False),
    "ReLU from Xavier": signals(xavier_uniform, relu=True),
    "ReLU from He": signals(partial(xavier_uniform, gain=math.sqrt(2)), relu=True),
}
guess_half.see(np.log10(beginnings["ReLU from Xavier"][0][-1]), allowed=(-6.7, -5.3))
guess_tiny.see(np.log10(beginnings["tanh from 0.02"][0][-1]), allowed=(-20.6, -19.2))
guess_he.see(np.log10(beginnings["ReLU from He"][0][-1]), allowed=(-0.7, 0.7))
for way, (title, xlabel) in enumerate((("Signals, on their way up", "layers from the input"),
                                       ("Gradients, on their way down", "layers from the output"))):  # fmt: skip
    figure = lines(np.arange(21), {name: both[way] for name, both in beginnings.items()}, xlabel=xlabel, logy=True,
                   ylabel="mean square", title=title)  # fmt: skip
    figure.axes[0].set_xticks(range(0, 21, 5))
    save(figure, lesson.figure(("signals", "gradients")[way]))

# %% [markdown]
# Too small, and both vanish. Too large, and tanh hides it: the signal looks healthy, saturated near ±1, while the
# gradient grows at every layer (where tanh is not flat, its slope is multiplied by large weights).
#
# A GPT is not such a stack: each block *adds* to a stream and normalises what it reads. So how much does the start
# still matter there? And GELU, $x\,\Phi(x)$, against ReLU, $\max(x, 0)$? ReLU has a kink at 0 and a slope of exactly 0
# below: a unit that no input makes positive never learns again. Three seeds of each. How far apart are the two losses,
# and how many ReLU units get no gradient at all from 8,192 held-out letters?

# %%
lesson.step("Xavier and GELU in a GPT")


def redraw(model, init):
    """Draw all matrices of the blocks anew."""
    generator = mt.Generator(7)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name.startswith("blocks"):
            parameter.data[...] = init(parameter.shape, generator)


def use_relu(model):
    for block in model.blocks:
        layer = block.feed_forward
        layer.forward = lambda x, layer=layer: layer.down(mt.relu(layer.up(x)))


def unreached(model):
    """Share of hidden units whose bias gets a gradient of exactly 0 from 8,192 held-out letters."""
    model.zero_grad()
    model.loss(*next(data.evaluation_batches(held_out, 256, T))).backward()
    return float(np.mean([block.feed_forward.up.bias.grad == 0 for block in model.blocks]))


guess_gelu = lesson.predict("loss with ReLU minus loss with GELU, mean of 3 seeds?", 0, "nats")
guess_silent = lesson.predict("ReLU units that get no gradient, in %?", 4, "%")
short = partial(optim.warmup_cosine, peak=5e-3, warmup=20, total=120)
brief = partial(train, short, steps=120, clip=1.0)
gelu, relu = ([brief(seed=seed, **other) for seed in range(3)] for other in ({}, {"prepare": use_relu}))
xavier, large = (brief(prepare=partial(redraw, init=i)) for i in (xavier_uniform, partial(normal, std=1.0)))
gaps = np.array([end(r) - end(g) for r, g in zip(relu, gelu)])
guess_gelu.see(gaps.mean(), allowed=(-0.25, 0.25))
silent, silent_gelu = unreached(relu[0][0]), unreached(gelu[0][0])
guess_silent.see(100 * silent, allowed=(0, 40))
seeds = [end(run) for run in gelu]
lesson.say(
    f"  The same recipe from three seeds ends at {min(seeds):.2f} to {max(seeds):.2f}: smaller differences are chance."
)
lesson.say(f"  Units that get no gradient: ReLU {silent:.1%}, GELU {silent_gelu:.1%}")
z = np.linspace(-4, 3, 281)
x = mt.tensor(z, requires_grad=True)
y = mt.gelu(x)
y.backward(np.ones_like(z))
shapes = {"ReLU": np.maximum(z, 0), "GELU": y.data, "slope of ReLU": 1.0 * (z > 0), "slope of GELU": x.grad}
lines(z, shapes, xlabel="x", ylabel="value, slope", title="GELU rounds the kink and lets a little through below 0",
      path=lesson.figure("gelu"))  # fmt: skip
lesson.claim(
    "D5 §4.3: Xavier-uniform initialisation",
    measured="left of 1 after 20 layers: "
    + ", ".join(f"{n} {b[0][-1]:.1g}" for n, b in beginnings.items())
    + f"; a GPT ends at {end(xavier):.2f} nats (from 0.02 {seeds[0]:.2f}, from size 1 {end(large):.2f})",
    setup="width 256; GPT 2 layers, width 64, pre-norm, 120 steps, one seed",
    verdict="partly",
)
lesson.claim(
    "D5 §4.3: GELU in place of ReLU",
    measured=f"loss with ReLU minus GELU {', '.join(f'{gap:+.2f}' for gap in gaps)} nats (mean {gaps.mean():+.2f}); "
    f"units without gradient {silent:.1%}, with GELU {silent_gelu:.1%}",
    setup="GPT 2 layers, width 64, 120 steps, seeds 0 to 2",
    verdict="reproduced" if (gaps > 0).all() else "not at this scale",
)

# %% [markdown]
# ## 11. Break it
#
# **No bias correction.** $m$ and $v$ start at 0, so they are too small at first: by $1-\beta_1^t$ and $1-\beta_2^t$.
# Who leaves out the division takes a first step of $0.1/\sqrt{0.001}$ rates with 0.999. How long?
#
# **`zero_grad` forgotten.** Then $g$ is the *sum* of all gradients: $u \leftarrow u + g$, momentum with $\mu = 1$,
# which loses no energy. On the bowl at SGD's best rate, how far out is it still in steps 200 to 300, beside the start?
#
# **`zero_grad` between backward and step.** How far do 20 steps go?

# %%
lesson.step("Break it")
guess_first = lesson.predict("first step without bias correction, β₂ = 0.999?", 0.1 / math.sqrt(0.001), "rates")
guess_swing = lesson.predict("largest distance in steps 200 to 300, in that of the start, zero_grad forgotten?", 1.2)
guess_still = lesson.predict("distance gone in 20 steps, zero_grad too late?", 0)
t = np.arange(1, 101)
uncorrected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)  # of constant gradients; with correction every step is 1
guess_first.see(uncorrected[0], allowed=(3.15, 3.17))
lesson.say(f"  and it grows to {uncorrected.max():.1f} rates at t = {t[uncorrected.argmax()]}; a warm-up would hide it")


def forgetful(order, steps):
    """SGD on the bowl with a training loop in this order -> path (steps + 1, 2)."""
    theta = mt.tensor(np.ones(2), requires_grad=True)
    optimizer, path = optim.SGD([theta], lr=1 / 13), [np.ones(2)]
    parts = {"zero": optimizer.zero_grad, "step": optimizer.step,
             "backward": lambda: (0.5 * steep * theta * theta).sum().backward()}  # fmt: skip
    for _ in range(steps):
        for part in order.split():
            parts[part]()
        path.append(theta.data.copy())
    return np.array(path)


swinging, theta, u = forgetful("backward step", 300), np.ones(2), np.zeros(2)
for _ in range(300):
    theta, u = naive_momentum(theta, steep * theta, u, 1 / 13, 1.0)
np.testing.assert_allclose(swinging[-1], theta, atol=1e-9)  # the two are the same
np.testing.assert_array_equal(forgetful("zero backward step", 100), down(partial(optim.SGD, lr=1 / 13), steps=100))
guess_swing.see(np.linalg.norm(swinging[200:], axis=1).max() / math.sqrt(2), allowed=(1, 1.5))
guess_still.see(np.abs(forgetful("backward zero step", 20) - 1).max(), allowed=(0, 0))

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | the first steps throw the model away | no bias correction, no warm-up | first step = rate × sign of $g$ |
# | loss swings and never settles | `zero_grad` forgotten | two equal batches give equal gradients |
# | loss stays at $\ln V$, to the last digit | `zero_grad` before `step` | weights must move |
# | large gradients, weights hardly decay | L2 inside Adam | with $g = 0$ a weight shrinks by $1 - \eta\lambda$ |

# %%
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **If AdamW ignores $\kappa$, is all solved?** Only along the axes. Turn the bowl by 45° and both weights see one
#   mixture; dividing each by its own size then helps little. Shampoo and Muon treat whole matrices for that reason.
# * **How do I choose the rate?** Double it until the loss no longer falls smoothly, go back by two or three. The limit
#   $2/\lambda_{max}$ holds for nets too, with a curvature that changes during training.
# * **Where is the document wrong?** Nowhere here, but it gives habits as rules: β₂ = 0.98 is one paper's choice, Xavier
#   is for tanh and linear layers, and GPT-2 starts at 0.02 without it.
#
# ## Exercises
#
# 1. `momentum_step(theta, g, u, *, rate, momentum, nesterov=False) -> (theta, u)`: new arrays, Nesterov's form too.
#    <details><summary>Hint</summary>Nesterov steps along `g + momentum * u`, with the new u.</details>
# 2. `adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay)`: in place, the engine's
#    kernel. Then a GPT trains with it. <details><summary>Hint</summary>`m[...] = …` writes into m.</details>
# 3. `warmup_cosine(steps, *, peak, warmup, total, floor=0.0)` for an array of steps, without a loop.
#    <details><summary>Hint</summary>`np.where`, and a progress that stops at 1.</details>
# 4. `accumulate(model, batches) -> float`: the big batch's gradients and loss from parts of different size.
#    <details><summary>Hint</summary>Weigh each part's loss by the targets that count in it.</details>
#
# ## Quiz
#
# 1. All gradients become 1,000 times as large. AdamW's steps are **(a)** 1,000 times as long, **(b)** the same,
#    **(c)** clipped. — (b): $m$ and $\sqrt v$ grow alike. (a) is SGD. (c): AdamW clips nothing.
# 2. A bowl has curvatures 1 and 100. SGD's rate must stay below **(a)** 2, **(b)** 0.2, **(c)** 0.02. — (c), $2/100$.
#    (a) looks at the flat side. (b) takes the root, which is momentum's gain in speed, not a limit.
# 3. Four parts of a batch, nothing divided, AdamW, no clipping. Training is **(a)** nearly unchanged, **(b)** four
#    times as fast, **(c)** unstable. — (a): only $\epsilon$ sees the size. (b) and (c) are SGD's.
# 4. ReLU layers start with Xavier's variance. After 20 of them the mean square is **(a)** about 1, **(b)** about a
#    millionth, **(c)** huge. — (b), $2^{-20}$. (a) needs He's factor 2. (c) would need more than that.

# %% [markdown] exercise="07.1"
# ### Exercise 07.1: `momentum_step`
#
# One step of SGD with momentum: $u \leftarrow \mu u + g$, then $\theta \leftarrow \theta - \eta u$. In Nesterov's form
# the step goes along $g + \mu u$ instead, with the new $u$: where the momentum is about to carry us, already. New
# arrays come back; the inputs stay as they were, and so does their dtype.
#
# ```python
# def momentum_step(theta, g, u, *, rate, momentum, nesterov=False):
#     """theta, g, u of one shape and dtype, numbers rate and momentum -> (theta, u) after the step, new arrays."""
#     raise NotImplementedError("the new u first, then the step along it, or along g + momentum * u")
# ```
#
# <details><summary>Hint 1</summary>Two lines; which of them needs the other's result?</details>
# <details><summary>Hint 2</summary>`u = momentum * u + g` makes a new array; `u *= momentum` would edit the
# caller's.</details>
# <details><summary>Hint 3</summary>`along = g + momentum * u if nesterov else u`, after u is new.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def momentum_step(theta, g, u, *, rate, momentum, nesterov=False):
#     u = momentum * u + g
#     along = g + momentum * u if nesterov else u
#     return theta - rate * along, u
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * a mean, not a sum: `u = momentum * u + g` → `u = momentum * u + (1 - momentum) * g`
# * the rate goes into u: `u = momentum * u + g` → `u = momentum * u + rate * g`
# * uphill: `theta - rate` → `theta + rate`
# * Nesterov always: `g + momentum * u if nesterov else u` → `g + momentum * u`
# * Nesterov never: `g + momentum * u if nesterov else u` → `u`
# * u without the gradient comes back: `* along, u` → `* along, u - g`
#
# </details>

# %% [markdown] exercise="07.2"
# ### Exercise 07.2: `adamw_step`
#
# AdamW as the engine calls it, for one parameter: `parameter`, `m` and `v` are edited in place, nothing is returned.
#
# $$m \leftarrow \beta_1 m + (1-\beta_1) g,\quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,\quad
# \theta \leftarrow \theta (1 - \eta\lambda) - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)$$
#
# ```python
# import numpy as np
#
#
# def adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
#     """Edit parameter, m and v, arrays of one shape and dtype, in place; the gradient is only read. step is t, from 1.
#
#     m̂ = m / (1 - beta1**step), v̂ = v / (1 - beta2**step). Works for any shape, () and empty ones too.
#     """
#     raise NotImplementedError("write the new m and v into m[...] and v[...], then move parameter[...]")
# ```
#
# <details><summary>Hint 1</summary>`m = …` binds a new name and leaves the caller's m alone; `m[...] = …` writes into
# it.</details>
# <details><summary>Hint 2</summary>The corrected m̂ and v̂ are for this step only: keep m and v as they are.</details>
# <details><summary>Hint 3</summary>The decay multiplies the parameter from before the step:
# `parameter[...] = parameter * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(v_hat) + eps)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
#     m[...] = beta1 * m + (1 - beta1) * gradient
#     v[...] = beta2 * v + (1 - beta2) * gradient**2
#     m_hat = m / (1 - beta1**step)
#     v_hat = v / (1 - beta2**step)
#     parameter[...] = parameter * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(v_hat) + eps)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no bias correction of m: `m_hat = m / (1 - beta1**step)` → `m_hat = m`
# * no bias correction of v: `v_hat = v / (1 - beta2**step)` → `v_hat = v`
# * the corrected m is kept: `m_hat = m / (1 - beta1**step)` → `m_hat = m[...] = m / (1 - beta1**step)`
# * L2 in place of decoupled decay: `m[...] = beta1 * m + (1 - beta1) * gradient` →
#   `gradient = gradient + weight_decay * parameter; weight_decay = 0; m[...] = beta1 * m + (1 - beta1) * gradient`
# * decay without the rate: `(1 - lr * weight_decay)` → `(1 - weight_decay)`
# * eps under the root: `(np.sqrt(v_hat) + eps)` → `np.sqrt(v_hat + eps)`
# * the caller's m is not written: `m[...] = beta1` → `m = beta1`
# * the betas swapped: `(1 - beta2**step)` → `(1 - beta1**step)`
#
# </details>
#
# Milestone: `train --kernels practice/adamw_step.py --steps 200`: a GPT learns by your optimiser.

# %% [markdown] exercise="07.3"
# ### Exercise 07.3: `warmup_cosine`
#
# The rates of many steps at once: up in a straight line, down along half a cosine, then the floor.
#
# ```python
# import numpy as np
#
#
# def warmup_cosine(steps, *, peak, warmup, total, floor=0.0):
#     """steps: integers (n,), counted from 0; 0 <= warmup < total -> rates (n,), float64, without a loop.
#
#     step < warmup:          peak (step + 1) / (warmup + 1)
#     warmup <= step < total: floor + (peak - floor) (1 + cos(π (step - warmup) / (total - warmup))) / 2
#     total <= step:          floor
#     """
#     raise NotImplementedError("both branches for all steps, and np.where to choose")
# ```
#
# <details><summary>Hint 1</summary>Compute the straight line and the cosine for every step, then choose by `steps <
# warmup`.</details>
# <details><summary>Hint 2</summary>Past the end the cosine would rise again: stop its progress at 1 with
# `np.minimum`.</details>
# <details><summary>Hint 3</summary>`progress = np.minimum(1, (steps - warmup) / (total - warmup))`; at 1 the cosine is
# -1 and the rate is the floor.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def warmup_cosine(steps, *, peak, warmup, total, floor=0.0):
#     rising = peak * (steps + 1) / (warmup + 1)
#     progress = np.minimum(1, (steps - warmup) / (total - warmup))
#     falling = floor + (peak - floor) * (1 + np.cos(np.pi * progress)) / 2
#     return np.where(steps < warmup, rising, falling)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the first step has rate 0: `peak * (steps + 1) / (warmup + 1)` → `peak * steps / max(1, warmup)`
# * the peak a step early: `(steps + 1) / (warmup + 1)` → `(steps + 1) / max(1, warmup)`
# * it rises again after the end: `np.minimum(1, (steps - warmup) / (total - warmup))` →
#   `(steps - warmup) / (total - warmup)`
# * progress is counted from step 0: `(steps - warmup) / (total - warmup)` → `steps / total`
# * the floor is added on top: `(peak - floor)` → `peak`
# * a whole cosine: `np.pi * progress` → `2 * np.pi * progress`
#
# </details>

# %% [markdown] exercise="07.4"
# ### Exercise 07.4: `accumulate`
#
# The batch does not fit, so it comes in parts, and they are not alike: other numbers of rows, and targets of −100,
# which do not count. Leave in `.grad` what one batch of all of them would leave, and return its loss. A part without
# any target that counts adds nothing, and `model.loss` refuses it.
#
# ```python
# def accumulate(model, batches):
#     """model.loss(ids, targets) is the mean over targets that are not -100; batches: a list of (ids, targets), each
#     (b, t) with b, t of its own -> float: the mean loss over all counted targets of all parts; there is one or more.
#
#     Afterwards the gradients are those of that mean alone: what lay in .grad before is gone.
#     """
#     raise NotImplementedError("zero_grad once, then for each part a backward of its loss times its share")
# ```
#
# <details><summary>Hint 1</summary>A mean of means is the mean only for parts of equal size. What weight makes it
# right?</details>
# <details><summary>Hint 2</summary>The share of a part: its number of targets `!= -100`, over that of all
# parts.</details>
# <details><summary>Hint 3</summary>`loss = model.loss(ids, targets) * share`, `loss.backward()`, and add up
# `loss.item()`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def accumulate(model, batches):
#     counts = [int((targets != -100).sum()) for _, targets in batches]
#     mean = 0.0
#     model.zero_grad()
#     for (ids, targets), count in zip(batches, counts):
#         if count:
#             loss = model.loss(ids, targets) * (count / sum(counts))
#             loss.backward()
#             mean += loss.item()
#     return mean
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * nothing is divided: `(count / sum(counts))` → `1.0`
# * a mean of means: `(count / sum(counts))` → `(1 / len(batches))`
# * targets that do not count are counted: `int((targets != -100).sum())` → `targets.size`
# * old gradients stay: `model.zero_grad()` → `pass`
# * only the last part's gradient: `loss.backward()` → `model.zero_grad(); loss.backward()`
# * the loss of the last part: `mean += loss.item()` → `mean = loss.item()`
#
# </details>
