# %% [markdown]
# # A GPT on real text
#
# How does guessing the next character, over and over, turn random numbers into something that writes? Here you take a
# GPT apart into arrays, predict its size and its first loss exactly, train it on the English that ships with Python,
# and hold it against the best that counting pairs of letters can do.
#
# | | |
# | --- | --- |
# | You will be able to | count a GPT's parameters, judge a loss by baselines, find three classic bugs |
# | Builds on | 02, attention; 03, multi-head attention |
# | Time | 45 minutes to read, 30 s to run |
# | Files to open | `minitransformer/models/gpt.py`, `data/batches.py`, `inference/`, `training/trainer.py` |
# | Source | Radford et al. 2018 and 2019; Press & Wolf 2017 (tied weights) |
# | Documents | D3 §2.2, causal language modelling and cross-entropy; D5 §1.3, GPT's recipe |
# | Next | `minitransformer train`, `generate` and `attention`: the same with your own text |

# %%
import math
import sys
import time

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, inference, optim
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import bars, head_grid, heatmap, lines, loss_curve
from minitransformer.visualization.style import save

lesson = Lesson("04", "A GPT on real text")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claim
#
# D3 §2.2 names the task, causal language modelling, and the loss, cross-entropy $-\sum_i y_i \log p_i$. D5 §1.3 adds
# the recipe: warm-up and cosine decay, and AdamW with $\beta = (0.9, 0.98)$ where SGD used to be. Both are short;
# behind them stands everything from a text file to a sentence. At the end the recipe is measured.
#
# ## 2. Numbers on paper
#
# A text asks its own questions: of `hello` with a context of 4, the input is `h e l l` and the targets are `e l l o`.
# *The targets are the input, one position later.*
#
# Let the vocabulary have $V = 3$ tokens, with rows $(1, 0)$, $(0, 1)$, $(-1, 0)$ of an embedding table $E$, so $d = 2$.
# The last block hands over $h = (\ln 2, 0)$. Scores are $E h = (\ln 2, 0, -\ln 2)$, their exponentials 2, 1, ½, so
# $p = (\tfrac47, \tfrac27, \tfrac17)$. If token 0 comes next, the loss is $-\ln\tfrac47 = 0.56$; had it been token 2,
# $-\ln\tfrac17 = 1.95$. A model that knows nothing says $p = \tfrac13$ and pays $\ln 3 = 1.10$, whatever comes.

# %%
lesson.step("On paper")
table, h = mt.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), mt.tensor([[math.log(2), 0.0]])  # (V, D), (1, D)
logits = h @ table.transpose(0, 1)  # (1, V)
for target in (0, 2):
    lesson.say(f"  loss if token {target} comes next: {mt.cross_entropy(logits, np.array([target])).item():.2f}")
np.testing.assert_allclose(mt.softmax(logits).data, [[4 / 7, 2 / 7, 1 / 7]], rtol=1e-6)

# %% [markdown]
# ## 3. From text to logits: naive, then the engine
#
# One id a character. The last tenth of the text is never trained on.

# %%
text = data.default_corpus()
tokenizer = data.CharTokenizer.train(text)
train_ids, validation_ids = data.split(np.array(tokenizer.encode(text)))
V, T, L, H, D = tokenizer.vocab_size, 64, 3, 4, 128
lesson.step("The text and the model")
lesson.say(f"  {len(text):,} characters, {V} different ones; {len(validation_ids):,} are held out")
lesson.say(f"  {text[2000:2160]!r}")
model = GPT(GPTConfig(vocab_size=V, context=T, layers=L, heads=H, width=D), mt.Generator(0))


