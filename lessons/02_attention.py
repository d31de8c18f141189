# %% [markdown]
# # Attention, from three matrices to the fused kernel
#
# How does a token gather what it needs from all the others, and why need the $T \times T$ table of scores never exist?
# Attention is three matrix products and a softmax: ten lines which, written naively, limit the length of a context. You
# will write them, derive their backward, and turn them step by step into the C++ kernel that this package runs.
#
# | | |
# | --- | --- |
# | You will be able to | compute attention and its gradient on paper; say what $1/\sqrt d$ does and what not; derive |
# | | the online softmax; predict the memory of both forms; plug a kernel of your own into the engine |
# | Builds on | 01, autograd |
# | Time | 40 minutes to read, 15 s to run |
# | Files to open | `ops/attention.py`, `kernels/numpy/attention.py`, `kernels/contract.py`, `csrc/attention.cpp` |
# | Source | Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention) |
# | Documents | D3 §1.1, D2 §1.1, D5 §1.1. C28: the factor $1/\sqrt d$ prevents vanishing gradients. Is it so? |
# | Next | 03, multi-head attention, and what heads look at |

# %%
import math
import timeit
import tracemalloc
import types

import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer.lesson import Lesson
from minitransformer.visualization import heatmap, lines
from minitransformer.visualization.head_statistics import effective_keys
from minitransformer.visualization.style import save

lesson = Lesson("02", "Attention, from three matrices to the fused kernel")

# %% [markdown]
# ## 1. Numbers on paper
#
# Three tokens, width $d = 2$. Each has a **query** (what it looks for), a **key** (what it can be found by) and a
# **value** (what it hands over): three linear maps $W_q x$, $W_k x$, $W_v x$ of one vector. Here we choose them.
#
# | token | $q$ | $k$ | $v$ | $q\cdot k$ with the, cat, sat |
# | --- | --- | --- | --- | --- |
# | the | (1, 0) | (0, 1) | (4, 0) | 0, 1, 1 |
# | cat | (1, 1) | (1, 0) | (0, 4) | 1, 1, 2 |
# | sat | (0, 1) | (1, 1) | (2, 2) | 1, 0, 1 |
#
# Divide by $\sqrt 2$, exponentiate ($e^0 = 1$, $e^{0.71} = 2.03$), divide by the sum. A language model may not look
# ahead, so *the* sees itself, *cat* two tokens, *sat* all three:
#
# * *the*: weight 1 on itself. Output $(4, 0)$.
# * *cat*: scores equal, weights $\frac12, \frac12$. Output $\frac12(4,0) + \frac12(0,4) = (2, 2)$.
# * *sat*: $(2.03, 1, 2.03)/5.06 = (0.40, 0.20, 0.40)$. Output $(2.41, 1.59)$.
#
# The gradient of *cat*, on paper too. Let $do = (1, 0)$: more of the first entry, please. Each value would give
# $do\cdot v = (4, 0)$, the mixture gives $do\cdot o = 2$. A score should rise by how much its value is better than the
# mixture, times its weight: $ds = \frac12(4-2), \frac12(0-2) = (1, -1)$. *Look at "the", less at yourself.*
#
# ## 2. Formula, naive code, engine
#
# $$O = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d} + \text{mask}\right)V$$


# %%
def attention(q, k, v, causal=True):
    """NumPy: q, k, v (..., T, d) -> outputs (..., T, d) and probabilities (..., T, T)."""
    T, d = q.shape[-2:]
    s = q @ k.mT  # (..., T, d) @ (..., d, T) -> (..., T, T)
    s = s * (1 / math.sqrt(d))  # (..., T, T)
    if causal:
        s = np.where(np.tri(T, dtype=bool), s, -np.inf)  # (..., T, T): query i sees keys j <= i
    e = np.exp(s - s.max(-1, keepdims=True))  # (..., T, T)
    p = e / e.sum(-1, keepdims=True)  # (..., T, T), rows sum to 1
    return p @ v, p  # (..., T, T) @ (..., T, d) -> (..., T, d)


words = ["the", "cat", "sat"]
q = np.array([[1.0, 0], [1, 1], [0, 1]])  # (3, 2)
k = np.array([[0.0, 1], [1, 0], [1, 1]])  # (3, 2)
v = np.array([[4.0, 0], [0, 4], [2, 2]])  # (3, 2)
o, p = attention(q, k, v)
np.testing.assert_allclose(o, [[4, 0], [2, 2], [2.41, 1.59]], atol=0.01)
heatmap(p, words, title="Three tokens, by hand", vmax=1, path=lesson.figure("by_hand"))


def composed(q, k, v):
    """The same in the engine's ops, (B, H, T, d): every op brings its own backward."""
    hidden = mt.tensor(np.where(np.tri(q.shape[-2], dtype=bool), 0, -np.inf).astype(q.dtype))  # (T, T)
    return mt.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + hidden) @ v  # (B, H, T, d)


def fused(q, k, v):
    """One op, one kernel, no (T, T) matrix."""
    return mt.scaled_dot_product_attention(q, k, v, is_causal=True)


