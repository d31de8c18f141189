# %% [markdown]
# # Sampling
#
# How does a list of scores become a text that neither repeats itself nor falls apart? A model only says how likely each
# token is; somebody still has to choose. Here you build temperature, top-k and top-p from four tokens on paper, check
# them by laws that hold exactly, and then let one small GPT write the same pages under 21 settings, while a judge who
# has read other pages says how it likes them.
#
# | | |
# | --- | --- |
# | You will be able to | turn logits into a token, say what any setting costs, test a sampler |
# | Builds on | 04, a GPT on real text |
# | Time | 35 minutes to read, 20 s to run |
# | Files to open | `inference/sampling.py`, `inference/generation.py`, `random.py` |
# | Source | Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p); Witten & Bell 1991 (the judge) |
# | Documents | D3 §4.1: temperature, top-k, top-p. Its sample of code never draws a token; see section 7 |
# | Next | 09, the scaling curve |

# %%
import math
import re
import sys
from functools import partial

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, optim
from minitransformer.inference import probabilities, sample
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import heatmap
from minitransformer.visualization.style import INK, PALETTE, WIDTH, drawing, new_figure, save

lesson = Lesson("08", "Sampling")


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claim
#
# D3 §4.1 says: temperature controls how random the text is, and top-k and top-p balance diversity against coherence.
# "Balance" means that more of one costs some of the other. So there must be a curve, and every setting a place on it.
#
# ## 2. Numbers on paper
#
# Four tokens have the logits $x = (\ln 8, \ln 4, \ln 2, \ln 2)$. Their exponentials are 8, 4, 2, 2; divided by the sum,
# 16, they are $p = (\tfrac12, \tfrac14, \tfrac18, \tfrac18)$.
#
# * *Temperature* $\tau$ divides the logits. $e^{x/\tau} = (e^x)^{1/\tau}$: a power. At $\tau = \tfrac12$ we square:
#   64, 16, 4, 4, together 88. At $\tau = 2$ we take roots: 2.83, 2, 1.41, 1.41. At $\tau \to 0$ the first takes all.
# * *top-k* with $k = 2$ keeps ½ and ¼. They sum to ¾, so divide by that: $(\tfrac23, \tfrac13, 0, 0)$.
# * *top-p* keeps the likeliest tokens until they reach $p$. With 0.8: ½, then ¾, not yet there; then ⅞. Three stay,
#   $(\tfrac47, \tfrac27, \tfrac17, 0)$. Of two equal tokens the one with the lower index goes first.
#
# What is the likeliest token's probability at temperature ½? And how many tokens does top-p keep with 0.75 exactly?

# %%
lesson.step("On paper: four tokens")
guess_half = lesson.predict("probability of the likeliest token at temperature 1/2?", 8 / 11)
guess_kept = lesson.predict("tokens kept by top_p = 0.75?", 2)
x = np.log([8.0, 4.0, 2.0, 2.0])  # (V,)
guess_half.see(probabilities(x, temperature=0.5)[0], allowed=(8 / 11 - 1e-12, 8 / 11 + 1e-12))
guess_kept.see((probabilities(x, top_p=0.75) > 0).sum(), allowed=(2, 2))
np.testing.assert_allclose(probabilities(x, top_k=2), [2 / 3, 1 / 3, 0, 0], rtol=1e-12)
np.testing.assert_allclose(probabilities(x, top_p=0.8), [4 / 7, 2 / 7, 1 / 7, 0], rtol=1e-12)
for temperature in (0.0, 0.5, 1.0, 2.0):
    lesson.say(f"  temperature {temperature}: {np.round(probabilities(x, temperature), 3)}")

# %% [markdown]
# ## 3. The formula, the naive code, the engine
#
# $$p_i = \frac{e^{x_i/\tau}}{\sum_j e^{x_j/\tau}},\qquad
# S = \text{the } k \text{ likeliest, or the smallest set of likeliest with } \sum_{i \in S} p_i \ge p,\qquad
# p_i \leftarrow \frac{p_i\,[i \in S]}{\sum_{j \in S} p_j}$$
#
# Temperature comes first, then top-k, then top-p of what is left. Then one number $u$, uniform on $[0, 1)$, picks the
# first token at which the running sum of $p$ exceeds $u$.


# %%
def naive_probabilities(x, temperature, top_k=None, top_p=None):
    """Logits x (V,) -> probabilities (V,), as one would say it aloud."""
    p = np.exp((x - x.max()) / temperature)  # (V,): the largest is 1, so nothing overflows
    p /= p.sum()  # (V,)
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))  # V indices, the likeliest first
    if top_k is not None:
        p[order[top_k:]] = 0.0  # (V - k,) of them
        p /= p.sum()
    if top_p is not None:
        mass = 0.0
        for i in order:
            if mass >= top_p:  # those before it are enough: the one that crosses the line was still kept
                p[i] = 0.0
            mass += p[i]
        p /= p.sum()
    return p


def naive_draw(p, u):
    """Probabilities p (V,), u in [0, 1) -> one token."""
    running = 0.0
    for token, share in enumerate(p):
        running += share
        if running > u:
            return token


logits = mt.Generator(0).normal((50, 40), std=2.0, dtype=np.float64)  # (B, V)
for options in ({}, {"top_k": 7}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.8}):
    for temperature in (0.3, 1.0, 1.8):
        fast = probabilities(logits, temperature, **options)  # (B, V)
        naive = np.stack([naive_probabilities(row, temperature, **options) for row in logits])  # (B, V)
        np.testing.assert_allclose(fast, naive, rtol=1e-12)