# %%
def naive_gpt(model, ids):
    """GPT's forward in plain NumPy: ids (B, T) -> logits (B, T, V)."""

    def array(name):
        return weights[name].data

    def norm(x, name):  # (B, T, D) -> (B, T, D): mean 0 and variance 1 at every position, then scale and shift
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
        return x * array(f"{name}.weight") + array(f"{name}.bias")

    def linear(x, name):  # (..., in) -> (..., out)
        return x @ array(f"{name}.weight").T + array(f"{name}.bias")

    weights, (B, T) = dict(model.named_parameters()), ids.shape
    H, D = model.config.heads, model.config.width
    x = array("token_embedding.weight")[ids] + array("position_embedding.weight")[:T]  # (B, T, D)
    for i in range(model.config.layers):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.attention_norm"), f"{block}.attention.qkv")  # (B, T, 3D)
        q, k, v = qkv.reshape(B, T, 3, H, D // H).transpose(2, 0, 3, 1, 4)  # (B, H, T, d) each
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(D // H)  # (B, H, T, T)
        scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)  # no looking ahead
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))  # (B, H, T, T)
        o = p / p.sum(axis=-1, keepdims=True) @ v  # (B, H, T, d)
        x = x + linear(o.swapaxes(1, 2).reshape(B, T, D), f"{block}.attention.output")  # (B, T, D)
        u = linear(norm(x, f"{block}.feed_forward_norm"), f"{block}.feed_forward.up")  # (B, T, 4D)
        u = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))  # GELU
        x = x + linear(u, f"{block}.feed_forward.down")  # (B, T, D)
    return norm(x, "norm") @ array("token_embedding.weight").T  # (B, T, V)


batches = data.BatchSampler(train_ids, 12, T, mt.Generator(1))
ids, targets = next(batches)  # (B, T) each
assert np.array_equal(ids[:, 1:], targets[:, :-1])  # the targets are the input, one position later
with mt.no_grad():
    np.testing.assert_allclose(naive_gpt(model, ids), model(ids).data, rtol=1e-4, atol=1e-5)
lesson.say("  Thirty lines of NumPy and the engine give the same logits.")

# %% [markdown]
# ## 4. Predict: its size, and its first loss
#
# Count. A block has the attention, $4D^2 + 4D$; the feed-forward layer $D \to 4D \to D$, $8D^2 + 5D$; two norms, $4D$.
# Around the blocks: tokens $VD$, positions $TD$, the last norm $2D$. In all $VD + TD + L(12D^2 + 13D) + 2D$. Nothing is
# added for the output: the table that reads tokens also scores them (section 7).
#
# And the loss before training? Weights of size 0.02 make all scores nearly equal.

# %%
size = V * D + T * D + L * (12 * D**2 + 13 * D) + 2 * D
guess_size = lesson.predict("parameters of this GPT?", size)
guess_loss = lesson.predict("its loss before training, in nats a character?", math.log(V), "nats")
guess_size.see(model.parameter_count(), allowed=(size, size))
first_loss = model.loss(ids, targets).item()
guess_loss.see(first_loss, allowed=(math.log(V) - 0.1, math.log(V) + 0.15))

# %% [markdown]
# $\ln V$ is the price of guessing. A first loss far above it says that the model is *confidently* wrong: weights that
# start too large, or a vocabulary that is not the text's. There is no cheaper test of a training script.
#
# ## 5. Predict: what counting can do, and what the GPT adds
#
# Before any network, count. How often does each letter come (unigram)? How often after each other letter (bigram)?
# One is added to every count, so that what was never seen is not impossible.


# %%
def count_letters(ids):
    """(unigram (V,), bigram (V, V)): log probabilities of the next letter by counting."""
    pairs = np.ones((V, V))
    np.add.at(pairs, (ids[:-1], ids[1:]), 1)
    singles = pairs.sum(axis=0)
    return np.log(singles / singles.sum()), np.log(pairs / pairs.sum(axis=1, keepdims=True))


def windows(ids):
    """16 × 12 windows: what every loss below is measured on."""
    return list(data.evaluation_batches(ids, 12, T, limit=16))


def mean_loss(model, ids):
    with model.evaluating():
        return float(np.mean([model.loss(x, y).item() for x, y in windows(ids)]))


lesson.step("Counting, then training")
unigram, bigram = count_letters(train_ids)
baselines = {
    "guessing: ln V": math.log(V),
    "letter frequencies": float(np.mean([-unigram[y].mean() for _, y in windows(validation_ids)])),
    "pairs of letters": float(np.mean([-bigram[x, y].mean() for x, y in windows(validation_ids)])),
}
for name, value in baselines.items():
    lesson.say(f"  {name:20} {value:.2f} nats a character, held out")

