# %% [markdown]
# # The scaling curve
#
# Can you know how good a large model will be before you train it? Here you invent a language whose entropy you know,
# train the same GPT at six sizes, lay a curve through the losses, and name the loss of a larger one before it exists.
# Then you mark the same models by another measure, all right or nothing, and watch an ability "emerge" that was growing
# all along.
#
# | | |
# | --- | --- |
# | You will be able to | count FLOPs, fit and distrust a power law, tell an emergent ability from an emergent metric |
# | Builds on | 04, a GPT on real text |
# | Time | 35 minutes to read, 20 s to run |
# | Files to open | `minitransformer/models/gpt.py`, `optim/schedule.py` |
# | Source | Kaplan et al. 2020; Hoffmann et al. 2022 (Chinchilla); Wei et al. 2022; Schaeffer et al. 2023 (emergence) |
# | Documents | D4 §1.2, an S-shaped curve of performance over size, and abilities that emerge from 1B to 10B |
# | Next | `minitransformer train --help`: make your own sweep on your own text |

# %%
import itertools
import math
import sys

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import optim
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import bars
from minitransformer.visualization.style import FAINT, INK, MUTED, PALETTE, WIDTH, drawing, new_figure, save

lesson = Lesson("09", "The scaling curve")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claim
#
# D4 §1.2 draws performance over the number of parameters as an S: below a billion it grows linearly, between one and
# ten billion abilities such as reasoning in several steps emerge, beyond a hundred billion little more is gained
# (claims C17, C30). Our models are ten thousand times smaller, and more. But a *shape* can be looked for at any scale,
# and so can the way in which a measure makes one.
#
# The literature says something else than an S. Loss over size is a *power law* above a floor:
#
# $$L(N) = E + \frac{A}{N^\alpha}$$
#
# $E$ is what no model can know, the entropy of the text. On log axes $L - E$ is a straight line, with no step in it.
#
# ## 2. Numbers on paper
#
# Three sizes, each four times the one before, $N = 1, 4, 16$, have the losses 3, 2 and 1.5. The gains are 1 and ½: each
# quadrupling wins half of what the last one won, so $4^{-\alpha} = \tfrac12$ and $\alpha = \tfrac12$. All gains still
# to come are ¼ + ⅛ + … = ½. So the floor is $E = 1.5 - 0.5 = 1$, and $A = 2$: the law is $1 + 2/\sqrt N$. Size 64
# will have the loss 1.25. *Three losses, and a fourth is known that nobody has measured.*
#
# The cost: a block of width $D = 2$ has $12 D^2 + 13 D = 74$ parameters. A matrix of $n$ numbers costs $2n$ FLOPs a
# token (multiply, add) going forward and twice that going back, so to train on 3 tokens takes
# $6 \cdot 74 \cdot 3 = 1332$: the rule $C = 6ND$, where $D$ for once means tokens.
#
# And a measure. A model that answers half of all questions has $\tfrac1{256}$ of a chance to get 8 in a row right; with
# 90 % it has 43 %. The first did not fail: it was asked for eight things at once.

# %%
lesson.step("On paper: losses 3, 2, 1.5 at sizes 1, 4, 16")
paper_sizes, paper_losses = np.array([1.0, 4.0, 16.0]), np.array([3.0, 2.0, 1.5])  # (3,) each
won, won_next = -np.diff(paper_losses)
paper_alpha = math.log(won / won_next) / math.log(4)
paper_floor = paper_losses[2] - won_next**2 / (won - won_next)  # minus all gains to come, a geometric series
lesson.say(f"  alpha {paper_alpha}, E {paper_floor}; at size 64: {paper_floor + 2 / 64**paper_alpha}")
lesson.say(f"  8 in a row: {0.5**8:.4f} with half of them right, {0.9**8:.2f} with 90 %")
assert (paper_alpha, paper_floor) == (0.5, 1.0) and 12 * 2**2 + 13 * 2 == 74

# %% [markdown]
# ## 3. The formula, the naive code, the engine
#
# **Fit.** For a given floor $E$, $\ln(L - E) = \ln A - \alpha \ln N$ is a line, and least squares find it. So try many
# floors, and keep the one whose curve misses the losses least. With loops, and for all floors at once:


# %%
def naive_fit(sizes, losses, floors):
    """sizes (n,), losses (n,), floors (g,) all below the least loss -> (E, A, alpha)."""
    best = (math.inf,)
    x = [math.log(N) for N in sizes]  # (n,)
    for E in floors:
        y = [math.log(loss - E) for loss in losses]  # (n,)
        x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)  # numbers
        slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y)) / sum((a - x_mean) ** 2 for a in x)
        A = math.exp(y_mean - slope * x_mean)  # a number
        missed = sum((E + A * N**slope - loss) ** 2 for N, loss in zip(sizes, losses))  # a number
        best = min(best, (missed, E, A, -slope))
    return best[1:]


