# %% [markdown]
# # Multi-head attention, and what heads look at
#
# What do eight heads have that one head eight times as wide does not? Not more parameters: you count them. Not more
# arithmetic either. A head is one softmax, and one softmax is one place to look. Here you see heads as strides in
# memory, give a network two questions at once, watch its heads share them out, then train a small GPT on English,
# look at its sixteen heads and switch each of them off.
#
# | | |
# | --- | --- |
# | You will be able to | write heads as a view, count their parameters, read head maps, measure what a head is worth |
# | Builds on | 02, attention |
# | Time | 40 minutes to read, 20 s to run |
# | Files to open | `minitransformer/nn/attention.py`, `visualization/head_statistics.py`, `models/gpt.py` |
# | Source | Vaswani et al. 2017, §3.2.2; Michel et al. 2019; Voita et al. 2019 |
# | Documents | D5 §1.2, D2 §1.2, D3 §1.1. D2's sample never stores its number of heads; D5 counts 8 times too many |
# | Next | 04, a GPT on real text |

# %%
import sys
from functools import partial

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, nn, optim
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import bars, head_grid, heatmap, statistics
from minitransformer.visualization.style import drawing, new_figure, save

lesson = Lesson("03", "Multi-head attention, and what heads look at")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claim
#
# D5 §1.2 says of the eight heads of the first Transformer that they divide the kinds of features among themselves, that
# parameters grow only 8 times, and that the whole survives the loss of one. The second is a matter of counting (claim
# C26), the third of measuring (C22). Before that, what is a head *for*?
#
# ## 2. Numbers on paper
#
# Three tokens have the values $v_1 = (1, 0)$, $v_2 = (0, 1)$, $v_3 = (1, 1)$, so $d = 2$. Token 3 wants to know **what
# stood first** and **what stood just before**. One head has one row of weights. It looks at both:
#
# $$o = \tfrac12 v_1 + \tfrac12 v_2 = (\tfrac12, \tfrac12)$$
#
# Swap tokens 1 and 2: the same $o$. *That* both were there is known, *which* was first is lost, and no matrix that
# comes after can bring it back. Two heads keep two rows, $(1, 0, 0)$ and $(0, 1, 0)$, and their outputs stand side by
# side: $o = [\,1\ 0 \mid 0\ 1\,]$. Swapped, it is $[\,0\ 1 \mid 1\ 0\,]$. Nothing is lost.

# %%
lesson.step("On paper: one row of weights, or two")
values = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # (T, d)
for name, rows in (("one head", [[0.5, 0.5, 0.0]]), ("two heads", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])):  # (H, T)
    lesson.say(f"  {name}: {np.ravel(rows @ values)}, with tokens swapped {np.ravel(rows @ values[[1, 0, 2]])}")

# %% [markdown]
# ## 3. The formula, the naive code, the engine
#
# $$[q\;k\;v] = x W_{qkv}^\top + b_{qkv},\qquad o_h = \operatorname{softmax}\!\big(q_h k_h^\top / \sqrt d\big)\,v_h,
# \qquad y = [o_1 \dots o_H]\,W_{out}^\top + b_{out}$$
#
# Head $h$ owns the channels $hd \dots (h+1)d - 1$ of $q$, $k$ and $v$, where $d = D/H$. So the plainest code is a loop.


# %%
def naive(x, attention):
    """Multi-head attention, one sequence and one head at a time, in NumPy."""
    B, T, D = x.shape
    H, d = attention.heads, D // attention.heads
    qkv = x @ attention.qkv.weight.data.T + attention.qkv.bias.data  # (B, T, 3D)
    o = np.empty((B, T, D))
    for b in range(B):
        for h in range(H):
            mine = slice(h * d, (h + 1) * d)
            q, k, v = (part[:, mine] for part in np.split(qkv[b], 3, axis=1))  # (T, d) each
            scores = q @ k.T / np.sqrt(d)  # (T, T)
            scores[np.triu_indices(T, 1)] = -np.inf  # no looking ahead
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))  # (T, T)
            weights /= weights.sum(axis=1, keepdims=True)
            o[b, :, mine] = weights @ v  # (T, d)
    return o @ attention.output.weight.data.T + attention.output.bias.data  # (B, T, D)


