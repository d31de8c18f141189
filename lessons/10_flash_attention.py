# %% [markdown]
# # Flash attention, by hand
#
# Why does attention wait for memory although its arithmetic is two matrix products, and what is left to do when a query
# may not look everywhere? Lesson 02 carried a softmax along, key by key. Here you cut the work into tiles, count every
# byte that moves, get the backward pass from one number a row, and skip what nobody sees. ALiBi, grouped heads and a
# cache in pages come out of the same few lines.
#
# | | |
# | --- | --- |
# | You will be able to | count tiles and bytes before a run, write both passes in tiles, size a KV cache |
# | Builds on | 02, attention |
# | Time | 45 minutes to read, 10 s to run |
# | Files to open | `kernels/numpy/attention.py`, `csrc/attention.cpp`, `nn/paged_cache.py` |
# | Source | Dao et al. 2022; Dao 2023; Beltagy et al. 2020; Press et al. 2022; Ainslie et al. 2023; Kwon et al. 2023 |
# | Documents | D5 §3.2: ALiBi for rotary positions, sliding window, PagedAttention. D1 §5, C13: cost past 32K tokens |
# | Next | 11, the quantised matrix product |

# %%
import math
import timeit
import tracemalloc
from collections import Counter
from functools import partial

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

import minitransformer as mt
from minitransformer import kernels, nn
from minitransformer.lesson import Lesson
from minitransformer.visualization import head_grid, lines
from minitransformer.visualization.style import FAINT, MASKED, PALETTE, WIDTH, drawing, new_figure, save

lesson = Lesson("10", "Flash attention, by hand")
random = mt.Generator(0)

# %% [markdown]
# ## 1. Numbers on paper: two blocks of keys
#
# One query, $q = (1, 1)$, no factor. Three keys come in two blocks, and we never hold more than one block:
#
# | block | $k$ | $s = q\cdot k$ | $v$ |
# | --- | --- | --- | --- |
# | 1 | (0, 0), (ln 3, 0) | 0, ln 3 | (3, 0), (0, 2) |
# | 2 | (0, ln 6) | ln 6 | (4, 4) |
#
# * *Block 1*: $m = \ln 3$; weights $e^{s-m} = \frac13, 1$; $\ell = \frac43$; $o = \frac13(3,0) + 1\,(0,2) = (1, 2)$.
# * *Block 2* raises the maximum to $\ln 6$. All that was summed is too large by $e^{\ln 3 - \ln 6} = \frac12$. So
#   $\ell = \frac12\cdot\frac43 + 1 = \frac53$ and $o = \frac12(1,2) + (4,4) = (4.5, 5)$.
# * *End*: $o/\ell = (2.7, 3)$, and $\mathrm{lse} = m + \ln\ell = \ln 6 + \ln\frac53 = \ln 10$.
#
# All at once: weights 1, 3, 6 of 10, so $0.1\,(3,0) + 0.3\,(0,2) + 0.6\,(4,4) = (2.7, 3)$.
#
# *Backward*, let $do = (1, 0)$. Only lse and $o$ were kept. $p_j = e^{s_j - \ln 10}$ gives 0.1, 0.3, 0.6 back, block by
# block; $\delta = do\cdot o = 2.7$; $do\cdot v_j = 3, 0, 4$; $ds_j = p_j(do\cdot v_j - \delta) = 0.03, -0.81, 0.78$.
# They sum to 0, as they must: a softmax ignores what is added to all scores.
#
# ## 2. Where the bytes go
#
# A chip has a fast memory, small (a core's cache: 1 or 2 MiB), and a slow one, large. The naive code writes
# $S = QK^\top$, reads it for the softmax, writes $P$, reads $P$ for $PV$: four times $4T^2$ bytes in float32, through
# the slow memory as soon as $S$ outgrows the cache: 1 MiB at $T = 512$. The products are $4T^2d$ operations, so the
# *arithmetic intensity* is $4T^2d / 16T^2 = d/4$: 16 operations a byte at $d = 64$, whatever $T$ is. The softmax
# between them does a handful of operations for 8 bytes.
#
# In tiles of $B\times B$, each block of $Q$ and $O$ moves once, and one block of $K$ and one of $V$ for every tile:
# $8Bd$ bytes for $4B^2d$ operations. The intensity is $B/2$, and it is *we* who choose $B$. First, one rule for all
# masks: query $i$ sees the keys $\mathrm{low}_i \le j < \mathrm{high}_i$, and neither end ever falls with $i$.


# %%
def interval(T, causal=True, window=None, boundaries=None, length=None):
    """What queries 0 … T - 1 may see: low (T,), high (T,)."""
    t = np.arange(T)
    low, high = np.zeros(T, int), t + 1 if causal else np.full(T, T)
    if window is not None:  # |t - j| < window
        low, high = np.maximum(low, t - window + 1), np.minimum(high, t + window)
    if boundaries is not None:  # texts in one row: [0, 3, 7] is one of 3 tokens and one of 4
        ends = np.array(boundaries)
        text = np.searchsorted(ends, t, side="right")
        low, high = np.maximum(low, ends[text - 1]), np.minimum(high, ends[text])
    if length is not None:  # the rest is padding
        high = np.minimum(high, length)
    return low, high


def pairs(low, high):
    """Whether query i sees key j, (T, T)."""
    j = np.arange(len(low))
    return (low[:, None] <= j) & (j < high[:, None])


def naive(q, k, v, low, high, tally):
    """q (T, d), k (T, d), v (T, d) -> o (T, d), p (T, T). tally counts the bytes through the slow memory."""
    s = q @ k.T / math.sqrt(q.shape[1])  # (T, d) @ (d, T) -> (T, T)
    tally["bytes"] += q.nbytes + k.nbytes + s.nbytes
    s = np.where(pairs(low, high), s, -np.inf)  # (T, T)
    e = np.exp(s - s.max(1, keepdims=True))  # (T, T)
    p = e / e.sum(1, keepdims=True)  # (T, T)
    tally["bytes"] += s.nbytes + p.nbytes  # the whole softmax in one pass: generous
    o = p @ v  # (T, T) @ (T, d) -> (T, d)
    tally["bytes"] += p.nbytes + v.nbytes + o.nbytes
    return o, p