random = mt.Generator(0)
arrays = [random.normal((2, 3, 17, 8), dtype=np.float64) for _ in "qkv"]  # (B, H, T, d)
do = random.normal((2, 3, 17, 8), dtype=np.float64)
gradients = []
for form in (composed, fused):
    inputs = [mt.tensor(x, requires_grad=True) for x in arrays]
    output = form(*inputs)
    output.backward(do)
    np.testing.assert_allclose(output.data, attention(*arrays)[0], rtol=1e-10, atol=1e-12)
    gradients.append([x.grad for x in inputs])
np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-11)
lesson.say("Naive NumPy, the engine's ops and the fused op agree, forward and backward.")

# %% [markdown]
# ### The backward, by hand
#
# Follow the chain from the end:
#
# $$dV = P^\top dO,\qquad dP = dO\,V^\top,\qquad ds_{ij} = p_{ij}\Big(dp_{ij} - \sum_l p_{il}\,dp_{il}\Big),
# \qquad dQ = \tfrac{1}{\sqrt d}\,dS\,K,\qquad dK = \tfrac{1}{\sqrt d}\,dS^\top Q$$
#
# The sum is the mixture of the paper example, and it needs no row of $P$: $\sum_l p_{il}\,(do_i\cdot v_l) =
# do_i\cdot\sum_l p_{il} v_l = do_i\cdot o_i$, called $\delta_i$. Remember it for the fused kernel.


# %%
def attention_gradients(do, q, k, v):
    """NumPy: do, q, k, v (..., T, d) -> dq, dk, dv (..., T, d)."""
    o, p = attention(q, k, v)
    dp = do @ v.mT  # (..., T, T)
    delta = (do * o).sum(-1, keepdims=True)  # (..., T, 1)
    ds = p * (dp - delta) / math.sqrt(q.shape[-1])  # (..., T, T)
    return ds @ k, ds.mT @ q, p.mT @ do  # (..., T, d) each


np.testing.assert_allclose(attention_gradients(do, *arrays), gradients[1], rtol=1e-9, atol=1e-11)
lesson.say(str(mt.gradcheck(fused, *[x[:1, :2, :5, :3] for x in arrays])))

# %% [markdown]
# ## 3. Why divide by √d? Predict
#
# $q\cdot k$ is a sum of $d$ products. If the entries of $q$ and $k$ are independent with variance 1, each product has
# variance 1 and the sum has variance $d$. What is the standard deviation of $q \cdot k$ for $d = 64$?

# %%
lesson.step("Why divide by √d?")
WIDTHS, KEYS = (4, 16, 64, 256, 1024), 64
guess = lesson.predict("standard deviation of q·k at d = 64?", 8)
samples = {d: [random.normal((20, n, d), dtype=np.float64) for n in (50, KEYS)] for d in WIDTHS}
scores = {d: q @ k.mT for d, (q, k) in samples.items()}  # (20, 50, 64): 1,000 queries, 64 keys each
guess.see(scores[64].std(), allowed=(7.6, 8.4))

# %% [markdown]
# A softmax of such scores is nearly a maximum. Count the *effective number of keys*, $e^{\text{entropy}}$: 1 if one key
# takes all, 64 if all 64 are alike. With the factor, scores are standard normal whatever $d$ is, and the entropy is
# near $\ln 64 - \frac12$. Predict both.

# %%
cotangent = random.normal((20, 50, KEYS), dtype=np.float64)


def look(d, scale):
    """Effective keys, and the gradient's norm for each query, at the scores (ds) and at the query (dq)."""
    q, k = mt.tensor(samples[d][0], requires_grad=True), mt.tensor(samples[d][1])
    s = q @ k.mT * scale  # (20, 50, 64)
    s.retain_grad()
    p = mt.softmax(s)  # (20, 50, 64)
    p.backward(cotangent)
    return effective_keys(p.data).mean(), *(np.linalg.norm(x.grad, axis=-1) for x in (s, q))


guess = lesson.predict("effective keys of 64, with the factor, d = 256?", 64 * math.exp(-0.5), "keys")
guess_without = lesson.predict("effective keys of 64, without it, d = 256?", 1.5, "keys")
with_factor = {d: look(d, 1 / math.sqrt(d)) for d in WIDTHS}
without = {d: look(d, 1.0) for d in WIDTHS}
guess.see(with_factor[256][0], allowed=(37, 43))
guess_without.see(without[256][0], allowed=(1.2, 1.7))
lesson.say("  each column: with 1/√d, then without")
lesson.say("     d     effective keys          median |ds|          mean |ds|          median |dq|")
for d in WIDTHS:
    columns = [[keys, np.median(ds), np.mean(ds), np.median(dq)] for keys, ds, dq in (with_factor[d], without[d])]
    lesson.say(f"  {d:4}  " + "  ".join(f"{a:8.3f} {b:8.4f}" for a, b in zip(*columns)))