# %% [markdown]
# A GPT with *no* attention could do no better than the pairs: it would see one letter. What it gets below them, it gets
# by looking further back. 600 steps of 12 windows of 64 characters read the text less than 1.5 times. How far below?

# %%
guess_gain = lesson.predict("how far below the pairs will the GPT get, in nats?", 0.6, "nats")
STEPS, PEAK = 600, 3e-3
optimizer = optim.AdamW(optim.decay_groups(model, 0.1), lr=PEAK, betas=(0.9, 0.99))
PROMPT = "The value of the "


def written(temperature, tokens=160):
    return inference.generate_text(model, tokenizer, PROMPT, tokens, temperature=temperature, generator=mt.Generator(7))


before_training = written(0.8, 60)
losses, checked, held_out, started = [], [0], [mean_loss(model, validation_ids)], time.perf_counter()
for step in progress(STEPS, "training"):
    for group in optimizer.param_groups:
        group["lr"] = optim.warmup_cosine(step, peak=PEAK, warmup=60, total=STEPS, floor=PEAK / 10)
    ids, targets = next(batches)  # 1. a batch
    optimizer.zero_grad()
    loss = model.loss(ids, targets)  # 2. forward
    loss.backward()  # 3. backward
    optim.clip_grad_norm_(model.parameters(), 1.0)  # 4. no step longer than this
    optimizer.step()  # 5. step
    losses.append(loss.item())
    if step + 1 in (25, 50, 100, 200, 400, STEPS):
        checked.append(step + 1)
        held_out.append(mean_loss(model, validation_ids))
lesson.note("training", time.perf_counter() - started, "s")
final = held_out[-1]
guess_gain.see(baselines["pairs of letters"] - final, allowed=(0.2, 1.3))
loss_curve(range(1, STEPS + 1), losses, held_out, validation_steps=checked, vocabulary=V, path=lesson.figure("loss"),
           title=f"A GPT learns from {STEPS} batches")  # fmt: skip
bars([*baselines, "GPT"], [*baselines.values(), final], xlabel="loss on held-out text (nats a character)",
     highlight=["GPT"], title="What looking further back is worth", path=lesson.figure("baselines"))  # fmt: skip

# %% [markdown]
# A loss of $\ell$ nats is as bad as choosing among $e^\ell$ letters alike, its *perplexity*; $\ell/\ln 2$ is bits a
# character.
#
# ### Training against validation
#
# Did it learn the text by heart? Compare with windows that it was trained on. But is the held-out part equally hard?
# The bigram tells: counts have little to memorise, so *its* gap is the difference of the two texts.

# %%
guess = lesson.predict("held-out loss minus loss on trained text, in nats?", 0.1, "nats")
gap = final - mean_loss(model, train_ids)
bigram_gap = baselines["pairs of letters"] - float(np.mean([-bigram[x, y].mean() for x, y in windows(train_ids)]))
guess.see(gap, allowed=(-0.3, 0.5))
lesson.say(f"  perplexity {math.exp(final):.1f}, {final / math.log(2):.2f} bits a character")
lesson.say(f"  gap of the GPT {gap:+.2f}, of the pairs {bigram_gap:+.2f}: what is above that was learned by heart")

# %% [markdown]
# ## 6. What it writes, and what it thinks comes next
#
# Sampling divides the logits by a temperature first: near 0 the likeliest letter always wins, 1 draws from what the
# model believes, above 1 the unlikely ones come up.

# %%
lesson.step("Samples")
lesson.say(f"before training, 0.8: {before_training!r}")
for temperature in (0.0, 0.5, 0.8, 1.2):
    lesson.say(f"temperature {temperature}:     {written(temperature)!r}")
lesson.say("\n  text   next   loss   likeliest")
passage = tokenizer.encode("The value of the expression is the same")
with model.evaluating():
    logits, attentions = model(np.array([passage]), capture_attention=True)