def fit(sizes, losses, floors=None):
    """The same for all floors at once; by default 2,000 from 0 to just below the least loss."""
    sizes, losses = np.asarray(sizes, float), np.asarray(losses, float)
    floors = np.linspace(0, losses.min(), 2000, endpoint=False) if floors is None else floors
    x, y = np.log(sizes), np.log(losses - floors[:, None])  # (n,), (g, n)
    alpha = -(y - y.mean(1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # (g,)
    A = np.exp(y.mean(1) + alpha * x.mean())  # (g,)
    curves = floors[:, None] + A[:, None] * sizes ** -alpha[:, None]  # (g, n)
    best = ((curves - losses) ** 2).sum(1).argmin()
    return float(floors[best]), float(A[best]), float(alpha[best])


def law(N, E, A, alpha):
    return E + A * np.asarray(N, float) ** -alpha


grid = np.linspace(0, 1.4, 141)
np.testing.assert_allclose(naive_fit(paper_sizes, paper_losses, grid), fit(paper_sizes, paper_losses, grid))
np.testing.assert_allclose(fit(paper_sizes, paper_losses, grid), (1, 2, 0.5), rtol=1e-9)

# %% [markdown]
# **A language with a known floor.** 64 symbols, and a secret table: each symbol follows from the two before it,
# $x_{t+1} = \text{table}[x_{t-1}, x_t]$, a sum in an arithmetic that nobody knows. One symbol in eight is a *misprint*,
# drawn from a Zipf distribution ($q_s \propto 1/s$, as words are), from which the table's entries come too. So some
# pairs are met all the time, and most of the 4,096 hardly ever, and there is always something left to learn.
#
# Since we wrote the text, we know its entropy: after a pair with the answer $a$, the next symbol is $s$ with
# probability $\pi_s = \tfrac78 [s = a] + \tfrac18 q_s$, and $E$ is the mean of $-\sum_s \pi_s \ln \pi_s$. For the
# same reason the loss is measured against $\pi$ itself and not against symbols drawn from it, which takes luck out.

# %%
V, T, B, STEPS, MISPRINT = 64, 32, 32, 400, 1 / 8
zipf = 1 / np.arange(1, V + 1)  # (V,)
zipf /= zipf.sum()


def symbols(generator, shape):
    return np.searchsorted(zipf.cumsum()[:-1], generator.uniform(shape))


table = symbols(mt.Generator(5), (V, V))


def write(generator, count):
    """count texts of T + 1 symbols -> ids (count, T + 1); the first two symbols of each are free."""
    ids, misprint = symbols(generator, (count, T + 1)), generator.uniform((count, T + 1)) < MISPRINT
    for t in range(2, T + 1):
        ids[:, t] = np.where(misprint[:, t], ids[:, t], table[ids[:, t - 2], ids[:, t - 1]])
    return ids


held_out = write(mt.Generator(99), 256)  # (256, T + 1)
answers = table[held_out[:, :-2], held_out[:, 1:-1]]  # (256, T - 1)
truth = (1 - MISPRINT) * np.eye(V)[answers] + MISPRINT * zipf  # (256, T - 1, V)
ENTROPY = float(-(truth * np.log(truth)).sum(axis=-1).mean())
naive_entropy = np.mean([-sum(p * math.log(p) for p in truth[i, t]) for i in range(4) for t in range(T - 1)])
np.testing.assert_allclose(naive_entropy, -(truth[:4] * np.log(truth[:4])).sum(axis=-1).mean())
lesson.step("The language")
lesson.say("  " + " ".join(f"{s:2}" for s in held_out[0, :20]) + " …")
lesson.say(f"  entropy {ENTROPY:.3f} nats a symbol; guessing by frequency costs {-(zipf * np.log(zipf)).sum():.2f}")


# %% [markdown]
# **Count.** One block, widths from 8 to 96. As in Kaplan et al., $N$ counts the block and not the tables of symbols and
# positions. How many is that for the widest, $D = 96$? And what does $6ND$ leave out? It counts the block's matrices
# alone. A forward step also multiplies by the table to get logits, $2VD$ FLOPs a token, and makes and uses attention
# scores, $4TD$ (all $T$ keys counted). For $D = 8$, what share of the FLOPs is that?


# %%
def new_model(width, seed):
    """Matrices start with variance 1 / inputs: the usual 0.02 suits wide models, and would leave narrow ones asleep."""
    model = GPT(GPTConfig(V, context=T, layers=1, heads=4, width=width), mt.Generator(seed))
    for name, p in model.named_parameters():
        if p.ndim == 2:
            p.data *= 0.2 / 0.02 if "embedding" in name else 1 / (math.sqrt(p.shape[1]) * p.data.std())
    return model


def in_blocks(model):
    return sum(p.size for name, p in model.named_parameters() if name.startswith("blocks."))


lesson.step("Counting")
guess_size = lesson.predict("parameters in one block of width 96?", 12 * 96**2 + 13 * 96)
guess_share = lesson.predict("share of the FLOPs that 6ND leaves out at width 8, in %?", 57, "%")
guess_size.see(in_blocks(new_model(96, 0)), allowed=(111_840, 111_840))
for width in (96, 8):
    model = new_model(width, 0)
    matrices = sum(2 * p.size for name, p in model.named_parameters() if p.ndim == 2 and "blocks" in name)
    rest = 2 * V * width + 4 * T * width  # logits, attention
    counted = 2 * in_blocks(model)
    lesson.say(f"  width {width:2}, FLOPs a token forward: matrices {matrices:,} (2N {counted:,}), rest {rest:,}")
guess_share.see(100 * rest / (rest + matrices), allowed=(57, 57.2))

# %% [markdown]
# More than half for the narrowest, a tenth for the widest: $6ND$ is a rule for large models.
#
# ## 4. The sweep
#
# Six widths, three of them twice (other weights, other text), 400 steps of 32 texts: 400,000 symbols for every size.
# Every size needs a rate that suits it: $0.02\sqrt{32/D}$ here. It was found by trying half of it and one and a half
# times as much at widths 8, 24 and 96: half is worse at each, more changes little. And every run follows its cosine *to
# the end*; why that matters, section 8 shows.

# %%
SEEDS = {8: (0, 1), 12: (0,), 16: (0, 1), 24: (0, 1), 32: (0,), 48: (0,)}  # width: its runs
texts = {seed: write(mt.Generator(100 + seed), STEPS * B) for seed in (0, 1)}  # (STEPS · B, T + 1) each


def loss_of(model):
    """Cross-entropy against the true probabilities of the held-out texts, in nats a symbol; at least ENTROPY."""
    with model.evaluating():
        logp = mt.log_softmax(model(held_out[:, :-1])).numpy()[:, 1:]  # (256, T - 1, V)
    return float(-(truth * logp).sum(axis=-1).mean())


def train(width, seed=0, readings=1):
    """(model, its loss halfway, its loss at the end); readings: how many times it goes through its texts."""
    model, halfway, steps, peak = new_model(width, seed), None, STEPS * readings, 0.02 * math.sqrt(32 / width)
    optimizer = optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for step in progress(steps, f"width {width}"):
        if step == steps // 2:
            halfway = loss_of(model)
        for group in optimizer.param_groups:
            group["lr"] = optim.warmup_cosine(step, peak=peak, warmup=steps // 10, total=steps)
        ids = texts[seed][step % STEPS * B :][:B]
        targets = ids[:, 1:].copy()
        targets[:, 0] = -100  # the second symbol is free: nothing to learn
        optimizer.zero_grad()
        model.loss(ids[:, :-1], targets).backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, halfway, loss_of(model)


lesson.step(f"Six sizes, nine runs of {STEPS} steps")
guess_alpha = lesson.predict("alpha? (each 4 times the size leaves 4^-alpha of what can be learned)", 0.45)
guess_floor = lesson.predict("floor E of the fitted curve, in nats?", round(ENTROPY, 2), "nats")
runs = {(width, seed): train(width, seed) for width, seeds in SEEDS.items() for seed in seeds}
sizes = np.array([in_blocks(new_model(width, 0)) for width in SEEDS])  # (6,)
measured = [[runs[width, seed][2] for seed in seeds] for width, seeds in SEEDS.items()]
losses = np.array([np.mean(found) for found in measured])  # (6,)
E, A, alpha = fit(sizes, losses)
lesson.say("  width       N    FLOPs     fit     loss")
for width, N, found, fitted in zip(SEEDS, sizes, measured, law(sizes, E, A, alpha)):
    each = "  ".join(f"{loss:.3f}" for loss in found)
    lesson.say(f"  {width:5} {N:7,}  {6 * N * STEPS * B * T:.1e}  {fitted:.3f}   {each}")
guess_alpha.see(alpha, allowed=(0.3, 0.65))
guess_floor.see(E, allowed=(0.6, 0.92))
without_one = [fit(np.delete(sizes, i), np.delete(losses, i))[0] for i in range(len(sizes))]
lesson.say(f"  L(N) = {E:.3f} + {A:.1f} / N^{alpha:.2f}; the entropy is {ENTROPY:.3f}")
lesson.say(f"  floors with one size left out: {min(without_one):.2f} to {max(without_one):.2f}")

# %% [markdown]
# The curve was told nothing of the language. That its floor comes out near the entropy is a finding: from the *bend* of
# six losses, all well above it, one reads what an endless model would pay. Near, not at; we shall come back to it.
#
# ## 5. Predict: two sizes that do not exist yet
#
# Now the question of this lesson. Two larger models, 1.8 and 4 times the largest so far. The curve says what they will
# have. Would you bet on it? Would you bet the same on both?

# %%
lesson.step("Two larger models")
FAR = (64, 96)
far_sizes = np.array([in_blocks(new_model(width, 0)) for width in FAR])
promised = law(far_sizes, E, A, alpha)
guesses = [lesson.predict(f"loss at width {width}, N = {N:,}?", round(loss, 3), "nats")
           for width, N, loss in zip(FAR, far_sizes, promised)]  # fmt: skip
runs |= {(width, 0): train(width) for width in FAR}
seen = np.array([runs[width, 0][2] for width in FAR])
for guess, loss, promise in zip(guesses, seen, promised):
    guess.see(loss, allowed=(promise - 0.05, promise + 0.05))
scatter = max(np.ptp(found) for found in measured)
misses = seen - promised
lesson.say(f"  missed by {misses[0]:+.3f} and {misses[1]:+.3f}; two runs of one size differ by up to {scatter:.3f}")

# %% [markdown]
# Losses of models that did not exist, read off a curve: this is how large runs are planned. Hold the misses beside the
# difference of two runs of one size before you are impressed, or disappointed.
#
# Now the floor. It was found near the entropy, and partly by luck: leave out one size, and it moves. But are the
# entropy and the size all that bounds a model? 400,000 symbols cannot tell everything either. What would a perfect
# reader of the same texts pay? It knows the rules of the language, not its table, counts each pair's followers, and
# weighs each possible answer by Bayes' rule: $w_a \propto q_a \prod_s \pi_s(a)^{n_s}$. No model can be expected to do
# better with these texts, whatever its size.


# %%
def perfect_reader(ids):
    """Texts (count, T + 1) -> probabilities (V, V, V) of what follows each pair, the best that can be known."""
    counts = np.zeros((V, V, V))
    np.add.at(counts, (ids[:, :-2], ids[:, 1:-1], ids[:, 2:]), 1)
    w = np.log(zipf) + counts * np.log((1 - MISPRINT + MISPRINT * zipf) / (MISPRINT * zipf))  # (V, V, V), up to a sum
    w = np.exp(w - w.max(axis=-1, keepdims=True))
    return (1 - MISPRINT) * w / w.sum(axis=-1, keepdims=True) + MISPRINT * zipf


reader = perfect_reader(texts[0])[held_out[:, :-2], held_out[:, 1:-1]]  # (256, T - 1, V)
reader_loss = float(-(truth * np.log(reader)).sum(axis=-1).mean())
lesson.say(f"  a perfect reader of the same texts: {reader_loss:.3f}, {reader_loss - ENTROPY:.3f} above the entropy")
assert ENTROPY < reader_loss < seen.min()


def draw_scaling(path):
    x = np.geomspace(700, 250_000, 200)
    with drawing():
        figure = new_figure(WIDTH, 3.5)
        for i, (floor, title) in enumerate(((0, "Loss bends towards a floor"), (E, "Above that floor: a line"))):
            axes = figure.add_subplot(1, 2, i + 1)
            axes.set(xscale="log", xlabel="parameters in the block, N", title=title)
            axes.plot(x, law(x, E, A, alpha) - floor, color=PALETTE[0], label="fit to the six sizes")
            for N, found in zip(sizes, measured):
                axes.plot([N] * len(found), np.array(found) - floor, "o", color=PALETTE[0], markersize=4)
            axes.plot(far_sizes, seen - floor, "D", color=PALETTE[1], markersize=5, label="trained afterwards")
            if floor:
                axes.set(yscale="log", ylim=(0.03, 1.7), ylabel=f"loss − {E:.2f} (nats a symbol)")
                axes.set_yticks([0.03, 0.1, 0.3, 1], labels=["0.03", "0.1", "0.3", "1"])
            else:
                axes.set(ylim=(0.65, 1.95), ylabel="loss (nats a symbol)")
                axes.plot(far_sizes[0], twice, "s", color=PALETTE[2], markersize=5, label="width 64, texts read twice")
                axes.axhline(E, color=PALETTE[0], linewidth=1, linestyle=(0, (4, 3)), label="floor of the fit, E")
                axes.axhline(ENTROPY, color=MUTED, linewidth=1, label="entropy of the language")
                axes.legend(frameon=False, fontsize=8, labelcolor=INK)
            axes.grid(axis="y")
            axes.set_xticks([1e3, 1e4, 1e5], labels=["1,000", "10,000", "100,000"])
            axes.minorticks_off()
        save(figure, path)


# %% [markdown]
# The texts tell nearly everything. So let a model read them *twice*: width 64, once more from the beginning, with twice
# the steps. By $6ND$ that costs 0.9 of what width 96 cost. Which of the two will be better, and what will its loss be?

# %%
guess = lesson.predict("loss of width 64 after two readings of the same texts?", 0.85, "nats")
twice = train(64, readings=2)[2]
guess.see(twice, allowed=(reader_loss, 0.9))
cost = 2 * far_sizes[0] / far_sizes[1]
lesson.say(f"  one reading {seen[0]:.3f}; width 96, one reading {seen[1]:.3f}; two cost {cost:.2f} of its FLOPs")
assert twice < seen[1]
draw_scaling(lesson.figure("scaling"))

# %% [markdown]
# No new text, less computing than the larger model, and a lower loss: 400 steps do not get it all out. So there are
# three limits and not one: what can be known, what the size can hold ($A/N^\alpha$), and what the training has brought
# in; a fit over size alone knows nothing of the third. Hoffmann et al. 2022 write the third as $B/D^\beta$ with $D$
# tokens, found it neglected in most large models of the day, and that size and tokens should grow alike. A curve over
# size alone, at fixed training, must flatten; that is no law of large models.
#
# ## 6. Another measure of the same models
#
# An exam in several steps: begin with a symbol; at every step an operand is given, the result is looked up in the table
# and carried on: $c_i = \text{table}[c_{i-1}, y_i]$. A reckoning of $k$ steps is *right* if every step is. It is the
# multi-step reasoning of D4, as small as can be. Where the model gets one step right with probability $p$, and steps
# do not know of one another, that is $p^k$.
#
# How many reckonings of 8 steps will the smallest model solve, how many the largest?

# %%
LENGTHS = (1, 2, 4, 8, 16)


def exam(generator, count):
    """Reckonings of 16 steps without misprints: ids (count, 33), symbols c₀ y₁ c₁ y₂ c₂ …"""
    ids = symbols(generator, (count, 33))
    for t in range(2, 33, 2):
        ids[:, t] = table[ids[:, t - 2], ids[:, t - 1]]
    return ids


questions = exam(mt.Generator(98), 512)


def steps_right(model):
    """(count, 16) of true and false: was this step answered right, given the right result of the step before?"""
    with model.evaluating():
        return model(questions[:, :-1]).numpy()[:, 1::2].argmax(axis=-1) == questions[:, 2::2]


def exact_match(right, k):
    """The share of all k steps in a row that are right throughout: right (count, n) -> a number."""
    return float(np.lib.stride_tricks.sliding_window_view(right, k, axis=1).all(axis=-1).mean())


lesson.step("The exam: k steps in a row, all of them right")
models = {width: runs[width, 0][0] for width in (*SEEDS, *FAR)}
all_sizes = np.concatenate([sizes, far_sizes])
right = {width: steps_right(model) for width, model in models.items()}
p = np.array([right[width].mean() for width in models])  # (8,)
lesson.say(f"  one step: width 8 is right in {p[0]:.0%}, width 96 in {p[-1]:.0%}")
guess_small = lesson.predict("reckonings of 8 steps right at width 8, in %?", 0, "%")
guess_large = lesson.predict("reckonings of 8 steps right at width 96, in %?", round(100 * p[-1] ** 8, 1), "%")
matches = np.array([[exact_match(right[width], k) for width in models] for k in LENGTHS])  # (5, 8)
guess_small.see(100 * matches[3, 0], allowed=(0, 1))
guess_large.see(100 * matches[3, -1], allowed=(100 * p[-1] ** 8 - 10, 100 * p[-1] ** 8 + 10))
lesson.say("  width  " + "".join(f"   k = {k:2}    p^k" for k in LENGTHS))
for j, width in enumerate(models):
    row = "".join(f"   {matches[i, j]:6.1%} {p[j] ** k:6.1%}" for i, k in enumerate(LENGTHS))
    lesson.say(f"  {width:5}  {row}")
assert np.abs(matches - p ** np.array(LENGTHS)[:, None]).max() < 0.06

# %% [markdown]
# The same eight models. By $k = 1$ there is steady progress from the first. By $k = 8$ there is next to nothing for the
# three smallest, and then an ability appears. (The dots lie a little above $p^k$: common results make easy questions,
# and these come in company. So the steps do know of one another.) No model knows which of the two you wrote down. The
# loss saw it coming, and so did $p$; only an exam that pays for nothing but perfection is blind to it.
#
# How far can it be pushed? Continue the errors, $1 - p$, as a power law of size (this is arithmetic, not a
# measurement), and raise to the power of $k$. Half of the reckonings are right where $p^k = \tfrac12$, roughly
# $1 - p = \ln 2/k$: a longer exam puts the leap where you like.

# %%
_, error_scale, error_alpha = fit(all_sizes, 1 - p, floors=np.zeros(1))
half = {k: (error_scale / (1 - 0.5 ** (1 / k))) ** (1 / error_alpha) for k in LENGTHS}
lesson.say(f"  1 - p is about {error_scale:.1f} / N^{error_alpha:.2f}; half the reckonings would be right at")
lesson.say("  " + ", ".join(f"N = {size:.1e} for k = {k}" for k, size in half.items()))


def draw_exam(path):
    x = np.geomspace(800, 2e8, 300)
    continued = np.clip(1 - error_scale * x**-error_alpha, 0, 1)
    with drawing():
        figure = new_figure(WIDTH, 3.5)
        left, far = figure.subplots(1, 2, sharey=True)
        for k, row, colour in zip(LENGTHS, matches, PALETTE):
            left.plot(all_sizes, 100 * p**k, color=colour, linewidth=1, linestyle=(0, (3, 2)))
            left.plot(all_sizes, 100 * row, "o", color=colour, markersize=4, label=f"k = {k}")
            far.plot(x, 100 * continued**k, color=colour)
        far.axvspan(x[0], all_sizes[-1], color=FAINT, alpha=0.5, linewidth=0)
        left.set_title("Measured (dots) and p^k")
        far.set_title("The same, continued by arithmetic")
        left.set_ylabel("k steps in a row all right (%)")
        left.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")
        far.annotate("measured", (1e4, 100), ha="center", va="top", fontsize=8, color=MUTED)
        for axes, ticks in ((left, (3, 4, 5)), (far, (3, 4, 5, 6, 7, 8))):
            axes.set(xscale="log", xlabel="parameters in the block, N", ylim=(-3, 103))
            names = [f"{10**n:,}" if n < 6 else f"{10 ** (n - 6)} M" for n in ticks]
            axes.set_xticks([10.0**n for n in ticks], labels=names)
            axes.minorticks_off()
            axes.grid(axis="y")
        save(figure, path)


draw_exam(lesson.figure("exact_match"))

# %% [markdown]
# Is the growth itself smooth because each question is? Look at what a model knows: for each of the 4,096 pairs, the
# probability that it gives to the right answer. Symbols are sorted by frequency; the top left corner is common.


# %%
def draw_known(path, widths=(8, 24, 96)):
    pairs = np.stack(np.divmod(np.arange(V * V), V), axis=1)  # (V², 2)
    with drawing():
        figure = new_figure(WIDTH, 2.9)
        panels = figure.subplots(1, len(widths), sharey=True)
        for axes, width in zip(panels, widths):
            with models[width].evaluating():
                believed = mt.softmax(models[width](pairs)[:, 1]).numpy()  # (V², V)
            known = believed[np.arange(V * V), table.ravel()].reshape(V, V)
            image = axes.imshow(known, vmin=0, vmax=1 - MISPRINT, cmap="viridis")
            axes.set_title(f"width {width}: mean {known.mean():.2f}")
            axes.set_xlabel("the symbol before")
            lesson.say(f"  width {width:2}: the right answer gets {known[:8, :8].mean():.2f} for the 8 × 8 most common "
                       f"pairs, {known[32:, 32:].mean():.2f} for the rarest quarter")  # fmt: skip
        panels[0].set_ylabel("the symbol before that")
        bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
        bar.set_label("probability of the right answer")
        bar.outline.set_visible(False)
        save(figure, path)


lesson.step("What is known: the right answer's probability, pair by pair")
draw_known(lesson.figure("known"))

# %% [markdown]
# Single questions are learned much at once, common ones first. A power law of frequencies, learned from its top
# downwards, adds up to a power law of losses: one way in which such lines come about. So "smooth" is the *mean* over
# questions of many frequencies; an ability that hangs on few of them may well come at once, under any measure. Lesson
# 05 has such a case: copying, over steps.
#
# ## 7. The claims

# %%
slopes = -np.diff(np.log(losses - ENTROPY)) / np.diff(np.log(sizes))
far_slope = -math.log((seen[1] - ENTROPY) / (seen[0] - ENTROPY)) / math.log(far_sizes[1] / far_sizes[0])
lesson.claim(
    "C17",
    measured=f"loss is a power law above a floor, {E:.2f} + {A:.0f}/N^{alpha:.2f} (floors with "
    f"one size left out {min(without_one):.2f}-{max(without_one):.2f}, the entropy is {ENTROPY:.2f}); it "
    f"foretold N = {far_sizes[0]:,} and {far_sizes[1]:,} to {abs(seen[0] - promised[0]):.3f} and "
    f"{abs(seen[1] - promised[1]):.3f} nats. No linear part and no threshold: 4 times the size leaves {4**-alpha:.0%} "
    f"of what is above the floor. Above the entropy it flattens at the end (slope {far_slope:.2f} to width 96, "
    f"{slopes.mean():.2f} up to 48) for want of steps: width 64 on the same texts twice has {twice:.2f}. An S appears "
    "in k steps in a row all right",
    setup=f"GPT 1 layer, widths 8-96 (N = {sizes[0]}-{far_sizes[1]:,} without tables), an invented language of 64 "
    f"symbols, {STEPS * B * T:,} symbols each, two runs of widths 8, 16 and 24",
    verdict="partly",
)
lesson.claim(
    "C30",
    measured=f"of the same models, one step is right in {p[0]:.0%} to {p[-1]:.0%}, never growing by more than "
    f"{100 * np.diff(p).max():.0f} points from size to size; 8 in a row in "
    f"{matches[3, 0]:.0%}, {matches[3, 2]:.0%} and {matches[3, -1]:.0%} at N = {all_sizes[0]:,}, {all_sizes[2]:,} and "
    f"{all_sizes[-1]:,}: a metric alone makes an ability seem to emerge, and p^k says where",
    setup="exam of k steps in that language; nothing here says what happens between 1B and 10B",
    verdict="not at this scale",
)

# %% [markdown]
# Some of the S survives, then: the curve must be flat where a model knows only how frequent symbols are, and where
# training or the entropy ends it. But "linear, then emergence" is not what lies between. As for 1B to 10B: a threshold
# in parameters cannot be a constant of nature if the length of the exam moves it.
#
# ## 8. Break it
#
# **No floor.** Fit $L = A/N^\alpha$, a straight line for the loss itself. It looks fine. What will it promise for ten
# million parameters? **Runs that were not finished.** To save time, stop the two largest of the six halfway: their rate
# is still high. Where does the fit then put width 64? **Too few points.** Three unknowns, three points: a curve goes
# right through them. Take every three of the six sizes. How wide is the range of their floors?

# %%
lesson.step("Break it")
guess_bare = lesson.predict("loss at 10 million parameters by a fit without floor, in nats?", 0.4, "nats")
guess_stopped = lesson.predict("how much too high is width 64 put, by two unfinished runs?", 0.2, "nats")
guess_range = lesson.predict("highest minus lowest floor, of all fits to three sizes, in nats?", 0.8, "nats")
bare = fit(sizes, losses, floors=np.zeros(1))
guess_bare.see(law(1e7, *bare), allowed=(0.15, 0.7))
impossible = (bare[1] / ENTROPY) ** (1 / bare[2])
lesson.say(f"  below the entropy, where nothing can be, from N = {impossible:,.0f}; with a floor it says "
           f"{law(1e7, E, A, alpha):.3f}")  # fmt: skip
unfinished = losses.copy()
unfinished[-2:] = [runs[width, 0][1] for width in (32, 48)]
stopped = fit(sizes, unfinished)
guess_stopped.see(law(far_sizes[0], *stopped) - seen[0], allowed=(0.03, 0.8))
lesson.say(f"  the unfinished ones have {unfinished[-2]:.2f} and {unfinished[-1]:.2f}; E rises to {stopped[0]:.2f}")
triples = [fit(sizes[list(three)], losses[list(three)]) for three in itertools.combinations(range(6), 3)]
floors = np.array([found[0] for found in triples])
guess_range.see(floors.max() - floors.min(), allowed=(0.3, 1.3))
ten_million = [law(1e7, *found) for found in triples]
lesson.say(f"  floors from {floors.min():.2f} to {floors.max():.2f}; the {len(floors)} fits promise "
           f"{min(ten_million):.2f} to {max(ten_million):.2f} for 10 million parameters")  # fmt: skip
bars(["fit to six sizes, with a floor", "no floor", "two runs stopped halfway"],
     [float(law(1e7, *found)) for found in ((E, A, alpha), bare, stopped)],
     xlabel="loss promised for 10 million parameters (nats a symbol)", highlight=["fit to six sizes, with a floor"],
     reference={"entropy": ENTROPY}, title="What three fits promise", path=lesson.figure("broken_fits"))  # fmt: skip
assert law(1e7, *bare) < ENTROPY

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | promises below what can be known | no floor in the fit | continue the curve a thousandfold: is it still possible? |
# | larger models seem not worth it | their runs were not finished | double the steps of the largest: does it move? |
# | a perfect fit that changes with every new point | as many unknowns as points | leave one size out, predict it |
# | an ability appears from nothing | all or nothing, over many steps | score single steps, or the loss |

# %%
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Why leave out the tables?** At width 8 they have $96 \cdot 8 = 768$ parameters, nearly as many as the block.
#   Counted in, the small sizes move right and $\alpha$ changes, so say which $N$ you mean: Kaplan et al. left them out,
#   Hoffmann et al. did not.
# * **Do large models have this α?** No: for text it is near 0.34 (Hoffmann et al.). It belongs to the data and the
#   training, not to the architecture alone. Draw the symbols from another distribution than Zipf's, and see.
# * **Then is emergence only a metric?** For many tasks that were reported, yes (Schaeffer et al. 2023). Not proved for
#   all: see the end of section 6. And if you must pass the whole exam, the leap is real to you.
# * **Why two runs a size?** To know what a difference means. One that two runs of one size also show means nothing.
#
# ## Exercises
#
# 1. `count_parameters(config: GPTConfig) -> tuple[int, int]`: (in the blocks, outside them).
#    <details><summary>Hint</summary>$L(12 D^2 + 13 D)$, and the tables with the last norm.</details>
# 2. `fit_power_law(sizes, losses, floors) -> tuple[float, float, float]`: the floor, A and α that miss least.
#    <details><summary>Hint</summary>For each floor a straight line through logarithms.</details>
# 3. `exact_match(right: np.ndarray, k: int) -> tuple[float, float]`: the share of k in a row, and $p^k$.
#    <details><summary>Hint</summary>`sliding_window_view`; then make the errors come in clumps, and compare.</details>
# 4. `compute_optimal(flops, A, alpha, B, beta) -> tuple[float, float]`: the $N$, $D$ of least loss with $6ND$ = flops.
#    <details><summary>Hint</summary>Put $D = C/6N$ into the loss and set its derivative to 0.</details>
#
# ## Quiz
#
# 1. Losses 4, 3, 2.5 at $N$, $4N$, $16N$. The floor is **(a)** 0, **(b)** 2, **(c)** 2.25. — (b): the gains 1, ½, ¼, …
#    leave ½. (a) forgets that they shrink. (c) is the *next* loss.
# 2. Twice the parameters and twice the tokens cost **(a)** 2 times, **(b)** 4 times, **(c)** 8 times the FLOPs. — (b):
#    $6ND$. (a) counts one of them. (c) would be three factors.
# 3. A model is right in 80 % of steps; of reckonings of 10 steps it solves **(a)** 80 %, **(b)** 50 %, **(c)** 11 %. —
#    (c): $0.8^{10}$. (a) is one step's share. (b) needs 93 % a step.
# 4. The largest of your models lies above the curve of the others. First look **(a)** at a longer training of it,
#    **(b)** for a smaller $\alpha$, **(c)** for an S. — (a). (b) fits away what may be a flaw. (c): of one point?

# %% [markdown] exercise="09.1"
# ### Exercise 09.1: `count_parameters`
#
# A law needs its abscissa. Count a GPT without building it: the parameters in its blocks, which Kaplan et al. take for
# N, and those outside: the tables of tokens and positions and the last norm. The output has no table of its own.
#
# ```python
# from minitransformer.models import GPTConfig
#
#
# def count_parameters(config):
#     """GPTConfig -> (in the blocks, outside them): two integers."""
#     raise NotImplementedError("attention, feed-forward and two norms a block; tables and a norm around them")
# ```
#
# <details><summary>Hint 1</summary>config.vocab_size, context, layers and width; heads do not matter.</details>
# <details><summary>Hint 2</summary>A block: attention 4D² + 4D, feed-forward 8D² + 5D, two norms 4D.</details>
# <details><summary>Hint 3</summary>L (12 D² + 13 D) inside; V D + T D + 2 D outside.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def count_parameters(config):
#     V, T, L, D = config.vocab_size, config.context, config.layers, config.width
#     return L * (12 * D**2 + 13 * D), V * D + T * D + 2 * D
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no biases: `12 * D**2 + 13 * D` → `12 * D**2 + 4 * D`
# * one block: `L * (12` → `1 * (12`
# * the last norm forgotten: ` + 2 * D` → ` + 0 * D`
# * a table for the output: `V * D + T * D` → `2 * V * D + T * D`
# * the last norm counted with the blocks: `13 * D), V * D + T * D + 2 * D` → `13 * D) + 2 * D, V * D + T * D`
#
# </details>

# %% [markdown] exercise="09.2"
# ### Exercise 09.2: `fit_power_law`
#
# Fit L(N) = E + A / N^α. For each floor E that is offered, draw the straight line through (ln N, ln(L - E)) by least
# squares. Keep the floor whose *curve* misses the *losses* least, in the sum of squares. A floor that is not below
# every loss has no logarithm: leave it out.
#
# ```python
# import numpy as np
#
#
# def fit_power_law(sizes, losses, floors):
#     """sizes (n,), losses (n,), floors (g,) -> (E, A, alpha), three floats.
#
#     At least two different sizes, and at least one floor below every loss.
#     """
#     raise NotImplementedError("a line for each floor; compare the curves with the losses, not with their logarithms")
# ```
#
# <details><summary>Hint 1</summary>`np.polyfit(x, y, 1)` gives (slope, intercept) of the line.</details>
# <details><summary>Hint 2</summary>alpha is minus the slope, A the exponential of the intercept.</details>
# <details><summary>Hint 3</summary>The error of a floor is ((E + A * sizes**-alpha - losses) ** 2).sum(); keep the
# least.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fit_power_law(sizes, losses, floors):
#     best = (np.inf, 0.0, 0.0, 0.0)
#     for E in floors[floors < losses.min()]:
#         slope, intercept = np.polyfit(np.log(sizes), np.log(losses - E), 1)
#         missed = ((E + np.exp(intercept) * sizes**slope - losses) ** 2).sum()
#         if missed < best[0]:
#             best = (missed, float(E), float(np.exp(intercept)), float(-slope))
#     return best[1:]
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the slope for alpha: `float(-slope)` → `float(slope)`
# * the intercept for A: `float(np.exp(intercept)), ` → `float(intercept), `
# * the floor is not taken off: `np.log(losses - E)` → `np.log(losses)`
# * misses of the logarithms: `((E + np.exp(intercept) * sizes**slope - losses) ** 2)` →
#   `((intercept + slope * np.log(sizes) - np.log(losses - E)) ** 2)`
# * the last floor, not the best: `if missed < best[0]:` → `if True:`
# * only the first floor: `floors[floors < losses.min()]` → `floors[floors < losses.min()][:1]`
# * sizes without logarithm: `np.polyfit(np.log(sizes)` → `np.polyfit(sizes`
#
# </details>

# %% [markdown] exercise="09.3"
# ### Exercise 09.3: `exact_match`
#
# Mark an exam by perfection. Given which steps were right, the share of all runs of k successive steps that are right
# throughout (a run lies in one exam, and runs may overlap), and beside it what independent steps would give, p^k. Where
# the first is larger, errors come in clumps.
#
# ```python
# import numpy as np
#
#
# def exact_match(right, k):
#     """right (exams, n) of true and false, 1 <= k <= n -> (share of runs of k all right, p ** k), two floats."""
#     raise NotImplementedError("every window of k steps in every exam: is it right throughout?")
# ```
#
# <details><summary>Hint 1</summary>An exam of n steps has n - k + 1 runs.</details>
# <details><summary>Hint 2</summary>`np.lib.stride_tricks.sliding_window_view(right, k, axis=1)` is (exams, n - k + 1,
# k).</details>
# <details><summary>Hint 3</summary>`.all(axis=-1).mean()`; p is `right.mean()`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def exact_match(right, k):
#     runs = np.lib.stride_tricks.sliding_window_view(right, k, axis=1)
#     return float(runs.all(axis=-1).mean()), float(right.mean()) ** k
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * one right step is enough: `runs.all(axis=-1)` → `runs.any(axis=-1)`
# * runs over exams, not steps: `right, k, axis=1)` → `right, min(k, len(right)), axis=0)`
# * only the first run: `runs.all(axis=-1)` → `runs[:, 0].all(axis=-1)`
# * runs that do not overlap: `runs.all(axis=-1)` → `runs[:, ::k].all(axis=-1)`
# * k times p: `float(right.mean()) ** k` → `float(right.mean()) * k`
# * the run's share, not p: `float(right.mean()) ** k` → `float(runs.all(axis=-1).mean()) ** k`
#
# </details>

# %% [markdown] exercise="09.4"
# ### Exercise 09.4: `compute_optimal`
#
# A fixed number of FLOPs, C = 6 N D: a large model on few tokens D, or a small one on many? Hoffmann et al. 2022 fitted
# L(N, D) = E + A / N^α + B / D^β. Find the N and D of least loss on the budget. With their constants (A = 406.4,
# α = 0.34, B = 410.7, β = 0.28), how many tokens for each parameter at 1e21 FLOPs, and at 1e24?
#
# ```python
# def compute_optimal(flops, A, alpha, B, beta):
#     """flops > 0, A, alpha, B, beta > 0 -> (N, D), floats: 6 N D = flops, A / N^alpha + B / D^beta least."""
#     raise NotImplementedError("put D = flops / 6N into the loss, set the derivative by N to 0, solve for N")
# ```
#
# <details><summary>Hint 1</summary>At the best split N and D change by opposite factors: N up by 1 %, D down by 1 %.
# There the gain α A / N^α equals the loss β B / D^β.</details>
# <details><summary>Hint 2</summary>Put D = K / N with K = C / 6 into α A / N^α = β B / D^β.</details>
# <details><summary>Hint 3</summary>N^(α + β) = (α A / β B) K^β.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def compute_optimal(flops, A, alpha, B, beta):
#     product = flops / 6
#     N = (alpha * A / (beta * B) * product**beta) ** (1 / (alpha + beta))
#     return N, product / N
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * forward only: `flops / 6` → `flops / 2`
# * the two terms equal, not their slopes: `alpha * A / (beta * B)` → `A / B`
# * exponents the wrong way round: `product**beta` → `product**alpha`
# * N and D exchanged: `return N, product / N` → `return product / N, N`
# * half and half on log axes: `(alpha * A / (beta * B) * product**beta) ** (1 / (alpha + beta))` → `product**0.5`
#
# </details>