assert np.median(without[1024][1]) < 0.01 * np.median(with_factor[1024][1]) < np.mean(without[1024][1])
curves = {
    "with 1/√d": [np.median(with_factor[d][1]) for d in WIDTHS],
    "without, mean": [np.mean(without[d][1]) for d in WIDTHS],
    "without, median": [np.median(without[d][1]) for d in WIDTHS],
}
lines(WIDTHS, curves, xlabel="head width d", ylabel="gradient norm at a query's scores", logx=True, logy=True,
      title="Without 1/√d most queries stop learning, a few do not", path=lesson.figure("scale"))  # fmt: skip
names = [f"d = {d:4}{', with 1/√d' * scaled}" for scaled in (0, 1) for d in WIDTHS]
rows = [scores[d][0, 0, :20] / math.sqrt(d) ** scaled for scaled in (0, 1) for d in WIDTHS]
heatmap(mt.softmax(mt.tensor(np.array(rows))).data, names, scale="sqrt", vmax=1, annotate=False,
        title="One query, 20 keys: without the factor (top) and with it", path=lesson.figure("saturation"))  # fmt: skip

# %% [markdown]
# C28 says: the factor prevents vanishing gradients. What we see is finer. Without it the *typical* query's gradient
# does vanish as $d$ grows. The *mean* falls slowly: now and then two keys tie for the maximum, and such a query gets a
# large gradient. Learning becomes a lottery. And at $d = 64$, the head width of GPT-2, the gradient is alive. What
# reaches the query, $dq$, is even five times *larger* without the factor, for the chain rule multiplies by $1/\sqrt d$
# too. What is lost there is the mixture: 2 keys instead of 40. And the factor fixes only where training *starts*: at
# $d = 64$ a $W_q$ that has grown 8 times undoes it.
#
# A second correction: D5 §1.1 writes `K.T`, which reverses *all* axes. Right for one head $(T, d)$, wrong for
# $(B, H, T, d)$. `K.mT` swaps the last two.

# %%
keys, ds = without[64][0], without[1024][1]
lesson.claim(
    "C28, D3 §1.1: 1/√d prevents vanishing gradients",
    measured=f"without it the median |ds| falls to {np.median(ds):.0e} at d = 1024, the mean only to {np.mean(ds):.2f} "
    f"(with: {np.median(with_factor[1024][1]):.2f}); at d = 64 the median is {np.median(without[64][1]):.2f}, "
    f"and what is lost is the mixture: {keys:.1f} keys for {with_factor[64][0]:.0f}",
    setup="1,000 random queries, 64 keys, unit variance, random cotangent, no training",
    verdict="partly",
)

try:
    arrays[0] @ arrays[1].T
    raise AssertionError("K.T should not fit a batch")
except ValueError:
    shapes = f"{arrays[0].shape} @ {arrays[1].T.shape}"
measured = f"{shapes} does not fit; Q @ K.mT does"
lesson.claim("D5 §1.1: scores are Q @ K.T", measured=measured, setup="a batch of heads", verdict="wrong as stated")

# %% [markdown]
# ## 4. A softmax that never sees its whole row
#
# $P$ has $T^2$ entries, the output only $T d$. Why not go through the keys one at a time? Because the softmax wants the
# maximum and the sum of the *whole* row first. Unless both are carried along: $m$, the maximum so far, and
# $\ell = \sum_j e^{s_j - m}$. When a score raises the maximum to $m'$, everything summed so far is too large by one
# factor: multiply it by $e^{m - m'}$. Scores 1, 3, 2, on paper:
#
# | score | $m$ | $\ell$ |
# | --- | --- | --- |
# | 1 | 1 | $1$ |
# | 3 | 3 | $1\cdot e^{1-3} + 1 = 1.135$ |
# | 2 | 3 | $1.135 + e^{2-3} = 1.503$ |
#
# and indeed $e^{-2} + 1 + e^{-1} = 1.503$. The output $o = \sum_j e^{s_j-m}v_j$ is carried along and rescaled too. How
# often, for 1,024 scores in random order? The first score always counts as one.


# %%
def online(scores, values):
    """scores (T,), values (T, d), one at a time -> o (d,), and how often the maximum rose."""
    m, total, o, rises = -math.inf, 0.0, np.zeros(values.shape[1]), 0
    for s, value in zip(scores, values):
        higher = max(m, s)
        rises += higher > m
        rescale, weight = math.exp(m - higher), math.exp(s - higher)
        total, o = total * rescale + weight, o * rescale + weight * value
        m = higher
    return o / total, rises


lesson.step("Online softmax")
guess = lesson.predict("rises of the maximum in 1,024 random scores?", 7.5)
row, table = random.normal(1024, dtype=np.float64), random.normal((1024, 4), dtype=np.float64)
whole = np.exp(row - row.max()) @ table / np.exp(row - row.max()).sum()
np.testing.assert_allclose(online(row, table)[0], whole, rtol=1e-10, atol=1e-13)
guess.see(np.mean([online(random.normal(1024), table[:, :1])[1] for _ in range(200)]), allowed=(6.7, 8.3))