believed = inference.probabilities(logits)[0]  # (T, V)
for i in range(5, 17):
    top = believed[i].argsort()[::-1][:4]
    shown = "  ".join(f"{tokenizer.token_text(t)} {believed[i, t]:.0%}" for t in top)
    so_far, following = "".join(tokenizer.token_strings(passage[i - 3 : i + 1])), tokenizer.token_text(passage[i + 1])
    lesson.say(f"  {so_far}   {following}    {-math.log(believed[i, passage[i + 1]]):5.2f}   {shown}")
head_grid(np.stack(attentions)[:, 0, :, :16, :16], tokenizer.token_strings(passage[:16]), path=lesson.figure("heads"),
          title="Where the trained GPT looks")  # fmt: skip
likely = np.argsort(-believed[:16].max(axis=0))[:14]  # letters that are likely somewhere
path = lesson.figure("next_letter")
figure = heatmap(believed[:16, likely], tokenizer.token_strings(passage[:16]), tokenizer.token_strings(likely),
                 normalised=False, vmax=1, label="probability", title="What the GPT expects next")  # fmt: skip
figure.axes[0].set(xlabel="next letter", ylabel="text so far, downwards")
save(figure, path)

# %% [markdown]
# The loss sits where words begin: inside a word the next letter is often nearly certain. A *mean* loss hides that.
#
# ## 7. Why the weights are tied
#
# One table reads tokens in and scores them on the way out (Press & Wolf 2017). It saves $VD$ numbers, and every row
# learns at every step. Which rows of a table that only *read* would get a gradient? Those of the letters in the batch.
# And of a tied one?

# %%
lesson.step("Tied weights")
guess = lesson.predict("rows of the tied table with a gradient after one batch?", V, "rows")
ids, targets = next(batches)
model.zero_grad()
model.loss(ids[:1, :16], targets[:1, :16]).backward()
rows = int((model.token_embedding.weight.grad != 0).any(axis=1).sum())
guess.see(rows, allowed=(V, V))
lesson.say(f"  The batch has {len(np.unique(ids[:1, :16]))} different letters. Untied: {size + V * D:,} parameters.")

# %% [markdown]
# The softmax pushes *every* letter that did not come next down a little. For GPT-2 small, $VD$ is 38.6 of 124 million.
#
# ## 8. Predict: generation with a KV cache
#
# Each new letter needs the keys and values of all before it, and those do not change: token $t$ never sees what comes
# later. So they are kept. How many bytes is that for a full context, in float32?

# %%
lesson.step("The KV cache")
guess = lesson.predict("bytes of the KV cache at 64 tokens?", 2 * L * T * D * 4, "bytes")
cache, ids = model.new_cache(), validation_ids[None, :T]
guess.see(cache.nbytes, allowed=(2 * L * T * D * 4,) * 2)
with model.evaluating():
    full = model(ids).data  # (1, T, V)
    cached = np.concatenate([model(ids[:, t : t + 1], cache).data for t in range(T)], axis=1)  # a token at a time
np.testing.assert_allclose(cached, full, rtol=1e-4, atol=1e-4)

# %% [markdown]
# And the work? Write 64 letters after the first one. With the cache each costs one position; without it, the whole text
# so far. Count the positions that go through the model: how many times more are they without?


# %%
def positions_computed(use_cache):
    lengths = []

    def counted(ids, *rest, **options):
        lengths.append(ids.shape[1])
        return GPT.forward(model, ids, *rest, **options)

    model.forward = counted
    list(inference.generate(model, tokenizer.encode("T"), T, use_cache=use_cache))
    del model.forward  # the class's own again
    return sum(lengths)


guess = lesson.predict("positions computed for 64 letters, without : with the cache?", (1 + T) / 2, "times")
guess.see(positions_computed(False) / positions_computed(True), allowed=(32.5, 32.5))
prompt = tokenizer.encode(PROMPT)
greedy = [list(inference.generate(model, prompt, 120, temperature=0.0, use_cache=use)) for use in (True, False)]
assert greedy[0] == greedy[1]  # also beyond the context of 64
lesson.say("  The same logits, and the same 120 letters, with and without the cache.")