# %% [markdown]
# ## 3. Tile by tile: forward, and backward from lse alone
#
# $$m' = \max(m, \max_j s_{ij}),\quad \ell' = e^{m-m'}\ell + \sum_j e^{s_{ij}-m'},\quad
# o' = e^{m-m'}o + \sum_j e^{s_{ij}-m'}v_j,\quad \mathrm{lse} = m + \ln\ell$$
# $$p_{ij} = e^{s_{ij} - \mathrm{lse}_i},\quad \delta_i = do_i\cdot o_i,\quad
# ds_{ij} = p_{ij}(do_i\cdot v_j - \delta_i)$$
# $$dV_j \mathrel{+}= \sum_i p_{ij}\,do_i,\quad dK_j \mathrel{+}= \tfrac1{\sqrt d}\sum_i ds_{ij}\,q_i,\quad
# dQ_i \mathrel{+}= \tfrac1{\sqrt d}\sum_j ds_{ij}\,k_j$$
#
# Backward computes $P$ again, tile by tile: one product more, and no $T\times T$ matrix is kept between the passes.


# %%
def tiles(low, high, Tk, tile=128):
    """For each block of queries: its slice, and the slices of the blocks of keys of which it sees any."""
    for i in range(0, len(low), tile):
        rows = slice(i, i + tile)
        sees = [((low[rows] < j + tile) & (high[rows] > j)).any() for j in range(0, Tk, tile)]
        yield rows, [slice(n * tile, (n + 1) * tile) for n, seen in enumerate(sees) if seen]


def scores(q, k, low, high, rows, keys, slope):
    """One tile (rows, keys), -inf where hidden."""
    i, j = np.arange(len(q))[rows, None], np.arange(len(k))[keys]  # (rows, 1), (keys,)
    s = q[rows] @ k[keys].T / math.sqrt(q.shape[1])  # (rows, d) @ (d, keys) -> (rows, keys)
    s -= (slope * abs(i - j)).astype(s.dtype)  # (rows, keys): ALiBi, section 6
    return np.where((low[rows, None] <= j) & (j < high[rows, None]), s, -np.inf)  # (rows, keys)


def step(m, total, o, s, v):
    """The softmax carried on by a tile: m, total (rows, 1), o (rows, d); s (rows, keys), v (keys, d)."""
    higher = np.maximum(m, s.max(1, keepdims=True))  # (rows, 1)
    level = np.where(higher == -np.inf, 0, higher)  # (rows, 1): a row without any key so far
    p, rescale = np.exp(s - level), np.exp(m - level)  # (rows, keys), (rows, 1)
    return higher, total * rescale + p.sum(1, keepdims=True), o * rescale + p @ v


def forward(q, k, v, low, high, slope=0.0, step=step, tally=None):
    """q (Tq, d), k (Tk, d), v (Tk, d), low, high (Tq,) -> o (Tq, d), lse (Tq,)."""
    o, lse, tally = np.empty_like(q), np.empty(len(q), q.dtype), Counter() if tally is None else tally
    for rows, seen in tiles(low, high, len(k)):
        part = np.zeros_like(q[rows])  # (rows, d)
        m, total = np.full((len(part), 1), -np.inf, q.dtype), np.zeros((len(part), 1), q.dtype)  # (rows, 1)
        for keys in seen:
            m, total, part = step(m, total, part, scores(q, k, low, high, rows, keys, slope), v[keys])
            tally["bytes"] += k[keys].nbytes + v[keys].nbytes
        o[rows] = part / np.where(total == 0, 1, total)  # a row without keys: 0
        with np.errstate(divide="ignore"):
            lse[rows] = (m + np.log(total))[:, 0]
        tally["bytes"] += q[rows].nbytes + o[rows].nbytes + lse[rows].nbytes
    return o, lse


def backward(do, q, k, v, o, lse, low, high, slope=0.0):
    """do (Tq, d) and what forward got and gave -> dq (Tq, d), dk (Tk, d), dv (Tk, d)."""
    dq, dk, dv, delta = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), (do * o).sum(1)  # delta (Tq,)
    level = np.where(lse == -np.inf, 0, lse)  # (Tq,)
    for rows, seen in tiles(low, high, len(k)):
        for keys in seen:
            p = np.exp(scores(q, k, low, high, rows, keys, slope) - level[rows, None])  # (rows, keys)
            ds = p * (do[rows] @ v[keys].T - delta[rows, None]) / math.sqrt(q.shape[1])  # (rows, keys)
            dv[keys] += p.T @ do[rows]  # (keys, rows) @ (rows, d) -> (keys, d)
            dk[keys] += ds.T @ q[rows]  # (keys, rows) @ (rows, d) -> (keys, d)
            dq[rows] += ds @ k[keys]  # (rows, keys) @ (keys, d) -> (rows, d)
    return dq, dk, dv


lesson.step("On paper, and beside the engine")
paper_k, paper_v = np.log([[1.0, 1], [3, 1], [1, 6]]), np.array([[3.0, 0], [0, 2], [4, 4]])  # (3, 2) each
m, total, part = np.full((1, 1), -np.inf), np.zeros((1, 1)), np.zeros((1, 2))
for keys in (slice(0, 2), slice(2, 3)):
    m, total, part = step(m, total, part, np.ones((1, 2)) @ paper_k[keys].T, paper_v[keys])
np.testing.assert_allclose(part / total, [[2.7, 3]])
np.testing.assert_allclose(m + np.log(total), np.log(10))
paper_p = np.exp(paper_k.sum(1) - np.log(10))  # (3,): q = (1, 1)
np.testing.assert_allclose(paper_p * (paper_v[:, 0] - 2.7), [0.03, -0.81, 0.78])