# %% [markdown]
# Score number $n$ is the largest so far with probability $1/n$, and $1 + \frac12 + \dots + \frac1{1024} = 7.5$.
# Rescaling is rare, so it costs little. Let keys come in blocks, for matrix products, and you have FlashAttention's
# forward. This one keeps to the kernel contract (`kernels/contract.py`): the same name, arguments and results, with
# $\mathrm{lse} = m + \ln\ell$, from which backward gets $p_{ij} = e^{s_{ij} - \mathrm{lse}_i}$ without a maximum.


# %%
def attention_forward(q, k, v, *, scale, causal=False, mask=None, block=64):
    """q (B, H, Tq, d), k (B, H, Tk, d), v (B, H, Tk, d) -> o (B, H, Tq, d), lse (B, H, Tq)."""
    if mask is not None:
        raise mt.kernels.Unsupported("the lesson's kernel knows no mask")
    Tq, Tk = q.shape[2], k.shape[2]
    m = np.full((*q.shape[:3], 1), -np.inf, q.dtype)  # (B, H, Tq, 1), the maximum so far
    total, o = np.zeros_like(m), np.zeros(q.shape, q.dtype)  # (B, H, Tq, 1), (B, H, Tq, d)
    for first in range(0, Tk, block):
        keys = np.arange(first, min(first + block, Tk))
        s = q @ k[:, :, keys].mT * scale  # (B, H, Tq, block)
        if causal:
            s = np.where(keys <= np.arange(Tq)[:, None] + Tk - Tq, s, -np.inf).astype(q.dtype)
        higher = np.maximum(m, s.max(-1, keepdims=True))  # (B, H, Tq, 1)
        weight, rescale = np.exp(s - higher), np.exp(m - higher)  # (B, H, Tq, block), (B, H, Tq, 1)
        total = total * rescale + weight.sum(-1, keepdims=True)
        o = o * rescale + weight @ v[:, :, keys]  # (B, H, Tq, block) @ (B, H, block, d)
        m = higher
    return o / total, (m + np.log(total))[..., 0]


mine = types.ModuleType("lesson_kernel")
mine.attention_forward = attention_forward
with mt.kernels.use(mine):  # the engine now runs your function; its backward is the fastest set's
    print(mt.kernels.explain(fused, *[mt.tensor(x) for x in arrays]))
    result = mt.gradcheck(fused, *[x[:1, :2, :5, :3] for x in arrays])
    np.testing.assert_allclose(fused(*map(mt.tensor, arrays)).data, attention(*arrays)[0], rtol=1e-10, atol=1e-12)
lesson.say(f"Your kernel inside the engine: {result}")

# %% [markdown]
# Now open `csrc/attention.cpp` beside it. The same steps, with names that you know:
#
# | here | there |
# | --- | --- |
# | one pass over blocks of keys | the loop of `attend`, a block of `KEYS` = 128 |
# | `q @ k.mT * scale`, hidden keys to $-\infty$ | `scores`; the factor is put into $q$ once, by `load_strip` |
# | `higher`, `weight`, `rescale`, `total` | `online_softmax`; a SIMD lane is a query: lanes exchange nothing |
# | `o = o * rescale + …` | `multiply`, then `add_product` |
# | `o / total`, lse | `finish_strip` |
#
# What it adds is about the machine: the tile of scores stays in the cache, blocks above the diagonal are never
# computed, threads take work items by themselves. Backward computes each tile of $P$ again from lse: cheaper than the
# memory traffic of a stored $P$.
#
# ## 5. Predict the memory, then measure
#
# At $T = 4096$ with 8 heads in float32, how many MiB do the scores take? How many such matrices does the naive code of
# section 2 hold at its worst moment? We measure 2 heads, to fit a small machine; heads are independent: times 4.

# %%
lesson.step("Memory and time")
LENGTHS, HEADS, WIDTH = (512, 1024, 2048, 4096), 2, 64


def measure(function, T):
    """(peak MiB of the arrays that the call allocates, its seconds)."""
    inputs = [mt.Generator(T).normal((1, HEADS, T, WIDTH)) for _ in "qkv"]  # (1, 2, T, 64) float32
    tracemalloc.start()
    seconds = timeit.timeit(lambda: function(*inputs), number=1)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak, seconds


def kernel(q, k, v):
    return mt.kernels.attention_forward(q, k, v, scale=1 / math.sqrt(q.shape[-1]), causal=True)


guess_scores = lesson.predict("MiB of the scores, 8 heads, T = 4096?", 512, "MiB")
guess_copies = lesson.predict("T × T matrices at the naive code's peak?", 3)
guess_growth = lesson.predict("growth of the fused peak, T = 2048 to 4096?", 2, "times")
measure(kernel, 512)  # threads start, code is loaded
naive, fused_kernel = [], []
for T in track(LENGTHS, "measuring", console=lesson.console, disable=not lesson.console.is_terminal, transient=True):
    naive.append(measure(attention, T))
    fused_kernel.append(measure(kernel, T))