# %% [markdown]
# ## 9. The claim: the recipe
#
# D5 §1.3: AdamW in place of SGD, $\beta = (0.9, 0.98)$. A small GPT (1 layer, width 64), 120 steps each; SGD gets the
# best of three learning rates. How far ahead is AdamW?


# %%
def small_run(make_optimizer, shift=True):
    """A GPT of 1 layer and width 64: (model, training losses)."""
    model = GPT(GPTConfig(V, context=32, layers=1, heads=4, width=64), mt.Generator(0))
    batches, optimizer, losses = data.BatchSampler(train_ids, 16, 32, mt.Generator(1)), make_optimizer(model), []
    for _ in progress(120, "small GPT"):
        ids, targets = next(batches)
        optimizer.zero_grad()
        loss = model.loss(ids, targets if shift else ids)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def adamw(lr, beta2=0.98):
    return lambda model: optim.AdamW(optim.decay_groups(model, 0.1), lr=lr, betas=(0.9, beta2))


def sgd(lr):
    return lambda model: optim.SGD(model.parameters(), lr=lr, momentum=0.9)


lesson.step("The recipe: AdamW and SGD")
guess = lesson.predict("loss of SGD minus loss of AdamW, last 20 of 120 steps?", 0.3, "nats")
shallow, losses = small_run(adamw(3e-3))
runs = {"AdamW, β₂ 0.98": losses, "AdamW, β₂ 0.999": small_run(adamw(3e-3, 0.999))[1]}
runs |= {f"SGD, rate {lr}": small_run(sgd(lr))[1] for lr in (0.03, 0.1, 0.3)}
ends = {name: float(np.mean(run[-20:])) for name, run in runs.items()}
for name, end in ends.items():
    lesson.say(f"  {name:18} {end:.2f}")
best_sgd = min(end for name, end in ends.items() if name.startswith("SGD"))
guess.see(best_sgd - ends["AdamW, β₂ 0.98"], allowed=(0.02, 2))
lesson.claim(
    "D5 §1.3: AdamW instead of SGD, β = (0.9, 0.98)",
    measured=f"AdamW {ends['AdamW, β₂ 0.98']:.2f}, best SGD {best_sgd:.2f} nats; β₂ = 0.999 gives "
    f"{ends['AdamW, β₂ 0.999']:.2f}",
    setup="GPT 1 layer, width 64, 120 steps without schedule, SGD with momentum at the best of 3 rates",
    verdict="partly",
)

# %% [markdown]
# AdamW's lead is real; $\beta_2$ makes no such difference here. (0.9, 0.98) are the values of Vaswani et al. 2017, with
# Adam; GPT-3 used (0.9, 0.95). A $\beta_2$ below 0.999 is a precaution for long runs, too short here to show its worth.
#
# ## 10. Break it
#
# **Targets not shifted.** `loss(ids, ids)`: the model is asked for the letter that it is looking at. The loss gets
# wonderful. And what does it write? How many different letters are in 40, at temperature 0?

# %%
lesson.step("Break it: targets not shifted")
guess_loss = lesson.predict("loss after 120 steps, targets = input?", 0.02, "nats")
guess_letters = lesson.predict("different letters among the 40 that it writes?", 1)
copier, copier_losses = small_run(adamw(3e-3), shift=False)
guess_loss.see(np.mean(copier_losses[-20:]), allowed=(0, 0.3))
letters = list(inference.generate(copier, prompt, 40, temperature=0.0))
guess_letters.see(len(set(letters)), allowed=(1, 3))
lesson.say(f"  loss {copier_losses[-1]:.3f}; it writes {tokenizer.decode(prompt + letters)!r}")

# %% [markdown]
# **No positions.** Attention is a sum over keys; a sum has no order. In one layer without positions, the last letter
# cannot know the order of those before it. (Deeper, the causal mask gives some of it away: early tokens see less.) Take
# the one-layer GPT of section 9, shuffle what it read, and look at its last logits; then erase its positions.