u = mt.Generator(1).uniform((50,), dtype=np.float64)  # (B,)
drawn = sample(fast, mt.Generator(1))  # (B,), from the same u
assert drawn.tolist() == [naive_draw(row, each) for row, each in zip(naive, u)]
lesson.step("Naive and fast agree")
lesson.say("12 combinations of temperature, top-k and top-p on 50 rows of 40 logits, and the tokens drawn: the same.")

# %% [markdown]
# ## 4. What must hold exactly
#
# * Temperature never changes the order of the tokens; as it falls to 0, the text becomes *greedy*.
# * top-k leaves exactly k tokens, ties or not. top-p leaves a set that reaches $p$, and would not without its smallest.
# * Entropy $H = -\sum p_i \ln p_i$ only rises with temperature. Better, we know how fast: $\dfrac{dH}{d\tau} =
#   \dfrac{\operatorname{Var}_p(x)}{\tau^3}$, and a variance is never negative.
#
# The last from $\ln p_i = x_i/\tau - \ln Z$, so that $H = \ln Z - \bar x/\tau$, with $\bar x$ the mean logit under $p$.
# The derivatives of $\ln Z$ and of $1/\tau$ cancel. What stays is $-\frac1\tau\frac{d\bar x}{d\tau}$, and
# $\frac{d\bar x}{d\tau} = -\operatorname{Var}_p(x)/\tau^2$.
#
# And there is a second way to draw. Add to every $x_i/\tau$ a number $g_i = -\ln(-\ln u_i)$ of its own (*Gumbel noise*)
# and take the largest: token $i$ wins with probability $p_i$, exactly. No sum, no softmax; exercise 4. Of 40,000 such
# draws from our four tokens, how many give the first?

# %%
lesson.step("Laws, and 40,000 draws")
guess_first = lesson.predict("of 40,000 draws by Gumbel noise, how many give token 0?", 20_000)
tied = np.zeros((3, 40))
order, previous = np.argsort(-logits, axis=-1), -1.0
for tau in (0.2, 0.5, 1.0, 1.5, 3.0):
    p = probabilities(logits, tau)
    assert np.array_equal(np.argsort(-p, axis=-1), order)

    def entropy(tau):
        p = probabilities(logits, tau)
        return -(p * np.log(p)).sum(axis=-1)  # (B,), in nats

    variance = (p * logits**2).sum(axis=-1) - (p * logits).sum(axis=-1) ** 2  # (B,)
    slope = (entropy(tau + 1e-5) - entropy(tau - 1e-5)) / 2e-5  # (B,)
    np.testing.assert_allclose(slope, variance / tau**3, rtol=1e-5, atol=1e-7)
    for k in (1, 5, 40):
        assert ((probabilities(np.concatenate([logits, tied]), tau, top_k=k) > 0).sum(axis=-1) == k).all()
    for top_p in (0.1, 0.5, 0.9):
        kept = probabilities(logits, tau, top_p=top_p) > 0
        mass, smallest = np.where(kept, p, 0).sum(axis=-1), np.where(kept, p, 1).min(axis=-1)
        assert (mass >= top_p).all() and (mass - smallest < top_p).all()
assert np.array_equal(probabilities(logits, 1e-6), probabilities(logits, 0.0))  # greedy is the limit
assert (logits.argmax(axis=-1) == probabilities(logits, 0.0).argmax(axis=-1)).all()


def chi_square(tokens, p):
    expected = len(tokens) * p
    return float(((np.bincount(tokens, minlength=len(p)) - expected) ** 2 / expected).sum())


u = mt.Generator(2).uniform((40_000, 4), dtype=np.float64)
with np.errstate(divide="ignore"):  # u = 0 gives -ln(inf) = -inf: a token that does not win
    gumbel = (x - np.log(-np.log(u))).argmax(axis=-1)  # (n,)
guess_first.see((gumbel == 0).sum(), allowed=(19_500, 20_500))  # five standard deviations of 100
p = probabilities(x)
inverted = sample(np.broadcast_to(p, (40_000, 4)), mt.Generator(3))
for how, tokens in (("running sum", inverted), ("Gumbel", gumbel)):
    chi2 = chi_square(tokens, p)
    chance = math.erfc(math.sqrt(chi2 / 2)) + math.sqrt(2 * chi2 / math.pi) * math.exp(-chi2 / 2)
    lesson.say(f"  {how:11}: χ² = {chi2:.2f}; a right sampler has a larger one in {chance:.0%} of the cases")
    assert chi2 < 30  # which a right one exceeds once in 700,000

# %% [markdown]
# ## 5. A writer, a judge, and pages that neither has read
#
# The paragraphs of the corpus are dealt out: 60 % to the writer, a GPT of two layers; 30 % to the judge; 10 % to
# nobody. These last are the *real text* that all else is held against.
#
# The judge is no network: for each letter it counts what followed the last 4, 3, 2, 1, 0 letters in *its* pages, and
# blends the counts (Witten & Bell: what is seen in more kinds of company is trusted less). It gives bits a letter;
# $2^{\text{bits}}$ is its perplexity. It is impartial, and narrow: it sees five letters at a time and forgets all else.