q = mt.Generator(1).normal((1, HEADS, LENGTHS[-1], WIDTH))  # (1, 2, 4096, 64)
matrix = (q @ q.mT).nbytes / 2**20  # one (2, 4096, 4096)
guess_scores.see(matrix * 8 / HEADS, allowed=(512, 512))
guess_copies.see(naive[-1][0] / matrix, allowed=(2.9, 3.2))
guess_growth.see(fused_kernel[-1][0] / fused_kernel[-2][0], allowed=(1.8, 2.2))
(call,) = mt.kernels.explain(kernel, q, q, q)
whose = {"native": "C++", "numpy": "NumPy, blocked"}.get(call.source, call.source)
lesson.say(f"  {call.routine} ran on: {call.source} ({whose}). For 8 heads at T = 4096: naive "
           f"{4 * naive[-1][0]:,.0f} MiB, fused {4 * fused_kernel[-1][0]:,.0f} MiB.")  # fmt: skip
lesson.note("naive, 2 heads, T = 4096", naive[-1][1], "s")
lesson.note(f"fused ({whose})", fused_kernel[-1][1], "s")
curves = {"naive": [peak for peak, _ in naive], f"fused ({whose})": [peak for peak, _ in fused_kernel]}
lines(LENGTHS, curves, xlabel="tokens T", ylabel="peak memory, 2 heads (MiB)", logx=True, logy=True,
      title="Doubling T: four times the memory, or twice", path=lesson.figure("memory"))  # fmt: skip

# %% [markdown]
# Memory is linear now. Time is still quadratic: every query meets every key it may see, up to $T^2 d$ multiplications
# for each product. `tracemalloc` sees NumPy arrays and not the scratch of C++ threads, a block of keys and values and a
# tile of scores each; `tests/kernels/test_attention.py` asks the operating system about that too.
#
# ## 6. Break it
#
# **Forget the mask.** Nothing fails. The loss even gets wonderfully low, because the model reads the answer, and then
# generation is nonsense. The test: change token $t$. No output before $t$ may change, not by one bit.

# %%
lesson.step("Break it: forget the mask")
sentence = "you may not read what comes later".split()
x, other = random.normal((2, 7, 16))  # (T, D) each
w_q, w_k, w_v = (random.normal((16, 16), std=0.25) for _ in "qkv")  # (D, d)


def influence(causal):
    """Row t, column i: the largest change of output i when token t is replaced. (T, T)"""
    before, changes = attention(x @ w_q, x @ w_k, x @ w_v, causal)[0], []
    for t in range(len(x)):
        changed = x.copy()
        changed[t] = other[t]
        changes.append(np.abs(attention(changed @ w_q, changed @ w_k, changed @ w_v, causal)[0] - before).max(-1))
    return np.array(changes)


guess = lesson.predict("outputs before t that change when token t does, with the mask?", 0)
guess.see(np.count_nonzero(np.tril(influence(True), -1)), allowed=(0, 0))
leak, path = influence(False), lesson.figure("leak")
assert np.count_nonzero(np.tril(leak, -1)) == 21  # all of them: the test can fail
title = "Without the mask the future leaks into the past (lower left)"
figure = heatmap(leak, sentence, title=title, normalised=False, label="largest change", vmax=3.5)
figure.axes[0].set(xlabel="output", ylabel="token replaced")
save(figure, path)

# %% [markdown]
# **Forget the maximum.** On paper $e^s / \sum e^s$ needs none. Which is the largest score that float32 survives?

# %%
lesson.step("Break it: forget the maximum")
guess = lesson.predict("largest s with a finite exp(s) in float32?", 88.7)
ladder = np.arange(0, 200, 0.01, dtype=np.float32)
with np.errstate(over="ignore", invalid="ignore"):
    guess.see(ladder[np.isfinite(np.exp(ladder))][-1], allowed=(88.7, 88.73))
    loud = np.float32([0.0, 100.0, 99.0])
    careless = np.exp(loud) / np.exp(loud).sum()