# %%
lesson.step("Break it: no positions")
phrase = np.array(tokenizer.encode("the value of an object"))
shuffled = np.append(phrase[:-1][mt.Generator(3).permutation(len(phrase) - 1)], phrase[-1])
differences = {}
for name in ("with positions", "without"):
    if name == "without":
        shallow.position_embedding.weight.data[:] = 0
    with shallow.evaluating():
        ordered, mixed = (shallow(ids[None]).data[0, -1] for ids in (phrase, shuffled))
    differences[name] = float(np.abs(ordered - mixed).max())
    lesson.say(f"  {name:14}: shuffling the 21 letters before moves the last logits by up to {differences[name]:.1e}")
assert differences["without"] < 1e-4 < 1e-2 < differences["with positions"]

# %% [markdown]
# **Learning rate too high.** AdamW moves each weight by about the rate, and weights are about 0.02 in size. At 0.003 it
# takes some steps to change one; at 0.1 the first step throws it away. A model so shaken can still learn one thing,
# which needs no input. What will the loss be? (Section 5 has the number.) And how high does it leap at a rate of 1?

# %%
lesson.step("Break it: learning rate too high")
guess_high = lesson.predict("loss of the last 20 of 120 steps at rate 0.1?", 3.3, "nats")
guess_leap = lesson.predict("highest loss at rate 1?", 100, "nats")
runs = {f"rate {rate}": small_run(adamw(rate))[1] for rate in (1, 0.1)} | {"rate 0.003": runs["AdamW, β₂ 0.98"]}
guess_high.see(np.mean(runs["rate 0.1"][-20:]), allowed=(2.9, 3.9))
guess_leap.see(max(runs["rate 1"]), allowed=(10, 100_000))
runs["letter frequencies"] = np.full(120, baselines["letter frequencies"])
lines(range(1, 121), runs, xlabel="step", ylabel="loss (nats a character)", logy=True, markers=False,
      path=lesson.figure("learning_rate"),
      title="Too high a rate leaps up, then knows only how frequent letters are")  # fmt: skip
lesson.finish()

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | loss near 0 in minutes, endless repeats | targets are the input | `ids[:, 1:] == targets[:, :-1]` |
# | letters right, words muddled | no positions | shuffle the past: the logits must move |
# | loss leaps up, then stays at the letter frequencies | learning rate | 100 steps beside a tenth of the rate |
# | first loss far above $\ln V$ | initialisation, wrong vocabulary | first loss within 0.2 of $\ln V$ |
#
# ## Questions learners ask
#
# * **Is 2 nats good?** Only beside something: the pairs of letters on the same text with the same tokens.
# * **Why does it invent words?** It knows letters. With tokens of several letters (`data.BPETokenizer`) it has fewer.
# * **Why sample, why not take the likeliest?** Look at temperature 0 above: it runs in circles.
# * **Why 64 characters?** Positions are a table of 64 rows; `inference/generation.py` says how longer texts go on.
#
# ## Exercises
#
# 1. `parameters(V: int, T: int, L: int, D: int, tied: bool) -> int`; GPT-2 small is 124,439,808.
#    <details><summary>Hint</summary>$V$ = 50,257, $T$ = 1,024, $L$ = 12, $D$ = 768; heads do not matter.</details>
# 2. `trigram(ids: np.ndarray, V: int, k: float) -> np.ndarray`, log probabilities $(V, V, V)$, $k$ added to each count.
#    <details><summary>Hint</summary>`np.add.at`. Choose $k$ on held-out text: 1 is too much for $V^3$ cells.</details>
# 3. `calibration(probabilities: np.ndarray, targets: np.ndarray, bins: int) -> np.ndarray`: of the letters given
#    probability 0.8, do 80 % come true? <details><summary>Hint</summary>Bin by the largest probability.</details>
# 4. `loss_by_position(model: GPT, ids, targets) -> np.ndarray` $(T,)$: does a longer past help?
#    <details><summary>Hint</summary>`mt.log_softmax`, gather the targets, mean over the batch.</details>
#
# ## Quiz
#
# 1. A first loss of 9 with $V$ = 100 **(a)** is normal, **(b)** is worse than guessing, **(c)** means too little data.
#    — (b): guessing costs 4.6. (a) would be 4.6. (c): data plays no part before the first step.
# 2. Training loss 0.01 after a minute on English means **(a)** a fine model, **(b)** a leak, **(c)** overfitting.
#    — (b). (a): even people need about 1 bit a letter. (c) takes many passes over the text.
# 3. Twice the layers, the same width: parameters **(a)** double, **(b)** nearly double, **(c)** grow fourfold.
#    — (b): the tables stay, so not (a). (c) is what twice the *width* does to a block.
# 4. The KV cache changes **(a)** the text, **(b)** only the work, **(c)** the training.
#    — (b), asserted above. (a) would be a bug. (c): training has all positions at once.