B, T, D, H = 2, 16, 64, 8
attention = nn.MultiHeadAttention(D, H, generator=mt.Generator(0)).to("float64")
x = mt.Generator(1).normal((B, T, D), dtype=np.float64)
np.testing.assert_allclose(attention(mt.tensor(x)).data, naive(x, attention), rtol=1e-10, atol=1e-12)
lesson.step("Heads are strides")
lesson.say("  The loop over heads and nn.MultiHeadAttention agree to 10 digits.")

# %% [markdown]
# The engine has no loop and copies nothing to make heads. `reshape` and `transpose` change only how the *same memory*
# is walked: the shape, and the stride, the bytes from one entry of an axis to the next. Take float32 and the product
# $(B, T, 3D)$ with $D = 64$, $H = 8$. Going from a token to the next skips a whole row. Going from a head to the next?

# %%
guess = lesson.predict("bytes from one head to the next (float32, D = 64, H = 8)?", 4 * D // H, "bytes")
guess_token = lesson.predict("bytes from one token to the next within a head?", 4 * 3 * D, "bytes")
qkv = mt.tensor(mt.Generator(2).normal((B, T, 3 * D)))  # (B, T, 3D)
heads = qkv.reshape(B, T, 3 * H, D // H).transpose(1, 2)  # (B, 3H, T, d)
q, k, v = heads.split(H, axis=1)  # (B, H, T, d) each
for name, array in (("qkv", qkv.data), ("heads", heads.data), ("k", k.data)):
    shared = "shares the memory of qkv" if np.shares_memory(array, qkv.data) else "a copy"
    lesson.say(f"  {name:6} shape {array.shape!s:16} strides {array.strides!s:22} {shared}")
    assert np.shares_memory(array, qkv.data)
guess.see(k.data.strides[1], allowed=(32, 32))
guess_token.see(k.data.strides[2], allowed=(768, 768))

# %% [markdown]
# The kernel walks these strides as they are: a head is *a way of reading a row*.
#
# One more view. $W_{out}$ multiplies the heads' outputs side by side, so it falls apart into $H$ blocks of columns, and
# $y$ into a **sum of one contribution a head**, $y = b_{out} + \sum_h o_h W_{out}[:, hd:(h+1)d]^\top$. Switching a head
# off leaves out one term.

# %%
full, alone = attention(mt.tensor(x)).data, []  # (B, T, D); the bias is 0 here
for h in range(H):
    attention.head_mask = mt.tensor(np.eye(H)[h])  # (H,): only head h
    alone.append(attention(mt.tensor(x)).data)
np.testing.assert_allclose(np.sum(alone, axis=0), full, rtol=1e-10, atol=1e-12)

# %% [markdown]
# ## 4. Predict: eight heads, how many parameters?
#
# $W_{qkv}$ is $(3D, D)$, $W_{out}$ is $(D, D)$, and their biases have $3D$ and $D$ numbers. Where is $H$ in that?

# %%
lesson.step("Parameters: 1, 2, 4 and 8 heads at width 128")
guess_count = lesson.predict("parameters of 8 heads at width 128?", 4 * 128**2 + 4 * 128)
guess_ratio = lesson.predict("that is how many times those of 1 head?", 1, "times")
counts = {h: nn.MultiHeadAttention(128, h, generator=mt.Generator(0)).parameter_count() for h in (1, 2, 4, 8)}
for h, count in counts.items():
    lesson.say(f"  {h} heads of {128 // h:3} channels: {count:,} parameters")
guess_count.see(counts[8], allowed=(66_048, 66_048))
guess_ratio.see(counts[8] / counts[1], allowed=(1, 1))
full_width = 8 * (3 * 128 * 128) + 8 * 128 * 128  # weights of 8 heads that keep d = D, and of their output
lesson.claim(
    "C26",
    measured=f"{counts[8]:,} parameters with 1, 2, 4 and 8 heads alike; 8 times only if each head kept d = D "
    f"({full_width:,} weights against {4 * 128 * 128:,})",
    setup="nn.MultiHeadAttention, width 128",
    verdict="wrong as stated",
)

# %% [markdown]
# Vaswani et al. chose $d = D/H$ *so that* the cost stays that of one head. What more heads cost is width: with
# $d = 16$, the scores of a head are a product of rank 16. The document also lets expressive power grow exponentially.
# Section 5 shows what does grow: the number of places to look.
#
# ## 5. Predict: two questions at once
#
# A sequence of 12 random symbols out of 16. At every position, answer both: *what stood just before*, and *what stood
# first*? One attention layer, 6,176 parameters, the same for every $H$. Guessing is right once in 16 times. Section 2
# said what one head cannot do; how good will it get?


# %%
class TwoQuestions(nn.Module):
    """Symbols (B, T) -> logits (B, T, 2, V): what stood before, what stood first."""

    V, T, D = 16, 12, 32

    def __init__(self, heads, generator, attention=nn.MultiHeadAttention):
        self.symbol = nn.Embedding(self.V, self.D, generator=generator)
        self.position = nn.Embedding(self.T, self.D, generator=generator)
        self.attention = attention(self.D, heads, generator=generator)
        self.answer = nn.Linear(self.D, 2 * self.V, generator=generator)

    def forward(self, x, capture=False):
        h = self.symbol(x) + self.position(np.arange(self.T))  # (B, T, D)
        y, probabilities = self.attention(h, capture=True) if capture else (self.attention(h), None)
        logits = self.answer(y).reshape(*x.shape, 2, self.V)  # (B, T, 2, V)
        return (logits, probabilities) if capture else logits


def questions(generator, batch):
    x = generator.integers(0, TwoQuestions.V, (batch, TwoQuestions.T))  # (B, T)
    return x, np.stack([np.roll(x, 1, axis=1), np.repeat(x[:, :1], x.shape[1], axis=1)], axis=-1)  # (B, T, 2)


def learn(heads, steps=250, **options):
    model, generator = TwoQuestions(heads, mt.Generator(0), **options), mt.Generator(1)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in progress(steps, f"{heads} heads"):
        x, y = questions(generator, 32)
        optimizer.zero_grad()
        mt.cross_entropy(model(x)[:, 1:], y[:, 1:]).backward()  # position 0 has nothing before it
        optimizer.step()
    return model


def accuracy(model):
    """(before, first): the shares of right answers where the two differ, position 2 and later."""
    x, y = questions(mt.Generator(2), 256)
    with mt.no_grad():
        return (model(x).data.argmax(axis=-1) == y)[:, 2:].mean(axis=(0, 1))


lesson.step("Two questions at once")
guess_one = lesson.predict("right answers with 1 head, in %?", 50, "%")
guess_two = lesson.predict("right answers with 2 heads, in %?", 100, "%")
models = {h: learn(h) for h in (1, 2, 4)}
for h, model in models.items():
    before, first = accuracy(model)
    lesson.say(f"  {h} heads, {model.parameter_count():,} parameters: before {before:.0%}, first {first:.0%}")
guess_one.see(100 * accuracy(models[1]).mean(), allowed=(25, 92))
guess_two.see(100 * accuracy(models[2]).mean(), allowed=(98, 100))

# %% [markdown]
# The same parameters, the same arithmetic, one more softmax. One head hangs between the two places, and gets some
# answers by weighing symbols differently. Two heads divide the work, and nobody told them how:

# %%
x, _ = questions(mt.Generator(3), 256)
with mt.no_grad():
    maps = {h: model(x, capture=True)[1] for h, model in models.items()}  # (B, H, T, T) each
found = statistics(maps[2].mean(axis=0))  # {name: (H,)}
for h in range(2):
    previous, first = found["previous token"][h], found["first token"][h]
    lesson.say(f"  head {h}: {previous:.2f} of its weight on the token before, {first:.2f} on the first")
head_grid(maps[2].mean(axis=0)[None], path=lesson.figure("two_heads"),
          title="Two questions, two heads: mean over 256 sequences")  # fmt: skip
heatmap(maps[1][0, 0], [str(s) for s in x[0]], path=lesson.figure("one_head"),
        title="One head has to look at both places in one row")  # fmt: skip

# %% [markdown]
# Now take away the head that looks at the token before. What is left of the answer to *its* question?


# %%
def without(model, head):
    """Accuracies (before, first) with one head switched off."""
    mask = np.ones(model.attention.heads, np.float32)
    mask[head] = 0
    model.attention.head_mask = mt.tensor(mask)
    result = accuracy(model)
    model.attention.head_mask = None
    return result


guess = lesson.predict("right on 'before' without the head that looks there, in %?", 100 / 16, "%")
guess.see(100 * without(models[2], found["previous token"].argmax())[0], allowed=(3, 15))
lost = {}
for h in (2, 4):
    lost[h] = np.array([without(models[h], head).min() for head in range(h)])  # the question that suffers more
    lesson.say(f"  {h} heads, one lost: the worse question falls to {', '.join(f'{r:.0%}' for r in lost[h])}")

# %% [markdown]
# With two heads each is indispensable; with four, some can go and some cannot. So an answer to C22 begins: **robust
# where there is redundancy, not because there are heads**. What about a language model?
#
# ## 6. A small GPT, and what its heads look at
#
# Two layers of eight heads, width 128 ($d = 16$), characters of the English that ships with Python. Lesson 04 is about
# everything else in it; here it only has to grow heads.

# %%
lesson.step("A GPT of 2 layers × 8 heads reads English")
text = data.default_corpus()
tokenizer = data.CharTokenizer.train(text)
train_ids, validation_ids = data.split(np.array(tokenizer.encode(text)))
gpt = GPT(GPTConfig(tokenizer.vocab_size, context=32, layers=2, heads=8, width=128), mt.Generator(0))
batches = data.BatchSampler(train_ids, 16, 32, mt.Generator(1))
optimizer, STEPS = optim.AdamW(optim.decay_groups(gpt, 0.1), lr=3e-3, betas=(0.9, 0.99)), 350
for step in progress(STEPS, "training"):
    for group in optimizer.param_groups:
        group["lr"] = optim.warmup_cosine(step, peak=3e-3, warmup=35, total=STEPS, floor=3e-4)
    ids, targets = next(batches)
    optimizer.zero_grad()
    gpt.loss(ids, targets).backward()
    optim.clip_grad_norm_(gpt.parameters(), 1.0)
    optimizer.step()


def validation():
    """Mean loss over the first 4,096 tokens held out, in nats a token; the same ones at every call."""
    with gpt.evaluating():
        held_out = data.evaluation_batches(validation_ids, 64, 32, limit=2)
        return float(np.mean([gpt.loss(ids, targets).item() for ids, targets in held_out]))


intact = validation()
lesson.note("loss after training, held out", intact, "nats a character")
ids, _ = next(data.evaluation_batches(validation_ids, 64, 32))
with gpt.evaluating():
    attentions = np.stack(gpt(ids, capture_attention=True)[1])  # (L, B, H, T, T)
numbers = statistics(attentions.mean(axis=1))  # of the mean over 64 sequences, {name: (L, H)}
numbers["entropy"] = statistics(attentions)["entropy"].mean(axis=1)  # of single rows: a mean is flatter than they are
lesson.say("  layer.head   previous  first   own    distance  entropy (0: one key, 1: all alike)")
for layer, head in np.ndindex(2, 8):
    row = [numbers[name][layer, head] for name in ("previous token", "first token", "diagonal", "mean distance")]
    lesson.say("  {}.{}         {:.2f}      {:.2f}    {:.2f}   {:5.1f}     {:.2f}".format(
        layer, head, *row, numbers["entropy"][layer, head]))  # fmt: skip

# %% [markdown]
# A row of weights that knew nothing would give the token before $1/(i+1)$ at position $i$, 0.1 on average. Which head
# leans on it most, and how much? Layer 0 sees raw letters and positions; a letter's best clue is the one before it.

# %%
guess = lesson.predict("weight that the best previous-token head gives to the token before?", 0.4)
best = divmod(int(numbers["previous token"].argmax()), 8)  # (layer, head), framed in the figure
guess.see(numbers["previous token"][best], allowed=(0.15, 1))
head_grid(attentions[:, 0], path=lesson.figure("heads"), highlight=[best],
          title="Sixteen heads read the same 32 characters")  # fmt: skip
heatmap(attentions[best[0], 0, best[1]], tokenizer.token_strings(ids[0]), path=lesson.figure("previous_token_head"),
        scale="sqrt", title=f"Layer {best[0]}, head {best[1]} leans on the letters just before")  # fmt: skip

# %% [markdown]
# No head is as clean as those of section 5: no task forced them, and 350 steps are few. Be careful with names like "the
# syntax head": a map says where a head looks, not what the model makes of it.
#
# ## 7. The claim: switch off every head
#
# `model.without_heads([(layer, head)])` leaves one term out of the sum. By how many percent does the loss rise, for
# the head in the middle of the ranking, and for the one that matters most?

# %%
lesson.step("Switch off each of the sixteen heads")
guess_median = lesson.predict("median rise of the loss without one head, in %?", 0.5, "%")
guess_worst = lesson.predict("rise without the most important head, in %?", 5, "%")
rise = np.zeros((2, 8))
for layer, head in np.ndindex(2, 8):
    with gpt.without_heads([(layer, head)]):
        rise[layer, head] = 100 * (validation() - intact) / intact
guess_median.see(np.median(rise), allowed=(0, 3))
guess_worst.see(rise.max(), allowed=(0.5, 40))
ranked = sorted(np.ndindex(2, 8), key=lambda pair: -rise[pair])
bars([f"layer {layer}, head {head}" for layer, head in ranked], [rise[pair] for pair in ranked],
     xlabel="rise of the loss without this head (%)", path=lesson.figure("without_each_head"),
     title="One head lost: a few matter, most hardly", highlight=[f"layer {ranked[0][0]}, head {ranked[0][1]}"],
     digits=2)  # fmt: skip

# %% [markdown]
# If heads did separate jobs, losing all eight of a layer would do the damage of the eight single losses added up. If
# they stand in for each other, it does more.

# %%
guess = lesson.predict("damage of losing layer 0's eight heads, over the sum of the single damages?", 1.5, "times")
with gpt.without_heads([(0, head) for head in range(8)]):
    layer_lost = 100 * (validation() - intact) / intact
guess.see(layer_lost / rise[0].sum(), allowed=(0.7, 6))
lesson.say(f"All of layer 0: {layer_lost:+.0f} %, the single ones add up to {rise[0].sum():+.0f} %.")
harmless = int((rise < 1).sum())
lesson.claim(
    "C22",
    measured=f"without one head the loss rises by {np.median(rise):.2f} % (median of 16; {rise.min():.2f} to "
    f"{rise.max():.1f} %), {harmless} of 16 heads cost under 1 %; all 8 of layer 0 together {layer_lost:.0f} %. Where "
    f"two heads share two tasks, losing one takes an answer from 100 % to {lost[2].max():.0%}; with four, the worst "
    f"falls to {lost[4].min():.0%}",
    setup=f"GPT 2 layers × 8 heads, width 128, {STEPS} steps, 4,096 characters held out; two-question task, 1 layer",
    verdict="partly",
)

# %% [markdown]
# True for *most* heads of this model, not for all. Michel et al. 2019 found the same in trained translators: most heads
# can go one at a time, a few cannot, and many at once hurt.
#
# ## 8. Break it: shapes that fit
#
# Two famous mistakes, and no error message in either. One forgets to transpose the heads back before they are joined.
# The other reshapes $(B, T, D)$ to $(B, H, T, d)$ directly, there and back, because the numbers of entries match.


# %%
class Variant(nn.MultiHeadAttention):
    def __init__(self, width, heads, bug=None, *, generator):
        super().__init__(width, heads, generator=generator)
        self.bug = bug

    def forward(self, x, capture=False):
        B, T, D = x.shape
        right, wrong = (B, T, self.heads, self.head_width), (B, self.heads, T, self.head_width)
        q, k, v = self.qkv(x).split(D, axis=2)  # (B, T, D) each
        if self.bug == "reshaped directly":
            q, k, v = (part.reshape(wrong) for part in (q, k, v))
        else:
            q, k, v = (part.reshape(right).transpose(1, 2) for part in (q, k, v))  # (B, H, T, d) each
        o = mt.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, d)
        return self.output((o if self.bug else o.transpose(1, 2)).reshape(B, T, D))


def reaches(attention, T=8):
    """(T, T) of 0 and 1: does output i change when input j does?"""
    x = mt.Generator(4).normal((1, T, 4))
    before, table = attention(mt.tensor(x)).data, np.zeros((T, T))
    for j in range(T):
        changed = x.copy()
        changed[:, j] += 1
        table[:, j] = (attention(mt.tensor(changed)).data != before).any(axis=(0, 2))
    return table


# %% [markdown]
# Eight tokens, two heads, causal. Output $i$ may depend on inputs $j \le i$, which makes 36 pairs; the other 28 are the
# future. Do it on paper: without the transpose, row $i$ of the result holds entries $4i \dots 4i+3$ of a block that is
# laid out head by head, so row 0 holds positions 0 *and 1* of head 0. How many future pairs leak?

# %%
lesson.step("Break it: two reshapes whose shapes fit")
guess = lesson.predict("future positions that leak without the transpose, of 28?", 10)
bugs = (None, "transpose forgotten", "reshaped directly")
variants = {bug or "right": partial(Variant, bug=bug) for bug in bugs}
tables = {name: reaches(make(4, 2, generator=mt.Generator(5))) for name, make in variants.items()}
guess.see(np.triu(tables["transpose forgotten"], 1).sum(), allowed=(10, 10))
assert np.array_equal(tables["right"], np.tri(8))
passed = {name: (not np.triu(table, 1).any(), table[7, 0] == 1) for name, table in tables.items()}
for name, (causal, reaching) in passed.items():
    learned = accuracy(learn(2, attention=variants[name])).mean()
    lesson.say(f"  {name:20} causal: {causal!s:6} 7 hears of 0: {reaching!s:6} two questions: {learned:.0%}")
assert passed["transpose forgotten"] == (False, True) and passed["reshaped directly"] == (True, False)
with drawing():
    figure = new_figure(7.2, 2.7)
    for axes, (name, table) in zip(figure.subplots(1, 3), tables.items()):
        axes.imshow(table + 2 * np.triu(table, 1), cmap="Blues", vmin=0, vmax=4)
        axes.set_title(name)
        leaks = " (dark: the future)" if np.triu(table, 1).any() else ""
        axes.set(xlabel=f"input j{leaks}", ylabel="output i", xticks=(0, 7), yticks=(0, 7))
    save(figure, lesson.figure("reshape_bugs"))

# %% [markdown]
# The second bug is the nastier one: **it passes the causality test**. Each "head" is a stretch of whole tokens cut into
# pieces, and token 7 never hears of token 0. Only a test of reach finds it, or a comparison with the naive loop. And
# both still train: the loss falls, only not far enough.
#
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | positions muddled, the future leaks | heads not transposed back | changing token $t$ leaves outputs before it |
# | never uses what is far away | $(B, T, D)$ reshaped to $(B, H, T, d)$ | output $T-1$ changes when token 0 does |
# | `AttributeError` at the first call | number of heads never stored (D2's sample) | call it once |

# %%
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Why not 64 heads of width 2?** Scores of rank 2 can hardly tell 100 keys apart. Widths of 32 to 128 are usual.
# * **Is concatenation necessary?** It is a sum in disguise: section 3 added the contributions of single heads.
# * **Why do some heads stare at the first token?** A softmax must put its weight somewhere; a head with nothing to say
#   needs a place that does no harm (Xiao et al. 2023 call it a sink).
#
# ## Exercises
#
# 1. `split_heads(x: np.ndarray, heads: int) -> np.ndarray`, $(B, T, D) \to (B, H, T, d)$, sharing memory with x.
#    <details><summary>Hint</summary>Split the last axis first, then swap two axes.</details>
# 2. `merge_heads(o: np.ndarray) -> np.ndarray`, its inverse. Why can this one not be a view?
#    <details><summary>Hint</summary>Which stride would the joined axis have?</details>
# 3. `head_importance(model: GPT, ids, targets) -> np.ndarray` $(L, H)$: $-\partial\text{loss}/\partial m_h$ at $m = 1$,
#    one backward for all heads. Compare its ranking with section 7.
#    <details><summary>Hint</summary>Set each `head_mask` to ones that require a gradient.</details>
# 4. `greedy_prune(model: GPT, loss: callable, count: int) -> list[tuple[int, int]]`: remove the least harmful head,
#    measure again, repeat. <details><summary>Hint</summary>`without_heads` takes the growing list.</details>
#
# ## Quiz
#
# 1. From 1 to 8 heads at width 512 the parameters grow **(a)** 8 times, **(b)** not at all, **(c)** by the biases.
#    — (b). (a) would need heads of full width. (c): the biases have $4D$ numbers, whatever $H$.
# 2. One head with weights ½ and ½ on two tokens **(a)** gives their mean, **(b)** keeps both vectors, **(c)** keeps
#    their order. — (a). (b) and (c) need a second row of weights.
# 3. Each single head can go at under 1 % cost. So **(a)** all can, **(b)** nothing follows for all, **(c)** half can. —
#    (b). (a) and (c) forget that heads stand in for each other; section 7 lost more than the sum.
# 4. A causality test passes. The heads are **(a)** right, **(b)** not leaking the future, **(c)** transposed. — (b).
#    The direct reshape passes too, so neither (a) nor (c) follows.

# %% [markdown] exercise="03.1"
# ### Exercise 03.1: `split_heads`
#
# Heads are a way of reading a row. Turn the channels of every token into heads without copying a byte; head h owns the
# channels h d … (h + 1) d - 1.
#
# ```python
# import numpy as np
#
#
# def split_heads(x, heads):
#     """x (B, T, D) -> (B, H, T, d) with H = heads and d = D / H, sharing memory with x."""
#     raise NotImplementedError("two views: one that splits an axis, one that swaps two")
# ```
#
# <details><summary>Hint 1</summary>Which axis is cut in two, and which two axes are then in the wrong order?</details>
# <details><summary>Hint 2</summary>(B, T, D) → (B, T, H, d) → (B, H, T, d). A reshape straight to the last mixes
# tokens with heads.</details>
# <details><summary>Hint 3</summary>`reshape(B, T, heads, D // heads)`, then `swapaxes(1, 2)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def split_heads(x, heads):
#     B, T, D = x.shape
#     return x.reshape(B, T, heads, D // heads).swapaxes(1, 2)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the direct reshape: `x.reshape(B, T, heads, D // heads).swapaxes(1, 2)` → `x.reshape(B, heads, T, D // heads)`
# * a copy: `.swapaxes(1, 2)` → `.swapaxes(1, 2).copy()`
# * heads interleaved: `x.reshape(B, T, heads, D // heads).swapaxes(1, 2)` →
#   `x.reshape(B, T, D // heads, heads).transpose(0, 3, 1, 2)`
# * heads in the third place: `.swapaxes(1, 2)` → `.swapaxes(2, 2)`
#
# </details>

# %% [markdown] exercise="03.2"
# ### Exercise 03.2: `merge_heads`
#
# The way back: the outputs of the heads side by side again. Why can this one, in general, not be a view?
#
# ```python
# import numpy as np
#
#
# def merge_heads(o):
#     """o (B, H, T, d), in any layout -> (B, T, D) with D = H d; the inverse of split_heads."""
#     raise NotImplementedError("swap, then join the last two axes")
# ```
#
# <details><summary>Hint 1</summary>Undo the two steps of split_heads, the last one first.</details>
# <details><summary>Hint 2</summary>The joined axis would need one stride; within a head it is one entry, from head to
# head T d entries.</details>
# <details><summary>Hint 3</summary>`o.swapaxes(1, 2)` is (B, T, H, d); `reshape(B, T, H * d)` copies where it
# must.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def merge_heads(o):
#     B, H, T, d = o.shape
#     return o.swapaxes(1, 2).reshape(B, T, H * d)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no swap: `o.swapaxes(1, 2).reshape` → `o.reshape`
# * heads interleaved: `o.swapaxes(1, 2).reshape` → `o.transpose(0, 2, 3, 1).reshape`
# * heads averaged: `o.swapaxes(1, 2).reshape(B, T, H * d)` → `np.repeat(o.mean(1), H, axis=-1)`
#
# </details>

# %% [markdown] exercise="03.3"
# ### Exercise 03.3: `head_importance`
#
# What is each head worth, by *one* backward for all of them? `head_mask` multiplies the outputs of a block's heads. At
# m = 1 the model is as it was, and -∂loss/∂m says how much the loss would rise, to first order, if a head grew
# fainter. Compare its ranking with section 7.
#
# ```python
# import numpy as np
#
# import minitransformer as mt
#
#
# def head_importance(model, ids, targets):
#     """A GPT, ids (B, T), targets (B, T) -> array (L, H): -∂loss/∂m of every head; each head_mask is left as it was.
#
#     A mask that is there already is replaced by ones while you measure, and put back.
#     """
#     raise NotImplementedError("give each block.attention a head_mask that requires a gradient; one backward")
# ```
#
# <details><summary>Hint 1</summary>`mt.tensor(..., requires_grad=True)` of H ones for each
# `block.attention.head_mask` in `model.blocks`.</details>
# <details><summary>Hint 2</summary>The masks must have the dtype of the model: that of
# `model.token_embedding.weight`. After `model.loss(ids, targets).backward()` each has a `.grad`.</details>
# <details><summary>Hint 3</summary>Keep the old masks in a list, and put them back in a `finally`. Stack the
# gradients, with a minus.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def head_importance(model, ids, targets):
#     attentions = [block.attention for block in model.blocks]
#     before = [attention.head_mask for attention in attentions]
#     dtype = model.token_embedding.weight.dtype
#     masks = [mt.tensor(np.ones(attention.heads, dtype), requires_grad=True) for attention in attentions]
#     try:
#         for attention, mask in zip(attentions, masks):
#             attention.head_mask = mask
#         model.loss(ids, targets).backward()
#     finally:
#         for attention, mask in zip(attentions, before):
#             attention.head_mask = mask
#     return -np.stack([mask.grad for mask in masks])
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the sign: `return -np.stack` → `return np.stack`
# * the masks stay: `for attention, mask in zip(attentions, before):` → `for attention, mask in ():`
# * every mask is removed, not put back: `zip(attentions, before)` → `zip(attentions, [None] * len(before))`
# * sizes only: `return -np.stack([mask.grad for mask in masks])` →
#   `return np.abs(np.stack([mask.grad for mask in masks]))`
# * at m = ½: `np.ones(attention.heads, dtype)` → `np.full(attention.heads, 0.5, dtype)`
#
# </details>

# %% [markdown] exercise="03.4"
# ### Exercise 03.4: `greedy_prune`
#
# Remove the head whose loss harms least, measure *again*, remove the next. Heads stand in for each other, so what one
# is worth changes when another has gone.
#
# ```python
# def greedy_prune(model, loss, count):
#     """A GPT, loss(model) -> float, count -> list of `count` pairs (layer, head), in the order of removal.
#
#     `model.config.layers` and `.heads` say how many there are. Ties: the first in order. The model is left as it was.
#     """
#     raise NotImplementedError("try every remaining head together with those removed so far; keep the best; repeat")
# ```
#
# <details><summary>Hint 1</summary>`with model.without_heads(pairs):` switches a list of heads off, and on again
# afterwards.</details>
# <details><summary>Hint 2</summary>Two loops: `count` rounds; in each, one measurement for every head that is still
# on.</details>
# <details><summary>Hint 3</summary>In each measurement the list is `removed + [head]`. Remember the smallest loss and
# whose it was.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def greedy_prune(model, loss, count):
#     heads = [(layer, head) for layer in range(model.config.layers) for head in range(model.config.heads)]
#     removed = []
#     for _ in range(count):
#         losses = {}
#         for head in heads:
#             if head not in removed:
#                 with model.without_heads([*removed, head]):
#                     losses[head] = loss(model)
#         removed.append(min(losses, key=losses.get))
#     return removed
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * measured one by one, never together: `[*removed, head]` → `[head]`
# * the most harmful first: `min(losses` → `max(losses`
# * only the first layer: `for layer in range(model.config.layers)` → `for layer in range(1)`
# * one too few: `for _ in range(count):` → `for _ in range(count - 1):`
#
# </details>