lesson.say(f"scores {loud}: without the maximum {careless}, engine {mt.softmax(mt.tensor(loud)).data}")
big = [100 * mt.tensor(random.normal((1, 1, 9, 4))) for _ in "qkv"]
assert np.isnan(careless).any() and np.isfinite(fused(*big).data).all()
lesson.finish()

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | loss near 0, then nonsense generated | no mask, or off by one | change token $t$: outputs before it bit-equal |
# | NaN after hundreds of steps | no maximum subtracted | scores of ±1e4 |
# | wrong where scores rise along a row | no rescale in the online softmax | keys in rising order of score |
# | one key takes all from the start | no $1/\sqrt d$ | equal to the composed form, $d \ne 1$ |
# | NaN in a row that may see no key | $-\infty - (-\infty)$ | a fully masked row gives 0 |
#
# ## Questions learners ask
#
# * **Why three matrices and not one?** With $q = k$ scores would be symmetric: *cat* looks at *the* as *the* at *cat*.
#   And what finds a token need not be what it says.
# * **Where is the order of the words?** Only in the mask, and in position encodings, a later lesson.
# * **Does the fused kernel approximate?** No. It is the same sum in another order, equal up to rounding.
# * **Is it faster because it computes less?** Backward computes $P$ twice. But it moves less memory.
#
# ## Exercises
#
# 1. `attention_one(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray`: decoding; q (d,), a cache k, v (T, d).
#    <details><summary>Hint</summary>No mask is needed: a cache holds only the past.</details>
# 2. `merge(a: tuple, b: tuple) -> tuple`: join the results $(m, \ell, o)$ of two disjoint sets of keys, in any order.
#    <details><summary>Hint</summary>Bring both to the larger maximum. So one row is split over machines.</details>
# 3. `attention_backward(do, q, k, v, o, lse, *, scale, causal=False, mask=None) -> tuple`, blocked, for `mt.gradcheck`.
#    <details><summary>Hint</summary>$p = e^{s - lse}$, $\delta_i = do_i\cdot o_i$; each block adds to dq.</details>
# 4. `window(q, k, v, width: int) -> np.ndarray`: each query sees its last `width` keys; memory linear in T, time too.
#    <details><summary>Hint</summary>Which blocks of keys does a block of queries meet at all?</details>
#
# ## Quiz
#
# 1. $T$ doubles. The fused kernel's time and memory become **(a)** 2× and 2×, **(b)** 4× and 2×, **(c)** 4× and 4×. —
#    (b). (a): the products are still $T^2 d$. (c) is the naive form.
# 2. lse is kept for backward because **(a)** it gives $p$ back, **(b)** it is the loss, **(c)** it is the mask. — (a):
#    one number a row in place of $T$. (b) is the lse of cross-entropy, another one. (c): the mask is known.
# 3. Without $1/\sqrt d$ at $d = 1024$, at the start, **(a)** no query learns, **(b)** few queries get nearly all of the
#    gradient, **(c)** the loss is NaN. — (b). (a) forgets the ties. (c): the maximum is subtracted.
# 4. A test of the online softmax with scores in *falling* order proves **(a)** the rescale, **(b)** nothing about it,
#    **(c)** the mask. — (b): the maximum never rises after the first. (a) needs a rise. (c): it has no mask.

# %% [markdown] exercise="02.1"
# ### Exercise 02.1: `attention_forward`
#
# Your own kernel, to the engine's whole contract (`kernels/contract.py`). The lesson's knows no mask, and a row that
# may see no key would give NaN; yours does both. Begin with all scores at once. Blocks, and the online softmax, show
# in the memory that `practice check` reports, and decide nothing.
#
# ```python
# import numpy as np
#
#
# def attention_forward(q, k, v, *, scale, causal=False, mask=None):
#     """Attention, as the engine asks for it.
#
#     q (B, H, Tq, d), k (B, H, Tk, d), v (B, H, Tk, dv), mask additive, broadcastable to (B, H, Tq, Tk), or None
#     -> o (B, H, Tq, dv), lse (B, H, Tq), in the dtype of q:
#
#         s_ij = scale q_i·k_j + mask_ij,   lse_i = log Σ_j exp(s_ij),   o_i = Σ_j exp(s_ij - lse_i) v_j
#
#     causal: query i sees the keys j <= i + Tk - Tq. A row that sees no key gives o = 0 and lse = -inf.
#     """
#     raise NotImplementedError("softmax(scale q kᵀ + mask) v, and the logarithm of each row's sum")
# ```
#
# <details><summary>Hint 1</summary>Write the naive `attention` of section 2 first, for four axes: `k.swapaxes(2, 3)`
# for k transposed. Then the mask, then causal with Tk ≠ Tq, then the empty rows.</details>
# <details><summary>Hint 2</summary>What is hidden is a score of -inf. Take the row's maximum m off before exp; where
# m is -inf, take off 0: exp(-inf - 0) is the 0 that you want. lse = m + log of the sum.</details>
# <details><summary>Hint 3</summary>`s = np.where(j <= i + Tk - Tq, s, -np.inf)` with i = arange(Tq)[:, None], j =
# arange(Tk). Divide by the sum where it is not 0. `q.dtype.type(scale)` and `astype` keep float32; `m = s.max(-1,
# initial=-np.inf)` serves Tk = 0.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def attention_forward(q, k, v, *, scale, causal=False, mask=None):
#     Tq, Tk = q.shape[2], k.shape[2]
#     m = np.full((*q.shape[:3], 1), -np.inf, q.dtype)  # (B, H, Tq, 1), the maximum so far
#     total, o = np.zeros_like(m), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)  # (B, H, Tq, 1), (B, H, Tq, dv)
#     for first in range(0, Tk, 128):
#         keys = np.arange(first, min(first + 128, Tk))
#         s = q @ k[:, :, keys].swapaxes(2, 3) * q.dtype.type(scale)  # (B, H, Tq, block)
#         if mask is not None:
#             s = s + np.broadcast_to(mask, (*q.shape[:3], Tk))[..., keys].astype(q.dtype)
#         if causal:
#             s = np.where(keys <= np.arange(Tq)[:, None] + Tk - Tq, s, q.dtype.type(-np.inf))
#         higher = np.maximum(m, s.max(-1, keepdims=True))  # (B, H, Tq, 1)
#         safe = np.where(np.isfinite(higher), higher, q.dtype.type(0))
#         weight, rescale = np.exp(s - safe), np.exp(m - safe)  # (B, H, Tq, block), (B, H, Tq, 1)
#         total = total * rescale + weight.sum(-1, keepdims=True)
#         o = o * rescale + weight @ v[:, :, keys]  # (B, H, Tq, dv)
#         m = higher
#     with np.errstate(divide="ignore"):
#         lse = (m + np.log(total))[..., 0]
#     return o / np.where(total == 0, q.dtype.type(1), total), lse
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no factor: `* q.dtype.type(scale)` → `* q.dtype.type(1)`
# * causal without the cache's offset: `+ Tk - Tq, s` → `+ 0, s`
# * a token does not see itself: `keys <= np.arange` → `keys < np.arange`
# * the future is seen: `if causal:` → `if causal and Tq < 3:`
# * the mask ignored: `if mask is not None:` → `if False:`
# * the output not rescaled: `o = o * rescale + weight` → `o = o + weight`
# * the sum not rescaled: `total = total * rescale + weight` → `total = total + weight`
# * no maximum: `safe = np.where(np.isfinite(higher), higher, q.dtype.type(0))` → `safe = np.zeros_like(higher)`
# * NaN in rows without a key: `np.where(total == 0, q.dtype.type(1), total)` → `total`
# * lse without the maximum: `(m + np.log(total))` → `np.log(total)`
# * the last block forgotten: `range(0, Tk, 128)` → `range(0, max(128, Tk - 127), 128)`
# * float64 from float32: `np.zeros((*q.shape[:3], v.shape[3]), q.dtype)` → `np.zeros((*q.shape[:3], v.shape[3]))`
#
# </details>
#
# Milestone: `train --kernels practice/attention_forward.py --steps 200`: a GPT learns English with your attention.