# %% [markdown] exercise="04.1"
# ### Exercise 04.1: `parameters`
#
# Count a GPT before you build it: V tokens, context T, L blocks, width D. GPT-2 has V = 50,257, T = 1,024, L = 12 and
# D = 768, and 124,439,808 parameters, the heads not mattering.
#
# ```python
# def parameters(V, T, L, D, tied):
#     """Integers -> the number of parameters. tied: the table that reads tokens also scores them."""
#     raise NotImplementedError("tables, L blocks, the last norm")
# ```
#
# <details><summary>Hint 1</summary>A block: attention (q, k, v and output, with biases), two norms (weight and bias),
# D → 4D → D with biases.</details>
# <details><summary>Hint 2</summary>Attention 4D² + 4D, feed-forward 8D² + 5D, norms 4D.</details>
# <details><summary>Hint 3</summary>V D + T D + L (12 D² + 13 D) + 2 D, and V D more where the output has a table of
# its own (no bias).</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def parameters(V, T, L, D, tied):
#     block = 12 * D**2 + 13 * D
#     return V * D + T * D + L * block + 2 * D + (0 if tied else V * D)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no biases in the blocks: `12 * D**2 + 13 * D` → `12 * D**2 + 4 * D`
# * the last norm forgotten: ` + 2 * D` → ` + 0 * D`
# * tied the wrong way round: `0 if tied else V * D` → `V * D if tied else 0`
# * positions forgotten: ` + T * D` → ` + 0 * D`
# * a bias for the output: `else V * D` → `else V * D + V`
#
# </details>

# %% [markdown] exercise="04.2"
# ### Exercise 04.2: `trigram`
#
# The pairs of section 5 see one letter back. See two: how often does c come after a, b? Add k to every count, so that
# what never came is not impossible. For V³ cells k = 1 is too much: choose it on held-out text.
#
# ```python
# import numpy as np
#
#
# def trigram(ids, V, k):
#     """ids (N,) integers in 0..V-1, k > 0 -> log probabilities (V, V, V): [a, b, c] is log p(c after a, b)."""
#     raise NotImplementedError("count triples, add k, divide by each row's sum, take the logarithm")
# ```
#
# <details><summary>Hint 1</summary>The triples are ids[:-2], ids[1:-1], ids[2:]. Begin with an array of k
# everywhere.</details>
# <details><summary>Hint 2</summary>`counts[a, b, c] += 1` with arrays counts a repeated triple once. `np.add.at`
# counts each.</details>
# <details><summary>Hint 3</summary>Divide by `counts.sum(axis=-1, keepdims=True)`: the sum over what comes next,
# c.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def trigram(ids, V, k):
#     counts = np.full((V, V, V), float(k))
#     np.add.at(counts, (ids[:-2], ids[1:-1], ids[2:]), 1)
#     return np.log(counts / counts.sum(axis=-1, keepdims=True))
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * repeats count once: `np.add.at(counts, (ids[:-2], ids[1:-1], ids[2:]), 1)` →
#   `counts[ids[:-2], ids[1:-1], ids[2:]] += 1`
# * summed over the wrong axis: `counts.sum(axis=-1` → `counts.sum(axis=0`
# * one distribution over all triples: `counts.sum(axis=-1, keepdims=True)` → `counts.sum()`
# * k is always 1: `float(k)` → `1.0`
# * back to front: `(ids[:-2], ids[1:-1], ids[2:])` → `(ids[2:], ids[1:-1], ids[:-2])`
# * no logarithm: `np.log(counts / counts.sum(axis=-1, keepdims=True))` → `counts / counts.sum(axis=-1, keepdims=True)`
#
# </details>