# %%
class Judge:
    """How surprising is each letter of a text? Interpolated counts of 1 to 5 letters."""

    def __init__(self, text, longest=5):
        self.codes = {letter: i for i, letter in enumerate(sorted(set(text)), start=1)}  # 0: any other letter
        self.size, ids = len(self.codes) + 1, self.encode(text)
        self.tables = []
        for n in range(1, longest + 1):
            grams, counts = np.unique(self.windows(ids, n), return_counts=True)  # (G,) each
            pasts, first = np.unique(grams // self.size, return_index=True)  # the n - 1 letters before; (P,) each
            self.tables.append((grams, counts, pasts, np.add.reduceat(counts, first), np.diff([*first, len(grams)])))

    def encode(self, text):
        return np.array([self.codes.get(letter, 0) for letter in text], np.int64)

    def windows(self, ids, n):
        """ids (N,) -> each run of n letters as one number in base `size`, (N - n + 1,)."""
        return sum(ids[i : len(ids) - n + 1 + i] * self.size ** (n - 1 - i) for i in range(n))

    def probabilities(self, ids):
        """ids (N,) -> the probability of each letter, given up to four before it (N,)."""
        p = np.full(len(ids), 1 / self.size)
        for n, (grams, counts, pasts, totals, kinds) in enumerate(self.tables, start=1):
            found = self.windows(ids, n)  # (N - n + 1,)
            count, total = look_up(grams, counts, found), look_up(pasts, totals, found // self.size)
            kind = look_up(pasts, kinds, found // self.size)  # different letters that followed
            shorter = p[n - 1 :]
            p[n - 1 :] = np.where(total > 0, (count + kind * shorter) / np.maximum(total + kind, 1), shorter)
        return p

    def bits(self, text):
        return -np.log2(self.probabilities(self.encode(text)))  # a letter each


def look_up(keys, values, wanted):
    """values where keys == wanted, else 0; keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


corpus = data.default_corpus()
paragraphs = np.array(corpus.split("\n\n"), dtype=object)
dealt = mt.Generator(0).permutation(len(paragraphs))
cuts = [6 * len(dealt) // 10, 9 * len(dealt) // 10]
writers, judges, real_text = ("\n\n".join(paragraphs[part]) for part in np.split(dealt, cuts))
judge = Judge(judges)
after = np.array([[*judge.encode("the "), letter] for letter in range(judge.size)])  # every letter after "the "
assert abs(sum(judge.probabilities(row)[-1] for row in after) - 1) < 1e-9  # a distribution
tokenizer = data.BPETokenizer.train(writers, 512)
train_ids, real_ids = (np.array(tokenizer.encode(text)) for text in (writers, real_text))
V, T, STEPS, PEAK = tokenizer.vocab_size, 96, 1500, 2e-3

lesson.step("A writer and a judge")
gpt = GPT(GPTConfig(V, context=T, layers=2, heads=4, width=96), mt.Generator(0))
for block in gpt.blocks:  # an initial scale of 0.02 suits wide models; at width 96 twice that learns faster
    for layer in (block.attention.qkv, block.attention.output, block.feed_forward.up, block.feed_forward.down):
        layer.weight.data *= 2
batches = data.BatchSampler(train_ids, 6, T, mt.Generator(1))
optimizer = optim.AdamW(gpt.parameters(), betas=(0.9, 0.99))
for step in progress(STEPS, "the writer learns"):
    for group in optimizer.param_groups:
        group["lr"] = optim.warmup_cosine(step, peak=PEAK, warmup=100, total=STEPS, floor=PEAK / 20)
    if step == STEPS // 4:
        early = gpt.state_dict()
    optimizer.zero_grad()
    gpt.loss(*next(batches)).backward()
    optim.clip_grad_norm_(gpt.parameters(), 1.0)
    optimizer.step()
windows = next(data.evaluation_batches(real_ids, 24, T))  # ids and targets (24, T)
with gpt.evaluating():
    real_logits = gpt(windows[0]).numpy()  # (24, T, V): what the writer expects on real text
    loss = gpt.loss(*windows).item()
letters_a_token = len(real_text) / len(real_ids)
lesson.say(f"  {len(writers):,} letters for the writer, {len(judges):,} for the judge, {len(real_text):,} for nobody")
in_bits = loss / math.log(2) / letters_a_token
lesson.say(f"  on the last the writer pays {loss:.2f} nats a token of {letters_a_token:.1f} letters, {in_bits:.2f} "
           f"bits a letter; the judge {judge.bits(real_text).mean():.2f}")  # fmt: skip

# %% [markdown]
# First one single choice: a real beginning of a sentence, the tokens that the writer expects next, at eight
# temperatures. The entropy in bits stands at each row: 3 bits are as much as eight equal choices.

# %%
sentences = [part for part in real_text.split("\n\n") if re.fullmatch(r"[A-Z][^|*+\-]{60,150}\.", part)]
sentence = np.array(tokenizer.encode(sentences[0]))[:28]  # (n,)
with gpt.evaluating():
    expected = gpt(sentence[None]).numpy()[0]  # (n, V)
temperatures = (0.0, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
read = 4  # tokens read
rows = np.stack([probabilities(expected[read - 1], tau) for tau in temperatures])  # (8, V)
likeliest = np.argsort(-rows[4])[:10]
bits = (rows * -np.log2(np.where(rows > 0, rows, 1))).sum(axis=-1) + 0.0  # no minus zero
labels = [f"{tau:g}    {b:.1f} bits" for tau, b in zip(temperatures, bits)]
path = lesson.figure("temperature")
title = f"What follows {tokenizer.decode(sentence[:read])!r}: temperature keeps the order, not the shares"
figure = heatmap(rows[:, likeliest], labels, tokenizer.token_strings(likeliest), normalised=False, vmax=1,
                 annotate=True, scale="sqrt", label="probability", title=title)  # fmt: skip
figure.axes[0].set(xlabel="next token: the ten likeliest", ylabel="temperature, and entropy")
save(figure, path)
assert (np.diff(bits) >= 0).all()

# %% [markdown]
# ## 6. Predict: 21 settings, quality and diversity
#
# Each setting continues the same 32 beginnings of 16 tokens by 80 more, all in one batch, and with the same uniform
# numbers, so that no setting is luckier than another. We measure
#
# * *quality*: bits a letter that the judge pays, ± one standard error; the share of words that occur in the corpus;
# * *diversity*: different pairs of neighbouring tokens among all pairs (*distinct-2*); of the runs of four tokens, the
#   share that was there before in the same text (*repeated*) or is in another of the 32 texts (*shared*).


# %%
P, NEW = 32, 80
starts = np.linspace(0, len(real_ids) - T, P).astype(int)
pages = real_ids[starts[:, None] + np.arange(T)]  # (P, T): real text
prompts = pages[:, : T - NEW]  # (P, 16)
known_words = set(re.findall(r"[^\W\d_]+", corpus))


def write(choices):
    """{name: logits (P, V) -> probabilities (P, V)} -> {name: tokens (P, NEW)}, all in one batch of len(choices)·P."""
    generators = [mt.Generator(7) for _ in choices]
    fresh, written = np.tile(prompts, (len(choices), 1)), []  # (S P, 16)
    cache = gpt.new_cache(len(fresh))
    with gpt.evaluating():
        for _ in progress(NEW, "writing"):
            logits = gpt(fresh, cache, last_only=True).numpy().reshape(len(choices), P, V)
            chosen = [sample(p(x), g) for p, x, g in zip(choices.values(), logits, generators)]
            fresh = np.concatenate(chosen)[:, None]  # (S P, 1)
            written.append(fresh)
    return dict(zip(choices, np.concatenate(written, axis=1).reshape(len(choices), P, NEW)))


def grams(row, n):
    return list(zip(*(row[i:].tolist() for i in range(n))))


def measure(texts):
    """Tokens (P, NEW) -> bits a letter, known words, distinct-2, repeated, shared, standard error of the bits."""
    bits, words = [], []
    for prompt, text in zip(prompts, texts):
        begin = tokenizer.decode(prompt)
        whole = tokenizer.decode([*prompt, *text])
        bits.append(judge.bits(whole)[len(begin) :].mean())
        words += re.findall(r"[^\W\d_]+", whole[len(begin) :])[1:-1]  # the first and the last may be cut
    pairs = [pair for text in texts for pair in grams(text, 2)]
    fours = [grams(text, 4) for text in texts]
    repeated = np.mean([1 - len(set(four)) / len(four) for four in fours])
    others = [set().union(*(four for j, four in enumerate(fours) if j != i)) for i in range(len(fours))]
    shared = np.mean([np.mean([g in other for g in four]) for four, other in zip(fours, others)])
    known = np.mean([word in known_words for word in words])
    return np.mean(bits), known, len(set(pairs)) / len(pairs), repeated, shared, np.std(bits, ddof=1) / len(bits) ** 0.5


families = {
    "temperature": {tau: {"temperature": tau} for tau in (0.0, 0.3, 0.5, 0.7, 0.8, 1.0, 1.3, 2.0)},
    "top-k": {k: {"top_k": k} for k in (2, 3, 5, 10, 20, 50)},
    "top-p": {top_p: {"top_p": top_p} for top_p in (0.2, 0.4, 0.6, 0.8, 0.9)},
}
settings = {f"{family} {value:g}": options for family, some in families.items() for value, options in some.items()}
settings |= {f"{tau:g}, then top-p {p:g}": {"temperature": tau, "top_p": p} for tau, p in ((0.8, 0.9), (2.0, 0.6))}

# %% [markdown]
# Greedy takes the likeliest token every time. How much of what it writes has it written before, in the same text? At
# temperature 2, how many words are words? And at temperature 1, where the writer says what it believes, is the judge
# as content as with real text?

# %%
lesson.step(f"{len(settings)} settings, {P} texts each")
guess_repeated = lesson.predict("greedy: runs of 4 tokens that were there before in the text, in %?", 50, "%")
guess_words = lesson.predict("temperature 2: words that occur in the corpus, in %?", 50, "%")
guess_bits = lesson.predict("temperature 1: the judge's bits a letter above those of real text?", 1.0, "bits")
choices = {name: partial(probabilities, **options) for name, options in settings.items()}
written = write(choices)
measured = {"real text": measure(pages[:, T - NEW :])} | {name: measure(texts) for name, texts in written.items()}
lesson.say("                            bits        words  distinct-2  repeated  shared")
for name, (bits, known, distinct, repeated, shared, error) in measured.items():
    lesson.say(f"  {name:20} {bits:7.2f} ± {error:.2f}  {known:6.0%}  {distinct:10.2f}  {repeated:8.0%}  {shared:6.0%}")
guess_repeated.see(100 * measured["temperature 0"][3], allowed=(15, 100))
guess_words.see(100 * measured["temperature 2"][1], allowed=(15, 75))
guess_bits.see(measured["temperature 1"][0] - measured["real text"][0], allowed=(0.2, 2.5))
for name in ("temperature 0", "temperature 0.7", "top-p 0.6", "temperature 2"):
    lesson.say(f"{name}: {tokenizer.decode(prompts[3])!r} … {tokenizer.decode(written[name][3])[:150]!r}")

# %% [markdown]
# Then the plane. And one curve more: the same writer as it was after a quarter of its training.

# %%
late = gpt.state_dict()
gpt.load_state_dict(early)
young = {name: measure(texts) for name, texts in write({n: choices[n] for n in choices if "temp" in n}).items()}
gpt.load_state_dict(late)
path = lesson.figure("plane")
with drawing():
    figure = new_figure(WIDTH, 5.2)
    axes = figure.add_subplot()
    curves = {name: [measured[f"{name} {value:g}"] for value in some] for name, some in families.items()}
    curves["temperature, a quarter of the training"] = list(young.values())
    for (name, rows), colour in zip(curves.items(), [*PALETTE[:3], "#aeb8c2"]):
        beside = {"xytext": (8, 4) if name == "temperature" else (-8, -9), "textcoords": "offset points"}
        bits, _, distinct = np.array(rows).T[:3]
        axes.plot(distinct, bits, "o-", color=colour, markersize=4, label=name)
        for value, x, y in zip(families.get(name, ()), distinct, bits):
            axes.annotate(f"{value:g}", (x, y), fontsize=7.5, color=colour, ha="center", **beside)
    real_bits, _, real_distinct = measured["real text"][:3]
    axes.plot(real_distinct, real_bits, "*", color=INK, markersize=15)
    for text, name in (("real text", "real text"), ("loops", "temperature 0"), ("noise", "temperature 2")):
        at = measured[name][2], measured[name][0]
        axes.annotate(text, at, xytext=(18, -3), textcoords="offset points", color=INK, fontweight="bold")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid()
    axes.set(xlabel="diversity: distinct pairs of tokens", ylabel="what the judge pays (bits a letter), less is up")
    axes.set_title("Each knob walks down a slope; training lifts the slope")
    axes.legend(frameon=False, loc="lower left")
    save(figure, path)
assert measured["top-p 0.2"][0] < real_bits and young["temperature 1"][0] > measured["temperature 1"][0]
assert not any(row[0] <= real_bits and row[2] >= real_distinct for row in [measured[name] for name in settings])

# %% [markdown]
# Read it from the left. *Cold* text pleases the judge more than real text does, and goes in circles: people do not
# always say the likeliest thing. *Hot* text is as varied as one likes, and noise. No setting reaches the star: a knob
# chooses a place on the slope, and training lifts the slope. Temperature and top-p lie close together here; a small k
# lies lower, as one expects of a knob that allows k tokens also where only one is right.
#
# ## 7. Predict: the nucleus, wide and narrow
#
# top-p keeps as many tokens as are needed. On real text, of 512 tokens, how many are needed for 0.9, in the median? And
# how often is the token that really comes next among them? (If the writer knows what it does not know: 90 %.)

# %%
lesson.step("The nucleus along real text")
guess_median = lesson.predict("tokens in the nucleus at p = 0.9, median?", 40)
guess_inside = lesson.predict("real next tokens that lie in the nucleus, in %?", 90, "%")
p = probabilities(real_logits)  # (24, T, V)
nucleus = probabilities(real_logits, top_p=0.9) > 0  # (24, T, V)
sizes, inside = nucleus.sum(axis=-1), np.take_along_axis(nucleus, windows[1][..., None], axis=-1).mean()
guess_median.see(np.median(sizes), allowed=(8, 150))
guess_inside.see(100 * inside, allowed=(80, 97))
top_20 = np.sort(p, axis=-1)[..., -20:].sum(axis=-1)  # (24, T)
lesson.say(f"  from {sizes.min()} to {sizes.max()} tokens; one alone at {(sizes == 1).mean():.0%} of the places. "
           f"top-k 20 keeps from {top_20.min():.0%} to {top_20.max():.1%} of the probability")  # fmt: skip
ranks = 40
shown = -np.sort(-probabilities(expected), axis=-1)[:, :ranks]  # (n, 40), the likeliest first
wide = (probabilities(expected, top_p=0.9) > 0).sum(axis=-1)  # (n,)
labels = [f"{token}  {size:3}" for token, size in zip(tokenizer.token_strings(sentence), wide)]
path = lesson.figure("nucleus")
title = "The nucleus (p = 0.9) is as wide as the writer is unsure"
figure = heatmap(shown, labels, normalised=False, scale="log", vmax=1, visible=np.arange(ranks) < wide[:, None],
                 label="probability", title=title)  # fmt: skip
figure.axes[0].set(xlabel="next token, by rank", ylabel="text so far, downwards; tokens in the nucleus")
figure.axes[0].set_xticks([0, 9, 19, 29, 39], labels=["1", "10", "20", "30", "40"], rotation=0)
save(figure, path)

# %% [markdown]
# ### The claim
#
# D3 §4.1 in two parts: what it says, and its sample of code, which passes `temperature=0.7` to the `generate` of a
# well-known library and nothing else. There the default is greedy: without `do_sample=True` no token is drawn, and
# temperature is left unused. Would it matter if it were used, and the likeliest token still taken?

# %%
same_diversity, traded = {}, True
for name in families:
    bits, _, distinct, _, _, error = np.array(curves[name]).T
    same_diversity[name] = float(np.interp(0.6, distinct, bits))
    noise = np.hypot(error[1:], error[:-1])  # of the difference of two neighbours
    traded &= (np.diff(distinct) > 0).all() and (np.diff(bits) > -2 * noise).all()  # no step back beyond chance
    traded &= bits[-1] - bits[0] > 3 * np.hypot(error[0], error[-1])  # and a clear way from end to end
cold, hot = measured["temperature 0"], measured["temperature 2"]
lesson.claim(
    "D3 §4.1: temperature sets randomness; top-k and top-p balance diversity and coherence",
    measured=f"greedy {cold[0]:.1f} bits a letter, distinct-2 {cold[2]:.2f}; temperature 2 {hot[0]:.1f} and "
    f"{hot[2]:.2f}; real text {real_bits:.1f} and {real_distinct:.2f}. At distinct-2 0.6: "
    + ", ".join(f"{name} {bits:.2f}" for name, bits in same_diversity.items()) + " bits",
    setup=f"GPT 2 layers, width 96, {STEPS} steps, {V} tokens; {P} × {NEW} tokens a setting; judge: 5-grams of letters "
    "from other paragraphs",
    verdict="reproduced" if traded else "partly",
)  # fmt: skip
changed = int((probabilities(real_logits, 0.7).argmax(axis=-1) != real_logits.argmax(axis=-1)).sum())
lesson.claim(
    "D3 §4.1: its sample of code sets the randomness by temperature = 0.7 alone",
    measured=f"the likeliest token changes at {changed} of {sizes.size:,} places: the text is the same",
    setup="lesson 08's GPT on real text; the sample's library takes the likeliest token unless do_sample=True",
    verdict="wrong as stated",
)

# %% [markdown]
# ## 8. Break it
#
# **Softmax twice.** `probabilities` wants logits and is given probabilities, all between 0 and 1. At temperature 0.7,
# what can the likeliest of 512 tokens reach at most? ($e^{1/0.7}$ against 511 times $e^0$.)
#
# **The token that crosses the line is dropped.** Where one token has more than $p$, nothing is left, and 0/0 is NaN. At
# how many places, for $p$ = 0.9?
#
# **Renormalisation is forgotten**, and the draw is `(cumsum > u).argmax()`. What was cut off is lost: then $u$ may lie
# above the whole sum, no entry is larger, and `argmax` of nothing is 0. How often does top-k 10 draw token 0 so?

# %%
lesson.step("Break it")
guess_top = lesson.predict("softmax twice: the largest probability of all places, in %?", 0.8, "%")
guess_nothing = lesson.predict("crossing token dropped: places where nothing is left, in %?", 3, "%")
guess_zero = lesson.predict("not renormalised: draws that give token 0, in %?", 30, "%")
bound = math.exp(1 / 0.7) / (V - 1 + math.exp(1 / 0.7))
guess_top.see(100 * probabilities(probabilities(real_logits), 0.7).max(), allowed=(0.3, 100 * bound))


def twice(x):
    return probabilities(probabilities(x), 0.7)


def strict_top_p(x, top_p=0.9):
    p = probabilities(x)  # (..., V)
    order = np.argsort(-p, axis=-1)
    ordered = np.take_along_axis(p, order, axis=-1)
    ordered[np.cumsum(ordered, axis=-1) > top_p] = 0.0  # the mistake: the crossing token goes as well
    np.put_along_axis(p, order, ordered, axis=-1)
    return p  # to be divided by its sum


def careless_draw(p, generator):
    u = generator.uniform(p.shape[:-1], dtype=np.float64)
    return (np.cumsum(p, axis=-1) > u[..., None]).argmax(axis=-1)  # the mistake: the sum is taken to be 1


guess_nothing.see(100 * (strict_top_p(real_logits).sum(axis=-1) == 0).mean(), allowed=(0.3, 20))
cut = np.where(probabilities(real_logits, top_k=10) > 0, p, 0)  # (24, T, V), sums below 1
zeros, lost = (careless_draw(cut, mt.Generator(5)) == 0).mean(), 1 - cut.sum(axis=-1).mean()
guess_zero.see(100 * zeros, allowed=(8, 60))
assert abs(zeros - lost) < 5 * 0.5 / sizes.size**0.5  # the draws of token 0 are the lost mass, within chance
assert (sample(cut, mt.Generator(5)) == 0).mean() < 0.01  # the engine multiplies u by the sum
noise = measure(write({"twice": twice})["twice"])
lesson.say(f"softmax twice, at 0.7: {noise[0]:.1f} bits a letter, {noise[1]:.0%} of the words known; rightly "
           f"{measured['temperature 0.7'][0]:.1f} and {measured['temperature 0.7'][1]:.0%}")  # fmt: skip
lesson.finish()

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | noise at every temperature | softmax twice | $p_i/p_j = e^{(x_i - x_j)/\tau}$ |
# | 0.5 writes as 0.25 should | temperature applied twice | the same |
# | NaN, but only where the model is sure | the crossing token is dropped | what is kept sums to at least $p$ |
# | token 0 (here a zero byte) out of nowhere | mass lost | rows sum to 1; χ² of many draws |
# | more than k tokens now and then | ties: `p >= kth largest` | count them on equal logits |
#
# ## Questions learners ask
#
# * **Which setting is best?** For what? Where one answer is right, stay cold. For a story go to where real text lies.
# * **All three at once?** Begin with one. Each cuts the tail; together it is hard to say which did what.
# * **Is temperature 1 not "the true distribution"?** The writer's, not the world's. A model spreads its error thinly
#   over hundreds of unlikely tokens; in a long text one of them comes soon, and then it continues *that*.
# * **Is low perplexity quality?** Only near real text. Below it, it measures how well a text avoids saying anything.
#
# ## Exercises
#
# 1. `temperature_softmax(logits: np.ndarray, temperature: float) -> np.ndarray`, row by row; 0 is greedy.
#    <details><summary>Hint</summary>Take the largest away *before* dividing; 0 is a case of its own.</details>
# 2. `top_k_filter(p: np.ndarray, k: int) -> np.ndarray`: exactly k stay, also when some are equal.
#    <details><summary>Hint</summary>A stable sort of `-p` keeps the order of equals.</details>
# 3. `top_p_filter(p: np.ndarray, top_p: float) -> np.ndarray`: the smallest set of likeliest that reaches top_p.
#    <details><summary>Hint</summary>A token stays if what comes *before* it has not reached top_p yet.</details>
# 4. `gumbel_sample(logits: np.ndarray, temperature: float, generator: mt.Generator) -> np.ndarray`: draw without a sum.
#    <details><summary>Hint</summary>A noise of its own for each entry; then the largest.</details>
#
# ## Quiz
#
# 1. Temperature 2 instead of 1 **(a)** halves every probability, **(b)** takes square roots, then divides by the sum,
#    **(c)** adds noise. — (b). (a) would not sum to 1. (c) is what drawing does, at any temperature.
# 2. One token has probability 0.95. top-p 0.9 keeps **(a)** none, **(b)** one, **(c)** two.
#    — (b). (a) is the mistake of section 8. (c): one reaches 0.9 already.
# 3. Cold text has fewer bits than real text. So **(a)** it is better, **(b)** the judge is broken, **(c)** likely is
#    not the same as good. — (c). (a): look at *repeated*. (b): it does its work, on letters.
# 4. The nucleus is wide where **(a)** the model is unsure, **(b)** the vocabulary is large, **(c)** the text is long.
#    — (a). (b) only sets the limit. (c) plays no part.

# %% [markdown] exercise="08.1"
# ### Exercise 08.1: `temperature_softmax`
#
# Logits to probabilities at any temperature from 0 up. At 0 everything is on the largest logit, on the first of them
# where several are equal. Large logits and tiny temperatures must not overflow.
#
# ```python
# import numpy as np
#
#
# def temperature_softmax(logits, temperature):
#     """logits (..., V), temperature >= 0 -> probabilities (..., V) of the logits' dtype, each row with sum 1."""
#     raise NotImplementedError("the largest away, divide, exp, divide by the sum; temperature 0 apart")
# ```
#
# <details><summary>Hint 1</summary>A constant taken from all logits of a row changes nothing. Which constant keeps exp
# small?</details>
# <details><summary>Hint 2</summary>For temperature 0: `argmax` gives the first among equals; a row of the identity
# matrix is all on one.</details>
# <details><summary>Hint 3</summary>`np.exp((logits - logits.max(-1, keepdims=True)) / temperature)`, then divide by its
# sum over the last axis.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def temperature_softmax(logits, temperature):
#     if temperature == 0:
#         return np.eye(logits.shape[-1], dtype=logits.dtype)[logits.argmax(-1)]
#     p = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
#     return p / p.sum(-1, keepdims=True)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * multiplied, not divided: `/ temperature)` → `* temperature)`
# * divided after exp: `np.exp((logits - logits.max(-1, keepdims=True)) / temperature)` →
#   `np.exp(logits - logits.max(-1, keepdims=True)) / temperature`
# * overflow: `logits - logits.max(-1, keepdims=True)` → `logits`
# * the sum of the whole batch: `p.sum(-1, keepdims=True)` → `p.sum()`
# * temperature 0 is taken for 1: `return np.eye(logits.shape[-1], dtype=logits.dtype)[logits.argmax(-1)]` →
#   `temperature = 1`
# * ties share at temperature 0: `np.eye(logits.shape[-1], dtype=logits.dtype)[logits.argmax(-1)]` →
#   `(logits == logits.max(-1, keepdims=True)).astype(logits.dtype)`
# * temperature twice: `/ temperature)` → `/ temperature**2)`
#
# </details>

# %% [markdown] exercise="08.2"
# ### Exercise 08.2: `top_k_filter`
#
# Keep the k likeliest tokens of each row and divide by what is left. Exactly k stay, also where probabilities are
# equal: among equals the lower index goes first, so that the result never depends on how a sort breaks ties.
#
# ```python
# import numpy as np
#
#
# def top_k_filter(p, k):
#     """Probabilities p (..., V), k >= 1 -> (..., V): 0 but for the k largest, each row with sum 1.
#
#     A k of V or more changes nothing. p is not changed.
#     """
#     raise NotImplementedError("an order, zeros after the first k, the sum")
# ```
#
# <details><summary>Hint 1</summary>`p >= the k-th largest` keeps too many where some are equal. Work with an order of
# the tokens.</details>
# <details><summary>Hint 2</summary>`np.argsort(-p, axis=-1, kind="stable")`: the likeliest first, equals by
# index.</details>
# <details><summary>Hint 3</summary>`np.put_along_axis(copy, order[..., k:], 0.0, axis=-1)`, then divide by the
# sum.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def top_k_filter(p, k):
#     order = np.argsort(-p, axis=-1, kind="stable")
#     kept = p.copy()
#     np.put_along_axis(kept, order[..., k:], 0.0, axis=-1)
#     return kept / kept.sum(-1, keepdims=True)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * ties: `np.put_along_axis(kept, order[..., k:], 0.0, axis=-1)` →
#   `kept[p < np.sort(p, axis=-1)[..., -min(k, p.shape[-1]), None]] = 0.0`
# * the least likely stay: `np.argsort(-p` → `np.argsort(p`
# * not renormalised: `return kept / kept.sum(-1, keepdims=True)` → `return kept`
# * one too many: `order[..., k:]` → `order[..., k + 1 :]`
# * the higher index among equals: `np.argsort(-p, axis=-1, kind="stable")` →
#   `np.argsort(p, axis=-1, kind="stable")[..., ::-1]`
# * the sum of the whole batch: `kept.sum(-1, keepdims=True)` → `kept.sum()`
# * the caller's array is changed: `p.copy()` → `p`
#
# </details>

# %% [markdown] exercise="08.3"
# ### Exercise 08.3: `top_p_filter`
#
# The nucleus: of each row the smallest set of likeliest tokens whose probabilities sum to top_p or more, divided by its
# sum. The token that crosses the line stays, so at least one always does.
#
# ```python
# import numpy as np
#
#
# def top_p_filter(p, top_p):
#     """Probabilities p (..., V), 0 < top_p <= 1 -> (..., V): 0 outside the nucleus, each row with sum 1.
#
#     Among equals the lower index goes first. p is not changed.
#     """
#     raise NotImplementedError("from the likeliest down: what stands before each token?")
# ```
#
# <details><summary>Hint 1</summary>Sort each row from the likeliest down. A token stays if those before it do not reach
# top_p.</details>
# <details><summary>Hint 2</summary>What stands before: `np.cumsum(ordered, axis=-1) - ordered`.</details>
# <details><summary>Hint 3</summary>`np.take_along_axis` to sort, zeros where `before >= top_p`, `np.put_along_axis` to
# bring them back to their places.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def top_p_filter(p, top_p):
#     order = np.argsort(-p, axis=-1, kind="stable")
#     ordered = np.take_along_axis(p, order, axis=-1)
#     before = np.cumsum(ordered, axis=-1) - ordered
#     ordered[before >= top_p] = 0.0
#     kept = np.empty_like(p)
#     np.put_along_axis(kept, order, ordered, axis=-1)
#     return kept / kept.sum(-1, keepdims=True)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the crossing token is dropped: `np.cumsum(ordered, axis=-1) - ordered` → `np.cumsum(ordered, axis=-1)`
# * reached is not enough: `before >= top_p` → `before > top_p`
# * not renormalised: `return kept / kept.sum(-1, keepdims=True)` → `return kept`
# * from the least likely up: `np.argsort(-p` → `np.argsort(p`
# * not brought back to their places: `np.put_along_axis(kept, order, ordered, axis=-1)` → `kept = ordered`
# * all rows counted as one: `np.cumsum(ordered, axis=-1) - ordered` →
#   `np.cumsum(ordered).reshape(ordered.shape) - ordered`
# * a floor for each token, not a sum: `ordered[before >= top_p] = 0.0` →
#   `ordered[ordered < ordered[..., :1] * (1 - top_p)] = 0.0`
#
# </details>

# %% [markdown] exercise="08.4"
# ### Exercise 08.4: `gumbel_sample`
#
# Draw one token a row with no softmax and no running sum: add Gumbel noise $-\ln(-\ln u)$ to the logits divided by the
# temperature, and take the largest. Graded by how often each token comes.
#
# ```python
# import numpy as np
#
#
# def gumbel_sample(logits, temperature, generator):
#     """logits (..., V), temperature > 0, mt.Generator -> integers (...): draws from softmax(logits / temperature).
#
#     All randomness comes from `generator.uniform(shape, dtype=np.float64)`, which lies in [0, 1). A logit of -inf is
#     never drawn.
#     """
#     raise NotImplementedError("noise for every entry, add, argmax")
# ```
#
# <details><summary>Hint 1</summary>One uniform number for each entry of logits, not for each row, nor for each
# token.</details>
# <details><summary>Hint 2</summary>The temperature divides the logits alone. What would happen if it divided the noise
# too?</details>
# <details><summary>Hint 3</summary>`(logits / temperature - np.log(-np.log(u))).argmax(-1)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def gumbel_sample(logits, temperature, generator):
#     u = generator.uniform(logits.shape, dtype=np.float64)
#     with np.errstate(divide="ignore"):
#         noise = -np.log(-np.log(u))
#     return (logits / temperature + noise).argmax(-1)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the noise is divided too: `(logits / temperature + noise)` → `((logits + noise) / temperature)`
# * uniform noise: `-np.log(-np.log(u))` → `u`
# * the sign: `-np.log(-np.log(u))` → `np.log(-np.log(u))`
# * one logarithm only: `-np.log(-np.log(u))` → `-np.log(u)`
# * one noise for all rows: `generator.uniform(logits.shape, dtype=np.float64)` →
#   `generator.uniform(logits.shape[-1:], dtype=np.float64)`
# * no noise: `temperature + noise)` → `temperature)`
# * a generator of its own: `u = generator.uniform(logits.shape, dtype=np.float64)` →
#   `u = np.random.default_rng().random(logits.shape)`
#
# </details>