# %% [markdown] exercise="02.2"
# ### Exercise 02.2: `merge`
#
# Two machines hold half of the keys each. Each hands over what the online softmax carries for T queries: the maximum
# m, the sum l = Σ exp(s - m) and the unnormalised output o = Σ exp(s - m) v. Join them. The order of joining must not
# matter, and a half may be empty: m = -inf, l = 0, o = 0.
#
# ```python
# import numpy as np
#
#
# def merge(a, b):
#     """a, b: tuples of m (T,), l (T,), o (T, d) over disjoint sets of keys -> the same tuple over both sets."""
#     raise NotImplementedError("bring both to the larger maximum, then add")
# ```
#
# <details><summary>Hint 1</summary>It is the step of the online softmax, with a whole set in place of one
# score.</details>
# <details><summary>Hint 2</summary>With m = max(m_a, m_b), everything of a is multiplied by exp(m_a - m), everything
# of b by exp(m_b - m).</details>
# <details><summary>Hint 3</summary>Both empty: -inf - (-inf) is NaN. Take off 0 where m is -inf:
# `np.where(np.isfinite(m), m, 0)`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def merge(a, b):
#     (m_a, l_a, o_a), (m_b, l_b, o_b) = a, b
#     m = np.maximum(m_a, m_b)
#     safe = np.where(np.isfinite(m), m, 0)
#     scale_a, scale_b = np.exp(m_a - safe), np.exp(m_b - safe)
#     return m, l_a * scale_a + l_b * scale_b, o_a * scale_a[:, None] + o_b * scale_b[:, None]
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * nothing rescaled: `np.exp(m_a - safe), np.exp(m_b - safe)` → `np.ones_like(m), np.ones_like(m)`
# * only a rescaled: `np.exp(m_b - safe)` → `np.ones_like(m)`
# * the outputs not rescaled: `o_a * scale_a[:, None] + o_b * scale_b[:, None]` → `o_a + o_b`
# * NaN where both are empty: `safe = np.where(np.isfinite(m), m, 0)` → `safe = m`
# * overflow: `m = np.maximum(m_a, m_b)` → `m = np.minimum(m_a, m_b)`
# * the wrong way round: `np.exp(m_a - safe), np.exp(m_b - safe)` → `np.exp(m_b - safe), np.exp(m_a - safe)`
#
# </details>