# %% [markdown] exercise="04.3"
# ### Exercise 04.3: `calibration`
#
# Of the letters that a model gives 0.8, do 80 % come true? Sort the predictions into bins by their largest
# probability, and hold what was promised beside what came.
#
# ```python
# import numpy as np
#
#
# def calibration(probabilities, targets, bins):
#     """probabilities (N, V), targets (N,) -> table (bins, 3): count, mean largest probability, share right.
#
#     Bin i holds i/bins <= p < (i+1)/bins; p = 1 belongs to the last. An empty bin is 0, NaN, NaN.
#     """
#     raise NotImplementedError("largest probability, its bin, and whether it was the target")
# ```
#
# <details><summary>Hint 1</summary>`probabilities.max(1)` is the promise, `probabilities.argmax(1) == targets`
# whether it was kept.</details>
# <details><summary>Hint 2</summary>The bin is floor(p · bins), and at most bins - 1.</details>
# <details><summary>Hint 3</summary>`np.bincount(which, weights, bins)` adds up by bin: of ones, of p, of what was
# right. Divide under `np.errstate(invalid="ignore")`, where 0 / 0 is the NaN that is asked for.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def calibration(probabilities, targets, bins):
#     p, right = probabilities.max(1), probabilities.argmax(1) == targets
#     which = np.minimum((p * bins).astype(int), bins - 1)
#     count = np.bincount(which, minlength=bins).astype(float)
#     with np.errstate(invalid="ignore"):
#         promised, kept = np.bincount(which, p, bins) / count, np.bincount(which, right, bins) / count
#     return np.stack([count, promised, kept], axis=1)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * p = 1 falls out of the last bin: `np.minimum((p * bins).astype(int), bins - 1)` → `(p * bins).astype(int) % bins`
# * bins by rounding: `(p * bins).astype(int)` → `np.round(p * bins).astype(int)`
# * the probability of the target, not the largest: `probabilities.max(1), ` →
#   `probabilities[np.arange(len(targets)), targets], `
# * sums, not means: `np.bincount(which, p, bins) / count` → `np.bincount(which, p, bins)`
# * shares of all, not of the bin: `np.bincount(which, right, bins) / count` →
#   `np.bincount(which, right, bins) / len(p)`
#
# </details>

# %% [markdown] exercise="04.4"
# ### Exercise 04.4: `loss_by_position`
#
# Does a longer past help? The mean loss at each position tells: the first letter of a window has one letter to go by,
# the last has T. Take it from a model of yours (`minitransformer train`) and draw it.
#
# ```python
# import numpy as np
#
# import minitransformer as mt
#
#
# def loss_by_position(model, ids, targets):
#     """A GPT, ids (B, T), targets (B, T) -> array (T,): the mean over the batch of -log p(target), without dropout.
#
#     The model is left in the mode (training or not) that it was in.
#     """
#     raise NotImplementedError("log probabilities, pick the target's at every place, mean over the batch")
# ```
#
# <details><summary>Hint 1</summary>`with model.evaluating():` switches dropout off, records nothing, and restores the
# mode afterwards.</details>
# <details><summary>Hint 2</summary>`mt.log_softmax(model(ids)).data` is (B, T, V). You need one of the V at every (b,
# t).</details>
# <details><summary>Hint 3</summary>`np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]`, then `.mean(0)`
# and a minus.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def loss_by_position(model, ids, targets):
#     with model.evaluating():
#         logp = mt.log_softmax(model(ids)).data  # (B, T, V)
#     return -np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0].mean(0)  # (T,)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * dropout stays on: `with model.evaluating():` → `with mt.no_grad():`
# * the inputs for the targets: `targets[..., None]` → `ids[..., None]`
# * by text, not by position: `.mean(0)` → `.mean(1)`
# * the sign: `return -np.take` → `return np.take`
# * logits for log probabilities: `mt.log_softmax(model(ids)).data` → `model(ids).data`
# * the mode is lost: `with model.evaluating():` → `with model.eval().evaluating():`
#
# </details>