T = 300  # not a multiple of the tile
q, k, v, do = random.normal((4, T, 16), dtype=np.float64)  # (T, d) each
variants = [  # ours, and what the engine calls it
    (interval(T), {"is_causal": True}, 0.0),
    (interval(T, causal=False), {}, 0.0),
    (interval(T, window=50), {"is_causal": True, "window": 50}, 0.0),
    (interval(T, boundaries=[0, 40, 200, T]), {"is_causal": True, "boundaries": [0, 40, 200, T]}, 0.0),
    (interval(T, causal=False, length=170), {"key_lengths": [170]}, 0.0),
    (interval(T, window=90), {"is_causal": True, "window": 90, "alibi_slopes": [0.25]}, 0.25),
]
for (low, high), options, slope in variants:
    o, lse = forward(q, k, v, low, high, slope)
    ours = backward(do, q, k, v, o, lse, low, high, slope)
    inputs = [mt.tensor(x[None, None], requires_grad=True) for x in (q, k, v)]  # (B, H, T, d) = (1, 1, T, d)
    output = mt.scaled_dot_product_attention(*inputs, **options)
    output.backward(do[None, None])
    np.testing.assert_allclose(output.data[0, 0], o, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose([x.grad[0, 0] for x in inputs], ours, rtol=1e-8, atol=1e-10)
lesson.say(f"{len(variants)} ways to see: our tiles and the engine agree, forward and backward.")

# %% [markdown]
# ## 4. Predict the bytes, then the memory
#
# One head, causal, $T = 4096$, $d = 64$, float32, tiles of 128. A $T\times T$ matrix is 64 MiB; $Q$, $K$, $V$, $O$ are
# 1 MiB each, a block of $K$ and one of $V$ 64 KiB. Tiles on and below the diagonal: $1 + 2 + \dots + 32 = 528$.

# %%
lesson.step("Bytes that move, counted while it runs")
LENGTHS, d = (512, 1024, 2048, 4096), 64
guess_naive = lesson.predict("MiB through slow memory, naive, T = 4096?", 4 * 64 + 4, "MiB")
guess_tiled = lesson.predict("MiB through slow memory, in tiles of 128?", 528 / 16 + 2, "MiB")
guess_copies = lesson.predict("T × T matrices at the peak of a naive forward + backward?", 3)


def train_naive(q, k, v, do, tally):
    o, p = naive(q, k, v, *interval(len(q)), tally)
    ds = p * (do @ v.T - (do * o).sum(1, keepdims=True)) / math.sqrt(d)  # (T, T)
    return ds @ k, ds.T @ q, p.T @ do  # (T, d) each


def train_tiled(q, k, v, do, tally):
    low, high = interval(len(q))
    return backward(do, q, k, v, *forward(q, k, v, low, high, tally=tally), low, high)


peaks, moved, results = {}, {}, {}
for T in LENGTHS:
    inputs = random.normal((4, T, d))  # (4, T, d) float32
    for way in (train_naive, train_tiled):
        tally = Counter()
        tracemalloc.start()
        results[way] = way(*inputs, tally)
        peaks[way, T], moved[way, T] = tracemalloc.get_traced_memory()[1] / 2**20, tally["bytes"] / 2**20
        tracemalloc.stop()
    np.testing.assert_allclose(results[train_tiled], results[train_naive], rtol=1e-3, atol=1e-4)
guess_naive.see(moved[train_naive, 4096], allowed=(260, 260))
guess_tiled.see(moved[train_tiled, 4096], allowed=(35, 35.1))
guess_copies.see(peaks[train_naive, 4096] / 64, allowed=(2.9, 4.1))
assert peaks[train_tiled, 4096] < 2.2 * peaks[train_tiled, 2048]  # quadratic: 4


def best(work):
    return min(timeit.repeat(work, number=1, repeat=3))


q, k, v, _ = inputs
products, whole = best(lambda: (q @ k.T) @ v), best(lambda: naive(q, k, v, *interval(4096), tally))
lesson.note("naive, T = 4096: share of the time outside the products", 100 * (1 - products / whole), "%")
curves = {
    f"{name}: {what}": [found[way, T] for T in LENGTHS]
    for name, way in (("naive", train_naive), ("tiles", train_tiled))
    for what, found in (("bytes moved", moved), ("peak memory", peaks))
}
lines(LENGTHS, curves, xlabel="tokens T", ylabel="MiB, one head of width 64", logx=True, logy=True,
      title="Tiles: memory linear in T, and a seventh of the traffic", path=lesson.figure("memory"))  # fmt: skip

# %% [markdown]
# Traffic is that of one forward pass, memory the peak of both passes without the inputs; `tracemalloc` sees arrays, not
# the scratch of C++. The traffic of tiles is still *quadratic*, less by a constant that grows with the tile: $K$ and
# $V$ are read again for every block of queries. The note: how long NumPy is at the passes between its products.
#
# ## 5. What nobody sees is not computed
#
# Predict by counting, tiles of 128, causal, $T = 4096$:
#
# * *window 256*: block $n$ of queries begins at $128n$ and looks back to $128n - 255$, which lies in block $n - 2$. So
#   three tiles a row of tiles, but one and two in the first two rows: $1 + 2 + 30\cdot3 = 93$ of 528.
# * *eight texts of 512 packed into a row*: each is $1 + 2 + 3 + 4 = 10$ tiles.
# * At $T = 16384$, some $T/2$ keys a query become 256: one *pair* in 32 is left. And one *tile* in how many?

# %%
lesson.step("Tiles that are left")
guess_window = lesson.predict("tiles with window 256, T = 4096 (causal alone: 528)?", 93, "tiles")
guess_packed = lesson.predict("tiles with 8 packed texts of 512?", 80, "tiles")
guess_pairs = lesson.predict("T = 16384, window 256: one pair in how many is left?", 32)
guess_left = lesson.predict("and one tile of 128 in how many?", round(8256 / 381, 1))
guess_engine = lesson.predict("the NumPy engine's multiplications left, T = 4096, in %?", 17.6, "%")


def count(low, high, tile=128):
    """Tiles that are computed."""
    return sum(len(seen) for _, seen in tiles(low, high, len(low), tile))


def weigh(low, high):
    return int((high - low).clip(0).sum())


guess_window.see(count(*interval(4096, window=256)), allowed=(93, 93))
guess_packed.see(count(*interval(4096, boundaries=range(0, 4097, 512))), allowed=(80, 80))
full, windowed = interval(16384), interval(16384, window=256)
guess_pairs.see(weigh(*full) / weigh(*windowed), allowed=(32, 32.5))
guess_left.see(count(*full) / count(*windowed), allowed=(21.6, 21.7))


class Counted(np.ndarray):
    """An array that counts the multiplications of the matrix products which it enters."""

    multiplications = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        inputs = [np.asarray(x) for x in inputs]
        result = getattr(ufunc, method)(*inputs, **options)
        Counted.multiplications += result.size * inputs[0].shape[-1] if ufunc is np.matmul else 0
        return result


counts = []
q, k, v = random.normal((3, 1, 1, 4096, d)).view(Counted)  # (1, 1, T, d) each
for window in (None, 256):
    Counted.multiplications = 0
    with kernels.use("numpy"):
        kernels.attention_forward(q, k, v, scale=0.125, causal=True, window=window)
    counts.append(Counted.multiplications)
assert counts[0] == count(*interval(4096)) * 128 * 128 * 2 * d
guess_engine.see(100 * counts[1] / counts[0], allowed=(17.5, 17.7))

shapes = {
    "causal": interval(1024),
    "window 256": interval(1024, window=256),
    "three texts, packed": interval(1024, boundaries=[0, 300, 700, 1024]),
    "640 of 1,024 are text": interval(1024, length=640),
}
with drawing():
    figure = new_figure(WIDTH, 2.75)
    colours = (MASKED, "#7fb8d9", PALETTE[0])
    for axes, (name, (low, high)) in zip(figure.subplots(1, 4, sharey=True), shapes.items()):
        share = pairs(low, high).reshape(16, 64, 16, 64).mean((1, 3))  # (16, 16): of each tile
        drawn = count(low, high, 64)
        assert drawn == (share > 0).sum()
        axes.pcolormesh((share > 0) + 0 + (share == 1), cmap=ListedColormap(colours), vmin=0, vmax=2,
                        edgecolors="white", linewidth=0.7)  # fmt: skip
        axes.set(ylim=(16, 0), aspect="equal", xticks=[], yticks=[], xlabel=f"keys\n{drawn} of 256 tiles")
        axes.set_title(name, fontsize=9)
        axes.spines[:].set_visible(False)
    figure.axes[0].set_ylabel("queries")
    names = zip(colours, ("skipped", "computed, then partly hidden", "computed, all of it seen"))
    patches = [Patch(facecolor=colour, edgecolor=FAINT, label=name) for colour, name in names]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    save(figure, lesson.figure("tiles"))

# %% [markdown]
# Light tiles are computed, then partly thrown away. Smaller ones follow the edge more closely (64 × 64 at $T = 16384$:
# 1,270 of 32,896, one in 26), but move more bytes. And seconds?

# %%
whose, seconds = kernels.explain(kernels.attention_forward, q, k, v, scale=0.125)[0].source, {}
for T in (4096, 8192):
    for window in (None, 256):
        options = {"scale": 0.125, "causal": True, "window": window}
        seconds[T, window] = best(partial(kernels.attention_forward, *random.normal((3, 1, 1, T, d)), **options))
    lesson.note(f"T = {T}, {whose}: causal, as many times a window of 256", seconds[T, None] / seconds[T, 256], "times")
growth = {w: weigh(*interval(65536, window=w)) / weigh(*interval(32768, window=w)) for w in (None, 256)}
short = weigh(*interval(2048)) / weigh(*interval(1024))
assert max(abs(short - 4), abs(growth[None] - 4), abs(growth[256] - 2)) < 0.01
slower = {w: seconds[8192, w] / seconds[4096, w] for w in (None, 256)}
lesson.claim("C13", verdict="partly", setup=f"causal, one head of width 64, {whose} kernels, best of 3",
    measured=f"pairs grow {growth[None]:.2f} times from T = 32768 to 65536, and {short:.2f} from 1024 to 2048: nothing "
    f"begins at 32K. With a window of 256 {growth[256]:.2f} times. Seconds from 4096 to 8192: {slower[None]:.1f} and "
    f"{slower[256]:.1f} times. Memory is linear. The first token was not timed",
)  # fmt: skip
lesson.claim("D5 §3.2: a sliding window reduces computation", verdict="reproduced", setup="tiles of 128, counted",
    measured=f"window 256: {count(*interval(4096, window=256))} of 528 tiles at T = 4096, {count(*windowed)} of "
    f"{count(*full):,} at T = 16384; there one pair in {weigh(*full) / weigh(*windowed):.0f}",
)  # fmt: skip

# %% [markdown]
# ## 6. ALiBi: distance as a bias, and looking at single rows
#
# ALiBi takes $\mathrm{slope}_h\,|t - j|$ off every score: a position without a table and without a parameter, made
# inside the tile. The slopes of 8 heads are $\frac12, \frac14, \dots, \frac1{256}$. If all scores are alike, weights
# fall by $r = e^{-\mathrm{slope}}$ a step, and the mean distance looked back is $r/(1-r) = 1/(e^{\mathrm{slope}} - 1)$:
# 1.5 tokens for the first head. For the last? We ask for the rows of two heads and one query at $T = 4096$: how many
# KiB is that, where all would be 512 MiB?

# %%
lesson.step("ALiBi")
guess_last = lesson.predict("mean distance looked back, slope 1/256?", round(1 / math.expm1(1 / 256), 1), "tokens")
guess_rows = lesson.predict("KiB of probabilities: 2 heads, 1 query, T = 4096?", 32, "KiB")
alike = np.zeros((1, 8, 4096, 4), np.float32)  # (B, H, T, d): all scores are 0
options = {"scale": 1.0, "causal": True, "slopes": nn.alibi_slopes(8).astype(np.float32)}  # slopes (H,)
_, lse = kernels.attention_forward(alike, alike, alike, **options)  # (B, H, T)
p = kernels.attention_probabilities(alike, alike, lse, heads=np.array([0, 7]), rows=np.array([4095]), **options)
first, last = p[0, :, 0] @ np.arange(4095, -1, -1)  # p (B, heads, rows, Tk) = (1, 2, 1, 4096)
np.testing.assert_allclose(first, 1 / math.expm1(1 / 2), rtol=1e-3)
guess_last.see(last, allowed=(255.4, 255.6))
guess_rows.see(p.nbytes / 1024, allowed=(32, 32))

q, k, v = np.repeat(random.normal((3, 1, 1, 160, 16), dtype=np.float64), 4, axis=2)  # (B, 4 equal heads, T, d) each
shown = {"scale": 0.25, "causal": True, "slopes": nn.alibi_slopes(4)}
_, lse = kernels.attention_forward(q, k, v, **shown)
head_grid(kernels.attention_probabilities(q, k, lse, **shown), path=lesson.figure("alibi"), vmax=0.25,
          title="ALiBi: the same queries and keys under slopes 1/4, 1/16, 1/64, 1/256")  # fmt: skip
swapped = np.arange(160)
swapped[[30, 155]] = 155, 30  # two earlier tokens change places
change = []
for options in ({"scale": 0.25, "causal": True}, shown):
    before, after = (kernels.attention_forward(q, k[:, :, i], v[:, :, i], **options)[0][:, :, -1]
                     for i in (slice(None), swapped))  # fmt: skip
    change.append(np.abs(after - before).max(-1)[0])  # (H,)
assert change[0].max() < 1e-12 < 1e-4 < change[1].min()
lesson.claim("D5 §3.2: ALiBi replaces rotary positions", verdict="partly",
    setup="slopes of 8 heads for the reach, of 4 for the order; not trained",
    measured="it gives order without a parameter (two tokens change places: the last output changes by "
    f"{change[1].min():.3f} or more in every head, by rounding without ALiBi), and fixes each head's reach: at equal "
    f"scores heads look back {first:.1f} to {last:.0f} tokens. Rotary positions were not compared",
)  # fmt: skip

# %% [markdown]
# An alternative, no replacement: with slope ½ a key 100 tokens further back needs a score higher by 50.
#
# ## 7. Decoding: the cache is the traffic
#
# A new query reads all of $K$ and $V$ for two products: half an operation a byte. No tile helps, only fewer bytes.
# *Grouped heads*: $H$ query heads share $G$ heads of keys and values, so bytes fall by $H/G$. *Pages*: the cache is a
# pool of pages of $n$ tokens, and a table says where each text's lie. With $n = 16$, token 37 is at place 37 mod 16 = 5
# of page `table[37 // 16]` = `table[2]`. What is lost is the rest of a text's last page: 0 to 15 places.
#
# Predict: 100 texts of 1 to 2,048 tokens lose how many places each? And 16 answers of 100 tokens to one prompt of 1,000
# take how many pages? The prompt is 62 full ones and half of one; an answer ends in its 69th, and shares 62.

# %%
lesson.step("The KV cache")
guess_kv = lesson.predict("MiB of KV cache: 4,096 tokens, G = 2, d = 64, float32 (G = 8: 16)?", 4, "MiB")
guess_lost = lesson.predict("places lost by a text in pages of 16, mean?", 7.5, "places")
guess_shared = lesson.predict("pages of the 16 answers (unshared: 1,104)?", 62 + 16 * 7, "pages")
grouped = nn.PagedCache(layers=1, pages=256, page_size=16, heads=2, head_width=64)
guess_kv.see(sum(x.nbytes for pool in grouped.pools for x in pool) / 2**20, allowed=(4, 4))
lengths = random.integers(1, 2049, 100)
cache = nn.PagedCache(layers=1, pages=100 * 128, page_size=16, heads=1, head_width=1)
for n in lengths:
    cache.extend([cache.start()], int(n))
taken = (12800 - cache.free_pages) * 16
guess_lost.see((taken - lengths.sum()) / 100, allowed=(6, 9))
sharing = nn.PagedCache(layers=1, pages=1200, page_size=16, heads=1, head_width=1)
prompt = sharing.start()
sharing.extend([prompt], 1000).layers[0].attend(*(mt.ones(1, 1, 1000, 1) for _ in range(3)))
sharing.extend([prompt, *(sharing.fork(prompt) for _ in range(15))], 100)
guess_shared.see(1200 - sharing.free_pages, allowed=(174, 174))

grouped.pools[0][0][:] = grouped.pools[0][1][:] = np.nan  # what no text wrote must not be read
k, v = random.normal((2, 1, 2, 100, 64))  # (B, G, T, d) each
q = random.normal((1, 8, 100, 64))  # (B, H, T, d): four query heads share a head of keys
with mt.no_grad():
    layer = grouped.extend([grouped.start()], 100).layers[0]
    paged = layer.attend(*map(mt.tensor, (q, k, v))).numpy()
k, v = np.repeat(k, 4, axis=1), np.repeat(v, 4, axis=1)  # (B, H, T, d) each
expected = kernels.attention_forward(q, k, v, scale=0.125, causal=True)[0]
np.testing.assert_allclose(paged, expected, rtol=1e-4, atol=1e-5)
pools = [np.ones((256, 2, 16, 64), np.float32) for _ in "kv"]  # (P, G, n, d), 2 MiB each
where, length = np.arange(256)[None, ::-1].copy(), np.array([4096])  # (B, pages of the text), (B,)
query = np.ones((1, 8, 1, 64), np.float32)  # (B, H, 1, d)
tracemalloc.start()
kernels.paged_attention_forward(query, *pools, where, length, scale=0.125)
copied = tracemalloc.get_traced_memory()[1] / 2**20
tracemalloc.stop()
lesson.note(f"MiB allocated to read 4 MiB of pages ({whose})", copied, "MiB")
assert whose != "native" or copied < 0.1, "C++ reads the pages where they lie"
lesson.claim("D5 §3.2: PagedAttention manages memory dynamically", verdict="reproduced",
    setup="100 texts of 1 to 2,048 tokens, pages of 16; prompt 1,000, answers 100 tokens",
    measured=f"{100 * lengths.sum() / taken:.1f} % of the places taken hold a token, {100 * lengths.mean() / 2048:.0f} "
    f"% with 2,048 places for each; 16 answers share a prompt in {1200 - sharing.free_pages} pages instead of 1,104",
)  # fmt: skip

# %% [markdown]
# The NumPy kernels gather the pages into one piece first; the C++ loop follows the table (`row_of` in
# `csrc/attention_tiles.hpp`). A page is copied only when two texts share it and one of them writes.
#
# ## 8. Break it
#
# **Forget the rescale.** On paper: $\ell = \frac43 + 1$, $o = (5, 6)$, so $(2.14, 2.57)$: block 1 counts double. Now a
# test with keys in *falling* order of score: how many of 300 rows come out wrong?

# %%
lesson.step("Break it: forget the rescale")
T = 300
guess_falling = lesson.predict("wrong rows of 300 without the rescale, scores falling along the keys?", 0, "rows")


def without_rescale(m, total, o, s, v):
    higher = np.maximum(m, s.max(1, keepdims=True))
    p = np.exp(s - higher)
    return higher, total + p.sum(1, keepdims=True), o + p @ v


q, v = np.ones((T, 4)), random.normal((T, 4), dtype=np.float64)
wrong = []
for order in (-1, 1):
    k = np.linspace(0, 3 * order, T)[:, None] * np.ones(4) + 5  # (T, d)
    good, bad = (forward(q, k, v, *interval(T), step=s)[0] for s in (step, without_rescale))
    wrong.append((np.abs(good - bad).max(1) > 1e-9).sum())
guess_falling.see(wrong[0], allowed=(0, 0))
assert wrong[1] == 300 - 128

# %% [markdown]
# With rising scores 172 are wrong, all but the first 128, which meet a single tile. $T \le 128$ would prove nothing.
#
# **A row that may see no key**: padding, or a query that stands before the first key. $m = -\infty$, and
# $e^{-\infty-(-\infty)}$ is NaN. A popular cure is −1e9 in place of −∞. Does that give 0?

# %%
lesson.step("Break it: nothing to see")


def careless(m, total, o, s, v, hidden=-np.inf):
    s = np.where(s == -np.inf, hidden, s)
    higher = np.maximum(m, s.max(1, keepdims=True))
    p, rescale = np.exp(s - higher), np.exp(m - higher)
    return higher, total * rescale + p.sum(1, keepdims=True), o * rescale + p @ v


x, low, high = v[:4], np.zeros(4, int), np.array([0, 0, 2, 4])  # the first two queries see nothing
o, lse = forward(x, x, x, low, high)
assert not o[:2].any() and (lse[:2] == -np.inf).all() and not backward(x, x, x, x, o, lse, low, high)[0][:2].any()
with np.errstate(invalid="ignore"):
    assert np.isnan(forward(x, x, x, low, high, step=careless)[0][:2]).all()
cured = forward(x, x, x, low, high, step=partial(careless, hidden=-1e9))[0]
np.testing.assert_allclose(cured, [x.mean(0), x.mean(0), *o[2:]])
lesson.say("guarded: 0; unguarded: NaN; with -1e9: the mean of all that should be hidden, and no alarm")

# %% [markdown]
# **A window off by one.** $|t - j| \le w$ in place of $< w$: no loss will tell. Change one token's key and value.

# %%
lesson.step("Break it: a window off by one")
guess_reach = lesson.predict("outputs that change with token 300's key and value, window 256?", 256, "outputs")
q, k, v = random.normal((3, 1, 1, 1024, 8), dtype=np.float64)  # (B, H, T, d) each
k2, v2 = (x + (np.arange(1024) == 300)[:, None] for x in (k, v))
reach = []
for window in (256, 257):
    options = {"scale": 0.3, "causal": True, "window": window}
    before, after = (kernels.attention_forward(q, *kv, **options)[0] for kv in ((k, v), (k2, v2)))
    reach.append((before != after).any(-1).sum())
guess_reach.see(reach[0], allowed=(256, 256))
assert reach[1] == 257  # the test can tell the two apart
lesson.finish()

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | right up to $T = 128$, then wrong | no rescale | scores that rise along the keys, more than one tile |
# | NaN in some rows of padding | $-\infty - (-\infty)$ | a row that sees nothing beside one that does: exactly 0 |
# | padding leaks, nothing fails | −1e9 for −∞ | the same; and NaN in hidden keys and values |
# | nothing | window off by one | change token $t$: the outputs $t \dots t+w-1$ change, and no other |
#
# ## Questions learners ask
#
# * **Backward computes $P$ again. Is that not slower?** One product of five. A stored $P$ would be 64 MiB a head at
#   $T = 4096$, and would have to wait somewhere between the passes.
# * **Does a window blind the model?** One layer, yes. $L$ layers reach back $L(w-1)$: each reads what others gathered.
#
# ## Exercises
#
# 1. `online_softmax_update(o, lse, s, v) -> tuple`: two numbers suffice; carry $o$ normalised, and lse.
#    <details><summary>Hint</summary>lse is the logarithm of a sum; old and new parts weigh $e^{lse - lse'}$.</details>
# 2. `blocked_attention(q, k, v, low, high) -> tuple`: heads, groups, intervals; no $T \times T$.
#    <details><summary>Hint</summary>Query head $h$ reads `k[h // (H // G)]`; hidden values may be NaN.</details>
# 3. `visible_blocks(low, high, rows, keys) -> int`: predict the work without looking at every tile.
#    <details><summary>Hint</summary>Ends never fall: remember the last block that was counted.</details>
# 4. `paged_row(q, keys, values, table, length, window=None) -> np.ndarray`: decode through a table.
#    <details><summary>Hint</summary>Token $j$ lies at place $j \bmod n$ of page `table[j // n]`.</details>
#
# ## Quiz
#
# 1. Twice the tile, $B = 256$: the traffic of $K$ and $V$ becomes **(a)** half, **(b)** a quarter, **(c)** the same. —
#    (a). (b): fewer tiles by four, each with twice the bytes. (c) would be so if the intensity did not grow with $B$.
# 2. Backward gets $p_{ij}$ from **(a)** a stored $P$, **(b)** $o_i$, **(c)** $s_{ij}$, computed again, and lse. — (c).
#    (a) is what we avoid. (b) is for $\delta$.
# 3. Window 256, $T$ doubles: tiles **(a)** double, **(b)** stay, **(c)** grow four times. — (a): three a block of
#    queries. (b) forgets that there are more queries. (c) is without a window.
# 4. With $G = 2$ for $H = 8$ the cache falls to a quarter, and the multiplications of attention **(a)** too, **(b)** to
#    half, **(c)** stay. — (c): every query head still meets every key. (a) is true of bytes. (b) of nothing here.

# %% [markdown] exercise="10.1"
# ### Exercise 10.1: `online_softmax_update`
#
# The lesson carries three things a row: the maximum, the sum, the unnormalised output. Two are enough: the output
# *normalised*, and lse. So any machine, or any stretch of a long cache, can hand over a finished attention and another
# goes on from there. Take in one tile. A row may have seen no key before (lse = -inf, o = 0) and may see none now.
#
# ```python
# import numpy as np
#
#
# def online_softmax_update(o, lse, s, v):
#     """o (T, d) and lse (T,) over the keys so far; s (T, n) scores of n further keys, -inf where hidden; v (n, d)
#     -> o (T, d), lse (T,) over all, in the dtype of o. The inputs are not changed. No NaN, and no warning.
#
#     lse_i = log Σ_j exp(s_ij),   o_i = Σ_j exp(s_ij - lse_i) v_j;  -inf and 0 where there is no key.
#     """
#     raise NotImplementedError("the new lse first; then both parts, weighted by exp(their lse - the new one)")
# ```
#
# <details><summary>Hint 1</summary>The old keys together weigh as much as one key with the score lse. On paper: o =
# (0.75, 1.5) with lse = ln 4, then a score of ln 6: the old output counts 4/10, the new value 6/10.</details>
# <details><summary>Hint 2</summary>m = max(lse, the row's largest score); new lse = m + log(exp(lse - m) + Σ exp(s -
# m)). Then o exp(lse - new) + exp(s - new) v.</details>
# <details><summary>Hint 3</summary>Where m is -inf take off 0 instead, and do not take log(0): `np.where(total == 0,
# 1, total)` under the logarithm, and -inf put in by hand.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def online_softmax_update(o, lse, s, v):
#     m = np.maximum(lse, s.max(1, initial=-np.inf))  # (T,)
#     level = np.where(m == -np.inf, 0, m).astype(o.dtype)
#     old, p = np.exp(lse - level), np.exp(s - level[:, None])  # (T,), (T, n)
#     total = old + p.sum(1)
#     safe = np.where(total == 0, 1, total).astype(o.dtype)
#     new = np.where(total == 0, o.dtype.type(-np.inf), level + np.log(safe))
#     return (o * old[:, None] + p @ v) / safe[:, None], new
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the old output is not weighted: `o * old[:, None] + p @ v` → `o + p @ v`
# * the old sum is not rescaled: `total = old + p.sum(1)` → `total = np.exp(lse) + p.sum(1)`
# * the old keys count as one of score m: `total = old + p.sum(1)` → `total = 1 + p.sum(1)`
# * lse without the maximum: `level + np.log(safe)` → `np.log(safe)`
# * no maximum: `level = np.where(m == -np.inf, 0, m).astype(o.dtype)` → `level = np.zeros_like(lse)`
# * the tile's maximum alone: `m = np.maximum(lse, s.max(1, initial=-np.inf))` → `m = s.max(1, initial=-np.inf)`
# * NaN in rows without a key: `np.where(m == -np.inf, 0, m).astype(o.dtype)` → `m`
# * lse 0 in rows without a key: `o.dtype.type(-np.inf), level` → `o.dtype.type(0), level`
# * o is left unnormalised: `(o * old[:, None] + p @ v) / safe[:, None]` → `(o * old[:, None] + p @ v)`
#
# </details>

# %% [markdown] exercise="10.2"
# ### Exercise 10.2: `blocked_attention`
#
# The whole forward pass, for heads in groups and any intervals: causal, window, packed texts, padding. Nothing of the
# size of a T × T matrix may exist. And keys and values that no query sees may hold NaN, since nobody wrote them: 0
# times NaN is NaN, so inside a tile, too, they must not be multiplied.
#
# ```python
# import numpy as np
#
#
# def blocked_attention(q, k, v, low, high):
#     """q (H, Tq, d), k (G, Tk, d), v (G, Tk, d), G divides H: query head h reads key/value head h // (H // G).
#     Query i sees the keys low[i] <= j < high[i]; neither low nor high (Tq,) ever falls. Scores are q·k / √d.
#     -> o (H, Tq, d), lse (H, Tq), in the dtype of q; 0 and -inf where a query sees nothing.
#     """
#     raise NotImplementedError("heads; blocks of queries; blocks of the keys that they see; the softmax carried on")
# ```
#
# <details><summary>Hint 1</summary>A block of queries i .. i + n sees keys from low[i] to high[i + n - 1] only: start
# and stop its loop over keys there.</details>
# <details><summary>Hint 2</summary>Inside: hide with `np.where`, then the step of the lesson (or yours of 10.1), with a
# 0 in place of a maximum of -inf.</details>
# <details><summary>Hint 3</summary>A key with a NaN gives NaN scores: hide after the product. Of the values in a tile,
# `np.where(np.isfinite(values), values, 0)` is enough: what anybody sees is finite.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def blocked_attention(q, k, v, low, high, tile=128):
#     H, Tq, d = q.shape
#     o, lse = np.zeros_like(q), np.full((H, Tq), -np.inf, q.dtype)
#     for h in range(H):
#         group = h // (H // len(k))
#         for i in range(0, Tq, tile):
#             rows = slice(i, min(i + tile, Tq))
#             first, last = int(low[i]), int(high[rows.stop - 1])
#             m = np.full((rows.stop - i, 1), -np.inf, q.dtype)
#             total, part = np.zeros_like(m), np.zeros_like(q[h, rows])
#             for j in range(first, last, tile):
#                 keys = np.arange(j, min(j + tile, last))
#                 s = q[h, rows] @ k[group, keys].T * q.dtype.type(d**-0.5)  # (rows, keys)
#                 s = np.where((low[rows, None] <= keys) & (keys < high[rows, None]), s, q.dtype.type(-np.inf))
#                 values = v[group, keys]
#                 values = np.where(np.isfinite(values), values, q.dtype.type(0))
#                 higher = np.maximum(m, s.max(1, keepdims=True))
#                 level = np.where(higher == -np.inf, q.dtype.type(0), higher)
#                 p, rescale = np.exp(s - level), np.exp(m - level)
#                 total = total * rescale + p.sum(1, keepdims=True)
#                 part = part * rescale + p @ values
#                 m = higher
#             seen = total[:, 0] > 0
#             o[h, rows][seen] = part[seen] / total[seen]
#             lse[h, rows][seen] = (m[seen] + np.log(total[seen]))[:, 0]
#     return o, lse
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the output not rescaled: `part = part * rescale + p` → `part = part + p`
# * the sum not rescaled: `total = total * rescale + p` → `total = total + p`
# * the last key hidden: `keys < high[rows, None]` → `keys < high[rows, None] - 1`
# * the first key hidden: `low[rows, None] <= keys` → `low[rows, None] < keys`
# * low forgotten: `(low[rows, None] <= keys) & (keys` → `(keys`
# * the block ends where its first query does: `int(high[rows.stop - 1])` → `int(high[i])`
# * heads in turn, not in groups: `group = h // (H // len(k))` → `group = h % len(k)`
# * no factor: `d**-0.5` → `1`
# * hidden NaN leaks: `np.where(np.isfinite(values), values, q.dtype.type(0))` → `values`
# * all at once: `tile=128` → `tile=10**6`
# * NaN in rows that begin late: `np.where(higher == -np.inf, q.dtype.type(0), higher)` → `higher`
# * lse without the maximum: `(m[seen] + np.log(total[seen]))` → `np.log(total[seen])`
#
# </details>

# %% [markdown] exercise="10.3"
# ### Exercise 10.3: `visible_blocks`
#
# Predict the work of a mask: how many tiles hold a pair that sees each other? The lesson looked at every tile, and a
# text of a million tokens has 61 million of 128 × 128. Do it in one walk along the queries.
#
# ```python
# import numpy as np
#
#
# def visible_blocks(low, high, rows, keys):
#     """low, high (T,) integers: query i sees the keys low[i] <= j < high[i], none where low[i] >= high[i]; among those
#     that see any, neither end falls. Tiles are `rows` queries by `keys` keys, counted from 0, the last ones cut off.
#     -> int: the tiles with at least one visible pair, in time that grows with T and not with T².
#     """
#     raise NotImplementedError("for each block of queries: which blocks of keys has it met, and which are new?")
# ```
#
# <details><summary>Hint 1</summary>Query i meets the blocks low // keys to (high - 1) // keys.</details>
# <details><summary>Hint 2</summary>Within a block of queries remember the last block of keys that was counted: a query
# adds only those beyond it.</details>
# <details><summary>Hint 3</summary>There may be gaps: query 3 sees key 0, query 4 sees key 900. So count from
# max(low // keys, counted + 1), not from the first block of all.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def visible_blocks(low, high, rows, keys):
#     count = 0
#     for first in range(0, len(low), rows):
#         counted = -1  # the last block of keys that this block of queries has met
#         for a, b in zip(low[first : first + rows].tolist(), high[first : first + rows].tolist()):
#             if a < b:
#                 begin, end = max(a // keys, counted + 1), (b - 1) // keys
#                 count += max(0, end - begin + 1)
#                 counted = max(counted, end)
#     return count
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * high is taken as seen: `(b - 1) // keys` → `b // keys`
# * queries that see nothing count: `if a < b:` → `if a <= b:`
# * every query counts its blocks again: `max(a // keys, counted + 1)` → `a // keys`
# * gaps are filled: `max(a // keys, counted + 1), (b - 1)` → `counted + 1 if counted >= 0 else a // keys, (b - 1)`
# * blocks of all queries are remembered: `counted = -1  #` → `counted = -1 if first == 0 else counted  #`
# * rows and keys swapped: `def visible_blocks(low, high, rows, keys):` → `def visible_blocks(low, high, keys, rows):`
# * the last block of queries forgotten: `range(0, len(low), rows)` → `range(0, len(low) - rows + 1, rows)`
#
# </details>

# %% [markdown] exercise="10.4"
# ### Exercise 10.4: `paged_row`
#
# One decoding step of one head, its keys and values in pages. The pool belongs to many texts: what this text has not
# written may hold anything, NaN included. With a window, pages that have fallen out of sight are given to others, and
# the table's entry is -1.
#
# ```python
# import math
#
# import numpy as np
#
#
# def paged_row(q, keys, values, table, length, window=None):
#     """q (d,), the text's last token; pools keys (P, n, d), values (P, n, dv) of pages of n tokens; table (m,) page
#     numbers; length >= 1, tokens that the text holds, the last one included -> o (dv,). Scores are q·k / √d.
#
#     Token j lies at place j % n of page table[j // n]. window: only the last so many tokens are seen.
#     """
#     raise NotImplementedError("which tokens are seen, where they lie, then one softmax")
# ```
#
# <details><summary>Hint 1</summary>The tokens seen are `np.arange(start, length)`; the rest of the pool must not be
# touched.</details>
# <details><summary>Hint 2</summary>`keys[table[j // n], j % n]` with an array j gathers all of them: (tokens,
# d).</details>
# <details><summary>Hint 3</summary>start = max(0, length - window). Then s = k @ q / √d, and p with its maximum taken
# off.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def paged_row(q, keys, values, table, length, window=None):
#     n = keys.shape[1]
#     j = np.arange(0 if window is None else max(0, length - window), length)
#     pages, places = table[j // n], j % n
#     s = keys[pages, places] @ q / math.sqrt(len(q))  # (tokens,)
#     p = np.exp(s - s.max())
#     return p / p.sum() @ values[pages, places]
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * pages in the order of the pool: `pages, places = table[j // n], j % n` → `pages, places = j // n, j % n`
# * all of the last page: `max(0, length - window), length)` → `max(0, length - window), -(-length // n) * n)`
# * the new token does not see itself: `- window), length)` → `- window), max(1, length - 1))`
# * the window one too wide: `length - window)` → `length - window - 1)`
# * the window ignored: `0 if window is None else max(0, length - window)` → `0`
# * place and page swapped: `table[j // n], j % n` → `table[j % len(table)], j // len(table)`
# * no factor: `/ math.sqrt(len(q))` → `/ 1`
# * no maximum: `np.exp(s - s.max())` → `np.exp(s)`
#
# </details>