# %% [markdown] exercise="02.3"
# ### Exercise 02.3: `attention_backward`
#
# The backward of attention, as a kernel. It gets lse from the forward, so the probabilities come back as exp(s - lse)
# without a maximum. In blocks of keys it needs no (Tq, Tk) matrix; that is yours to choose.
#
# ```python
# import numpy as np
#
#
# def attention_backward(do, q, k, v, o, lse, *, scale, causal=False, mask=None):
#     """Gradients of attention_forward.
#
#     do like o (B, H, Tq, dv), q (B, H, Tq, d), k (B, H, Tk, d), v (B, H, Tk, dv), lse (B, H, Tq)
#     -> dq, dk, dv like q, k, v, in their dtype:
#
#         p_ij = exp(s_ij - lse_i),   delta_i = do_i·o_i,   ds_ij = p_ij (do_i·v_j - delta_i)
#         dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i
#
#     The mask is a constant. A row that saw no key has lse = -inf and gives zeros.
#     """
#     raise NotImplementedError("p from s and lse; delta; ds; then three matrix products")
# ```
#
# <details><summary>Hint 1</summary>Section 2 derives it: `attention_gradients` is nearly this, with p recomputed from
# lse.</details>
# <details><summary>Hint 2</summary>Hidden scores are -inf, so their p is 0 and so is their ds. Scale goes into dq and
# dk, not into dv.</details>
# <details><summary>Hint 3</summary>Where lse is -inf take off 0: exp(-inf - 0) = 0. Then `dq = ds @ k`, `dk =
# ds.swapaxes(2, 3) @ q`, `dv = p.swapaxes(2, 3) @ do`, with ds already multiplied by scale.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def attention_backward(do, q, k, v, o, lse, *, scale, causal=False, mask=None):
#     Tq, Tk, factor = q.shape[2], k.shape[2], q.dtype.type(scale)
#     dq, dk, dv = (np.zeros(x.shape, x.dtype) for x in (q, k, v))
#     delta = (do * o).sum(-1, keepdims=True)  # (B, H, Tq, 1)
#     safe = np.where(np.isfinite(lse), lse, q.dtype.type(0))[..., None]  # (B, H, Tq, 1)
#     for first in range(0, Tk, 128):
#         keys = slice(first, min(first + 128, Tk))
#         s = q @ k[:, :, keys].swapaxes(2, 3) * factor  # (B, H, Tq, block)
#         if mask is not None:
#             s = s + np.broadcast_to(mask, (*q.shape[:3], Tk))[..., keys].astype(q.dtype)
#         if causal:
#             s = np.where(np.arange(Tk)[keys] <= np.arange(Tq)[:, None] + Tk - Tq, s, q.dtype.type(-np.inf))
#         p = np.exp(s - safe)  # (B, H, Tq, block)
#         ds = p * (do @ v[:, :, keys].swapaxes(2, 3) - delta) * factor  # (B, H, Tq, block)
#         dq += ds @ k[:, :, keys]
#         dk[:, :, keys] = ds.swapaxes(2, 3) @ q
#         dv[:, :, keys] = p.swapaxes(2, 3) @ do
#     return dq, dk, dv
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the softmax's sum forgotten: `- delta) * factor` → `) * factor`
# * no factor: `- delta) * factor` → `- delta)`
# * the future is seen: `if causal:` → `if False:`
# * the mask ignored: `if mask is not None:` → `if False:`
# * dq of the last block alone: `dq += ds` → `dq[...] = ds`
# * dk from p: `dk[:, :, keys] = ds.` → `dk[:, :, keys] = p.`
# * delta from q: `delta = (do * o)` → `delta = (do * do)`
# * NaN in rows without a key: `np.where(np.isfinite(lse), lse, q.dtype.type(0))[..., None]` → `lse[..., None]`
#
# </details>
#
# Milestone: `train --kernels practice/attention_backward.py --steps 200`: a GPT learns by your gradients.

# %% [markdown] exercise="02.4"
# ### Exercise 02.4: `window`
#
# Each query sees its last `width` keys, itself included, so time and memory can both grow with T and not with T². The
# table of all pairs passes as well: the cost, reported beside it, is the point.
#
# ```python
# import numpy as np
#
#
# def window(q, k, v, width):
#     """q, k (T, d), v (T, dv), width >= 1 -> o (T, dv): causal attention over the last `width` keys, scale 1/√d."""
#     raise NotImplementedError("query i sees the keys i - width + 1 … i, those that there are")
# ```
#
# <details><summary>Hint 1</summary>First all pairs and two masks: j <= i, and j > i - width. That passes. Then count
# what was wasted.</details>
# <details><summary>Hint 2</summary>A block of queries first … last meets only the keys first - width + 1 …
# last.</details>
# <details><summary>Hint 3</summary>Loop over blocks of, say, 64 queries; `low = max(0, first - width + 1)`; scores of
# q[first:last] with k[low:last], the two masks in the numbers of those rows and columns, softmax, times
# v[low:last].</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def window(q, k, v, width):
#     o = np.empty((len(q), v.shape[1]), q.dtype)
#     for first in range(0, len(q), 64):
#         last = min(first + 64, len(q))
#         low = max(0, first - width + 1)  # the first key that any of these queries sees
#         i, j = np.arange(first, last)[:, None], np.arange(low, last)
#         s = q[first:last] @ k[low:last].T * q.dtype.type(q.shape[1] ** -0.5)  # (64, 64 + width - 1)
#         s = np.where((j <= i) & (j > i - width), s, q.dtype.type(-np.inf))
#         p = np.exp(s - s.max(-1, keepdims=True))
#         o[first:last] = p / p.sum(-1, keepdims=True) @ v[low:last]
#     return o
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * one key too many: `(j > i - width)` → `(j >= i - width)`
# * the future is seen: `(j <= i) & (j > i - width)` → `(j > i - width)`
# * blocks lose the keys before them: `low = max(0, first - width + 1)` → `low = first`
# * no factor: `q.dtype.type(q.shape[1] ** -0.5)` → `q.dtype.type(1)`
# * overflow: `p = np.exp(s - s.max(-1, keepdims=True))` → `p = np.exp(s)`
# * a token does not see itself: `(j <= i)` → `((j < i) | (i == 0))`
#
# </details>
