# %% [markdown]
# # Numbers in few bits: the quantised product
#
# How few bits can a weight have before the model notices, and what do you get for the rest? Here you round three
# numbers on paper, read the bytes of a 4-bit file, multiply in integers that come out the same on every processor, and
# squeeze a small GPT from 32 bits a weight to 2, then let it learn with the rounding in the loop. At last the two
# 16-bit formats: one lacks range, the other digits.
#
# | | |
# | --- | --- |
# | You will be able to | choose a format by its bits and its error, read GGUF's blocks, say what makes int8 fast |
# | Builds on | 04, a GPT on real text; 07, optimisation |
# | Time | 40 minutes to read, 20 s to run |
# | Files to open | `kernels/quantized_weight.py`, `kernels/numpy/quantized_gemm.py`, `csrc/dot4.hpp` |
# | Source | Jacob et al. 2018 (integers); Bengio et al. 2013 (straight-through); Micikevicius et al. 2018 (FP16) |
# | Documents | D2 §2.3 and D3 §3.2, what INT8 saves; D4 §3.1, four formats; D1 §4.1a and D5 §2.3, 4 bits |
# | Next | 12, top-k sparsity: leave weights out instead of making them small |

# %%
import itertools
import math
import sys
import time
import types

import ml_dtypes
import numpy as np
from rich.progress import track

import minitransformer as mt
from minitransformer import data, optim
from minitransformer.kernels.quantized_weight import QuantizedWeight
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import lines
from minitransformer.visualization.style import FAINT, MUTED, PALETTE, WIDTH, drawing, new_figure, save

lesson = Lesson("11", "Numbers in few bits: the quantised product")
quantize = QuantizedWeight.quantize
F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def progress(steps, what):
    return track(range(steps), what, console=lesson.console, disable=not sys.stdout.isatty(), transient=True)


# %% [markdown]
# ## 1. The question and the claims
#
# D2 §2.3 and D3 §3.2 say that INT8 makes a model 75 % smaller and 3 to 4 times as fast (claim C14). D4 §3.1 has a table
# in which BF16 loses "very little" and FP16 "little" (claim C29): that, a pencil can settle, once you know the bits.
#
# ## 2. Numbers on paper
#
# Weights $w = (1.27, -0.5, 0.264)$. In 8 bits we have the integers from −127 to 127. The largest weight shall be 127,
# so one step is worth $d = 1.27/127 = 0.01$, the *scale*, and $c = \operatorname{round}(w/d) = (127, -50, 26)$. Only
# 0.264 is changed, to 0.26. No number can be off by more than half a step, $d/2 = 0.005$.
#
# Inputs $x = (2.54, 1, -0.5)$: scale $s = 0.02$, codes $q = (127, 50, -25)$. The product of the codes,
# $127 \cdot 127 - 50 \cdot 50 - 26 \cdot 25 = 12\,979$, is an integer, and $y = s\,d \cdot 12\,979 = 2.5958$. With the
# real numbers it is 2.5938; the 0.002 between them are $(0.264 - 0.26) \cdot 0.5$, what the third weight lost.

# %%
lesson.step("On paper: three weights in 8 bits")
w, x = np.array([1.27, -0.5, 0.264]), np.array([2.54, 1.0, -0.5])  # (K,) each
codes, inputs = np.rint(w / 0.01).astype(int), np.rint(x / 0.02).astype(int)  # (K,) each
lesson.say(f"  codes {codes} times {inputs}: {codes @ inputs}; y = {codes @ inputs * 2e-4:.4f}, exactly {w @ x:.4f}")
assert codes @ inputs == 12_979 and abs(codes * 0.01 - w).max() <= 0.005

# %% [markdown]
# ## 3. The formula, the naive code, the engine
#
# A row of the weight has one scale or, cut into groups of 32, 64 or 128 neighbours, one for each group; each row of the
# input has one that is found on the way ("dynamic"). Then
#
# $$\hat y_{mn} = s_m \sum_g d_{ng} \sum_{k \in g} q_{mk}\, c_{nk}$$
#
# The inner sum is one of integers. Nothing in it is rounded, so it depends neither on the order of adding nor on how
# many numbers an instruction takes: NumPy, C++ and a GPU find *the same* integer. To see it bare we choose $x$ and $w$
# such that all scales are powers of two.


# %%
def naive_product(x, w):
    """x (M, K), w (N, K) -> (M, N), through codes of 8 bits; one scale a row on both sides."""
    y = np.zeros((len(x), len(w)), np.float32)  # (M, N)
    for m, n in np.ndindex(y.shape):
        s, d = np.float32(abs(x[m]).max() / 127), np.float32(abs(w[n]).max() / 127)  # numbers
        q = [int(np.rint(value / s)) for value in x[m]]  # K integers
        c = [int(np.rint(value / d)) for value in w[n]]  # K integers
        y[m, n] = sum(a * b for a, b in zip(q, c)) * d * s
    return y


whole = mt.Generator(0).integers(-127, 128, (2, 12, 300))  # two matrices of codes
whole[:, :, 0] = 127  # so that every row's scale is a power of two
x, w = whole[0, :4].astype(np.float32) / 16, whole[1].astype(np.float32) / 4  # (4, K), (12, K)
weight = quantize(w, "int8")
engine = mt.kernels.quantized_gemm(x, weight, inputs="int8")  # (4, 12)
exact = whole[0, :4] @ whole[1].T  # (4, 12), integers
assert np.array_equal(engine, naive_product(x, w)) and np.array_equal(engine * 64, exact)
with mt.kernels.use("numpy"):
    assert np.array_equal(engine, mt.kernels.quantized_gemm(x, weight, inputs="int8"))
kernels_used = mt.kernels.current().source["quantized_gemm"]
lesson.step("Exact integers")
lesson.say(f"  {kernels_used} kernels, loops and NumPy: the same {exact.size} integers")

# %% [markdown]
# **A trap.** AVX2's instruction for this (`vpmaddubsw`) multiplies bytes 0…255 by bytes −128…127, adds the products *in
# pairs* and keeps 16 bits, at most 32,767; what is more is cut off, silently. (Codes are made unsigned by adding 128.)
# 255 · 127 + 255 · 127 is 64,770, and it makes 32,767 of that. How often does it happen in random matrices?


# %%
def maddubs(unsigned, signed):
    """unsigned (..., K) in 0..255, signed (..., K) -> (..., K / 2): sums of two products, cut off to 16 bits."""
    pairs = (unsigned * signed).reshape(*signed.shape[:-1], -1, 2).sum(axis=-1)  # (..., K / 2)
    return np.clip(pairs, -32_768, 32_767)


guess_wrong = lesson.predict("sums of 64 products that it gets wrong, normal weights and inputs, in %?", 10, "%")
assert maddubs(np.full(2, 255), np.full(2, 127)) == 32_767
drawn = mt.Generator(1).normal((2, 4000, 64))
w_codes, x_codes = np.rint(drawn / abs(drawn).max(axis=-1, keepdims=True) * 127).astype(int)  # (4000, 64) each
wrong = maddubs(w_codes + 128, x_codes).sum(axis=-1) != ((w_codes + 128) * x_codes).sum(axis=-1)  # (4000,)
guess_wrong.see(100 * wrong.mean(), allowed=(1, 60))

# %% [markdown]
# Too rare for a demonstration to show, too frequent for a model. `csrc/dot4.hpp` makes 16-bit numbers of the bytes
# and adds in 32 bits; AVX-512 has `vpdpbusd`, one instruction for all of it. The test that catches the trap sets *all*
# codes to the extremes.
#
# ## 4. One scale for what?
#
# A matrix of 64 rows, one of them 40 times as large as the others: with a scale for each row (*per output channel*)
# nobody cares. With one scale for all (*per tensor*), by what factor does the error of the other 63 grow?


# %%
def int8(w, axis):
    d = abs(w).max(axis=axis, keepdims=True) / 127  # (N, 1), or (1, 1) where axis is None
    return np.rint(w / d) * d


def rms(e):
    return math.sqrt(np.mean(np.square(e, dtype=np.float64)))


lesson.step("One row is 40 times as large")
guess_scale = lesson.predict("error of the other 63 rows, per tensor over per channel?", 40, "times")
loud = mt.Generator(2).normal((64, 256))  # (N, K)
loud[0] *= 40
quiet = [rms((int8(loud, axis) - loud)[1:]) for axis in (None, 1)]
guess_scale.see(quiet[0] / quiet[1], allowed=(25, 65))

# %% [markdown]
# Inputs have the same trouble, and nobody knows them beforehand. A *static* scale is chosen once, from some text: if it
# is wide, it is coarse for every token; if it is narrow, a loud token is cut off. A *dynamic* one costs a pass over
# each row, and fits it. Sixteen tokens, one of them loud:

# %%
tokens = mt.Generator(4).normal((16, 256)).astype(np.float32)  # (T, K)
tokens[3] *= 40
wide, narrow = (float(abs(rows).max() / 127) for rows in (tokens, tokens[:3]))
for what, scale in (("static, wide", wide), ("static, narrow", narrow), ("dynamic", None)):
    q, s = mt.kernels.quantize_rows(tokens, scale)  # (T, K), (T,)
    off = [rms(e) / rms(t) for e, t in (((q * s[:, None] - tokens)[i], tokens[i]) for i in (slice(4, None), 3))]
    lesson.say(f"  {what:15} error of the calm tokens {off[0]:.4f}, of the loud one {off[1]:.4f}")

# %% [markdown]
# ## 5. Bits and decibels
#
# Between two codes an error is as likely anywhere in $\pm d/2$; such errors have the mean square $d^2/12$. One more bit
# halves $d$, which takes a factor 4 off the noise: $10 \log_{10} 4 = 6.02$ dB. With few bits one does not waste a code
# on symmetry: the integers are $-2^{b-1} \dots 2^{b-1} - 1$, and *the number of largest magnitude, sign and all*, is
# put at $-2^{b-1}$. With $m$ the largest of a group in units of $\sigma$, the scale is $d = m \sigma/2^{b-1}$ and
#
# $$\text{SNR} = 10 \log_{10} \frac{\sigma^2}{E[d^2]/12} = 6.02\, b + 10 \log_{10} \frac{3}{E[m^2]} \text{ dB}$$
#
# The bound $d/2$ has a gap now: there is no code $+2^{b-1}$, so what is nearly as large, on the other side, is cut off.
# `int4` of the package is this function at $b = 4$. How well does the formula know the error there?


# %%
def rounded(w, bits, group=32):
    """w (N, K) -> the same shape: codes of so many bits, one float16 scale for each group of neighbours."""
    v = w.reshape(len(w), -1, group)  # (N, groups, group)
    extreme = np.take_along_axis(v, abs(v).argmax(axis=-1)[..., None], axis=-1)  # (N, groups, 1), with its sign
    d = (extreme / -(2 ** (bits - 1))).astype(F16).astype(w.dtype)  # (N, groups, 1)
    d = np.where(d == 0, np.float32(1), d)
    c = np.clip(np.rint(v / d), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)  # (N, groups, group): integers
    return (c * d).reshape(w.shape)


lesson.step("Error over bits")
normal = mt.Generator(3).normal((256, 512)).astype(np.float32)  # (N, K)
assert np.array_equal(rounded(normal, 4, 64), quantize(normal, "int4", 64).dequantize())
BITS = np.arange(2, 9)
formula = 6.02 * BITS + 10 * math.log10(3 / np.mean(abs(normal.reshape(-1, 32)).max(axis=-1) ** 2))
snr = np.array([20 * math.log10(rms(normal) / rms(rounded(normal, b) - normal)) for b in BITS])
guess_snr = lesson.predict("SNR of normal weights at 4 bits, groups of 32, in dB?", round(float(formula[2]), 1), "dB")
guess_slope = lesson.predict("dB a bit from 4 to 8 bits?", 6.02, "dB")
guess_snr.see(snr[2], allowed=(formula[2] - 1.5, formula[2] + 1))
guess_slope.see((snr[-1] - snr[2]) / 4, allowed=(5.8, 6.3))
for what, values in (("bits", BITS), ("formula", formula), ("measured", snr)):
    lesson.say(f"  {what:10}" + "".join(f"{value:7.3g}" for value in values))

# %%
with drawing():
    figure = new_figure(WIDTH, 2.7)
    stairs, spread, curve = figure.subplots(1, 3)
    ramp = np.linspace(-1, 0.9995, 2001, dtype=np.float32)  # the largest magnitude is the negative end
    for bits, colour in ((3, PALETTE[1]), (4, PALETTE[0])):
        stairs.plot(ramp, rounded(ramp[None], bits, 2001)[0], color=colour, linewidth=1.4, label=f"{bits} bits")
    stairs.plot(ramp, ramp, color=FAINT, linewidth=1, zorder=0)
    stairs.set(xlabel="weight", ylabel="what is stored")
    v = normal.reshape(-1, 32)
    errors = (rounded(normal, 4).reshape(-1, 32) - v) / (abs(v).max(axis=1, keepdims=True) / 8)
    spread.hist(errors.ravel(), bins=np.linspace(-1.05, 1.05, 85), color=PALETTE[0])
    spread.set(xlabel="error, in steps", ylabel="how often (log)", yscale="log", yticks=[], ylim=(10, None))
    for at, height, words in ((0.8, 0.3, "no code\n+8"), (0.57, 0.9, "the largest")):
        spread.text(at, height, words, transform=spread.get_xaxis_transform(), color=MUTED, fontsize=7.5, ha="center")
    curve.plot(BITS, formula, color=FAINT, linewidth=4, solid_capstyle="butt", label="6.02 dB a bit")
    curve.plot(BITS, snr, "o-", color=PALETTE[0], markersize=4, linewidth=1.2, label="measured")
    curve.set(xlabel="bits", ylabel="SNR (dB)", xticks=BITS)
    for axes, title in ((stairs, "A staircase"), (spread, "The error at 4 bits"), (curve, "Error over bits")):
        axes.set_title(title, fontsize=9.5)
    for axes in (stairs, curve):
        axes.legend(frameon=False, fontsize=8)
    save(figure, lesson.figure("rounding"))

# %% [markdown]
# At 2 bits the curve lies below the line: of four codes a missing one matters. The peak at 0 is each group's largest.
#
# ## 6. The bytes
#
# Two 4-bit codes share a byte. GGUF, the file format of llama.cpp, has blocks of 32 weights in a row:
#
# | block | bytes | what | bits a weight |
# | --- | --- | --- | --- |
# | `q8_0` | 34 | scale $d$ (float16), 32 codes of 8 bits: $w = d\,c$ | 8 + 16/32 = 8.5 |
# | `q4_0` | 18 | $d$, 16 bytes of codes: $w = d\,(c - 8)$ | 4 + 16/32 = 4.5 |
# | `q4_1` | 20 | $d$, minimum $b$ (float16), 16 bytes: $w = d\,c + b$ | 4 + 32/32 = 5 |
#
# Byte $j$ holds weight $j$ in its low half and weight $j + 16$ in its high half: then a processor gets 16 neighbours
# with one AND, the next 16 with one shift. Here is one block taken apart by hand.

# %%
lesson.step("One q4_0 block, byte by byte")
block_codes = np.concatenate([np.arange(16), 15 - np.arange(16)])  # (32,): 0 … 15, then 15 … 0
packed = block_codes[:16] | block_codes[16:] << 4  # (16,): bytes
block = np.array([0.25], "<f2").tobytes() + packed.astype(np.uint8).tobytes()
lesson.say(f"  {len(block)} bytes: {block.hex(' ')}")
assert np.array_equal(QuantizedWeight.from_gguf(block, "q4_0", (1, 32)).dequantize()[0], 0.25 * (block_codes - 8.0))
every = np.arange(256)
assert np.array_equal((every & 15) | (every >> 4) << 4, every)  # a bijection: each byte is one pair of codes
guess_bytes = lesson.predict("bytes of a 4096 × 4096 weight in int4, groups of 64?", 4096 * 4096 * 4.25 / 8, "bytes")
guess_bytes.see(4096 * quantize(np.zeros((1, 4096), np.float32), "int4", 64).data.size,
                allowed=(8_912_896, 8_912_896))  # fmt: skip
skewed = (abs(normal) + 0.5).astype(np.float32)  # no weight below 0.5
for form, group in [("int8", None), ("q8_0", 32), ("q4_1", 32), ("int4", 32), ("int4", 128), ("int4_zero", 32)]:
    whole_row = quantize(np.zeros((1, 4096), np.float32), form, group)
    found = [rms(quantize(v, form, group).dequantize() - v) / rms(v) for v in (normal, skewed)]
    lesson.say(f"  {form:9} {f'groups of {group}' if group else 'rows':13} {whole_row.data.size / 512:5.2f} bits, "
               f"error {found[0]:.4f}, all weights positive {found[1]:.4f}")  # fmt: skip

# %% [markdown]
# A symmetric code wastes half of its numbers on weights that are all positive. A *zero-point* (`int4_zero`:
# $w = d\,(c - z)$, one more byte a group) or a minimum (`q4_1`) moves the staircase to where the weights are. Trained
# weights are nearly symmetric, so it gains them little.
#
# ## 7. A GPT in few bits
#
# Two layers, width 128, 600 steps on Python's manual, a character at a time. Then every matrix product gets its weight
# in few bits. A kernel set is a module of functions; ours defines `linear`, and the engine takes the rest from where it
# took it before. So nothing of the model is rewritten.

# %%
text = data.default_corpus()
tokenizer = data.CharTokenizer.train(text)
train_ids, validation_ids = data.split(np.array(tokenizer.encode(text)))
CONFIG = GPTConfig(tokenizer.vocab_size, context=32, layers=2, heads=4, width=128)
held_out = list(data.evaluation_batches(validation_ids, 128, 32, limit=3))
ENGINE = mt.kernels.current()


def new_model(state=None):
    """Matrices start with variance 1 / inputs, which suits a narrow model; or everything as in `state`."""
    model = GPT(CONFIG, mt.Generator(0))
    for name, p in model.named_parameters():
        if p.ndim == 2:
            p.data *= 10 if "embedding" in name else 1 / (math.sqrt(p.shape[1]) * p.data.std())
    model.load_state_dict(state or model.state_dict())
    return model


def train(model, steps, peak, kernel_set=ENGINE):
    batches, optimizer = data.BatchSampler(train_ids, 16, 32, mt.Generator(steps)), optim.AdamW(model.parameters())
    for step in progress(steps, "training"):
        for group in optimizer.param_groups:
            group["lr"] = optim.warmup_cosine(step, peak=peak, warmup=steps // 10, total=steps)
        optimizer.zero_grad()
        with mt.kernels.use(kernel_set):
            model.loss(*next(batches)).backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def loss_of(model, kernel_set=ENGINE):
    """Nats a character on the held-out text, always the same characters."""
    with mt.kernels.use(kernel_set), model.evaluating():
        return float(np.mean([model.loss(*batch).item() for batch in held_out]))


def with_rounded(rounding):
    """A kernel set that multiplies with rounding(weight), forward and backward."""
    made = types.ModuleType("rounded weights")
    made.linear = lambda x, w, *rest: ENGINE.table["linear"](x, rounding(w), *rest)
    made.linear_backward = lambda dy, x, w, needs: ENGINE.table["linear_backward"](dy, x, rounding(w), needs)
    return made


def with_product(product):
    made = types.ModuleType("another product")

    def linear(x, w, b=None, activation=None):  # GPT's layers end with nothing or with GELU
        y = product(x, w) + (0 if b is None else b)
        return y if activation is None else mt.kernels.gelu(y, "tanh")

    made.linear = linear
    return made


lesson.step("A GPT, trained in 32 bits")
guess_eight = lesson.predict("loss added by 8 bits a weight, in nats?", 0, "nats")
guess_four = lesson.predict("loss added by 4 bits, groups of 32?", 0.02, "nats")
guess_two = lesson.predict("loss added by 2 bits, groups of 32?", 0.4, "nats")
gpt = train(new_model(), 600, 4e-3)
intact = loss_of(gpt)
trials = {
    "float16": with_rounded(lambda w: w.astype(F16).astype(np.float32)),
    "bfloat16, inputs too": with_product(lambda x, w: mt.kernels.matmul_bfloat16(x, np.ascontiguousarray(w.T))),
    "int8": with_rounded(lambda w: quantize(w, "int8").dequantize()),
    "int8, inputs too": with_product(lambda x, w: mt.kernels.quantized_gemm(x, quantize(w, "int8"), inputs="int8")),
}
added = {name: loss_of(gpt, trial) - intact for name, trial in trials.items()}
lesson.say(f"  float32 {intact:.4f} nats a character; {'; '.join(f'{name} {x:+.4f}' for name, x in added.items())}")
FEW, by_group = range(2, 8), {}
for group in (32, 128):
    by_group[group] = [loss_of(gpt, with_rounded(lambda w, b=b, g=group: rounded(w, b, g))) - intact for b in FEW]
    lesson.say(f"  {FEW[0]} to {FEW[-1]} bits, groups of {group:3}: " + "".join(f"{x:+8.4f}" for x in by_group[group]))
guess_eight.see(added["int8"], allowed=(-0.004, 0.01))
guess_four.see(by_group[32][2], allowed=(0.002, 0.1))
guess_two.see(by_group[32][0], allowed=(0.1, 3))
lines(FEW, {f"groups of {g}": np.maximum(found, 1e-4) for g, found in by_group.items()}, logy=True,
      xlabel="bits of a code", ylabel="loss added (nats a character)", path=lesson.figure("loss_over_bits"),
      reference={"not trained": loss_of(new_model()) - intact}, title="What a bit is worth")  # fmt: skip

# %%
down = gpt.blocks[1].feed_forward.down.weight.data  # (128, 512)
errors = [
    np.sqrt(((rounded(down, 4, g) - down).reshape(128, 16, 32) ** 2).mean(axis=-1)) / rms(down) for g in (512, 32)
]
with drawing():
    figure = new_figure(WIDTH, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, error, what in zip(panels, errors, ("one scale a row", "one for 32 neighbours")):
        image = axes.imshow(error, aspect="auto", vmin=0, vmax=errors[0].max(), interpolation="nearest")
        axes.set_title(f"4 bits, {what}", fontsize=9.5)
        axes.set(xlabel="block of 32 inputs", xticks=range(0, 16, 3), yticks=range(0, 128, 32))
    panels[0].set_ylabel("output channel")
    figure.colorbar(image, ax=panels, aspect=30, pad=0.02, label="rms error / rms weight").outline.set_visible(False)
    save(figure, lesson.figure("error_by_group"))

# %% [markdown]
# Eight bits are free, on both sides; the loss may even fall by a hair, which is luck. Four cost little, and below that
# each bit costs several times the last. Smaller groups pay only at the very end here: our weights have few outliers.
# The maps show one matrix. With one scale a row, a row that has one large weight pays for it from end to end, the
# bright lines; with a scale for 32 neighbours only that block does.
#
# **Learning with the rounding in the loop.** Rounding is a staircase, whose derivative is 0 nearly everywhere and
# teaches nothing. The *straight-through* gradient counts it as 1: find loss and gradient with the rounded weights,
# change the unrounded ones by it. Our kernel set does just that: `linear_backward` sees the rounded weight too, the
# optimiser never does. (`ops/quantized_gemm.py` has it as an op.) We train 150 more steps at 2 bits and, to compare,
# 150 without rounding, rounded afterwards. How much of what 2 bits cost will come back?

# %%
lesson.step("Training at 2 bits")
guess_back = lesson.predict("of the loss that 2 bits add, what does training at 2 bits win back, in %?", 75, "%")
state, two = gpt.state_dict(), with_rounded(lambda w: rounded(w, 2))
aware, plain = loss_of(train(new_model(state), 150, 1e-3, two), two), train(new_model(state), 150, 1e-3)
after, best = loss_of(plain, two), loss_of(plain)
lesson.say(f"  150 more steps in float32 {best:.3f}, rounded afterwards {after:.3f}; 150 at 2 bits {aware:.3f}")
guess_back.see(100 * (after - aware) / (after - best), allowed=(30, 98))

# %% [markdown]
# ## 8. Claim C14: the bytes, and the time
#
# A token that is generated needs every weight once. A matrix of 2048 × 4096 in `float32` is 33.6 MB, and reading it is
# what takes the time: there are two operations for 4 bytes. So 8 bits promise a factor 4, and 4 bits a factor 7. With
# many tokens at once (a prompt) arithmetic counts, and `vpdpbusd` makes 4 times the products of `float32`.

# %%
lesson.step("Bytes and time")
w = mt.Generator(7).normal((2048, 4096)).astype(np.float32)
packs = {form: quantize(w, form) for form in ("int8", "int4")}
turns = {"float32": (itertools.cycle([w, w.copy(), w.copy()]), mt.kernels.linear)}
for form, weight in packs.items():
    copies = [QuantizedWeight(form, w.shape, weight.panels().data.copy(), weight.group, "panels") for _ in range(8)]
    turns[form] = itertools.cycle(copies), lambda x, w: mt.kernels.quantized_gemm(x, w, inputs="int8")
times = {(form, M): [] for M in (1, 64) for form in turns}
for M in (1, 64):
    x, end = mt.Generator(8).normal((M, 4096)).astype(np.float32), time.perf_counter() + 0.8
    while time.perf_counter() < end or len(times["int4", M]) < 3:
        for form, (weights, multiply) in turns.items():  # in turn, another copy each time: none is in the cache
            weight, start = next(weights), time.perf_counter()
            multiply(x, weight)
            times[form, M].append(time.perf_counter() - start)
times = {key: min(found) for key, found in times.items()}  # others may use this machine too: the fastest counts
speed = {(form, M): times["float32", M] / taken for (form, M), taken in times.items()}
for (form, M), taken in times.items():
    lesson.note(f"{form}, {M} token{'s' * (M > 1)}, {speed[form, M]:.2g} times float32's speed", 1e3 * taken, "ms")
matrices = [p for name, p in gpt.named_parameters() if p.ndim == 2 and "position" not in name]
saved = sum(4 * p.size - quantize(p.data, "int8").data.size for p in matrices)
lesson.claim(
    "C14",
    measured=f"a 2048 × 4096 weight is {1 - packs['int8'].data.size / w.nbytes:.2%} smaller, our GPT as a whole "
    f"{saved / sum(4 * p.size for p in gpt.parameters()):.1%} (short rows; norms, biases and positions stay), its loss "
    f"changes by {added['int8, inputs too']:+.4f} nats; at 1 and 64 tokens int8 has {speed['int8', 1]:.2g} and "
    f"{speed['int8', 64]:.2g} times float32's speed, int4 {speed['int4', 1]:.2g} and {speed['int4', 64]:.2g} times",
    setup=f"{kernels_used} kernels, one product, weights not in the cache, inputs rounded row by row; no served model",
    verdict="reproduced" if min(speed["int8", 1], speed["int8", 64]) >= 3 else "partly",
)

# %% [markdown]
# The size is a count, and holds but for the scales. The speed belongs to the *kernel*: NumPy's, which must make floats
# of the codes first, has none of it. And 75 % is against `float32`; against 16 bits it is half.
#
# ## 9. Claim C29: range against precision
#
# | | sign | exponent | fraction | largest | smallest above 0 | next after 1 |
# | --- | --- | --- | --- | --- | --- | --- |
# | float32 | 1 | 8 | 23 | 3.4 · 10³⁸ | 1.4 · 10⁻⁴⁵ | 1 + 2⁻²³ |
# | float16 | 1 | 5 | 10 | 65,504 | 6 · 10⁻⁸ | 1 + 2⁻¹⁰ |
# | bfloat16 | 1 | 8 | 7 | 3.4 · 10³⁸ | 9 · 10⁻⁴¹ | 1 + 2⁻⁷ |
#
# `bfloat16` is the upper half of a `float32`: the same range, 8 bits of precision with the one that is implied. What is
# 256 + 1 in it? By what factor is its rounding error larger than `float16`'s? That one fails elsewhere: the gradient of
# the logits is $(p - y)/BT$, most $p$ are tiny, and what is below 3 · 10⁻⁸ becomes 0. What share of it is that?


# %%
def lost(a, dtype, factor=1.0):
    """What rounding to `dtype` leaves of a, relative to a; the factor is multiplied before and divided out after."""
    with np.errstate(over="ignore", invalid="ignore"):
        return rms((a * factor).astype(np.float32).astype(dtype).astype(np.float64) / factor - a) / rms(a)


lesson.step("Sixteen bits, two ways")
guess_sum = lesson.predict("256 + 1 in bfloat16?", 256)
guess_ratio = lesson.predict("rounding error of the GPT's weights, bfloat16 over float16?", 8, "times")
guess_zero = lesson.predict("gradients of the logits that become 0 in float16, in %?", 45, "%")
guess_sum.see((BF16.type(256) + BF16.type(1)).item(), allowed=(256, 256))
assert BF16.type(1 - 1e-3) == 1 > F16.type(1 - 1e-3)  # a step of 0.001 on a weight of 1
weights = np.concatenate([p.data.ravel() for p in matrices]).astype(np.float64)
guess_ratio.see(lost(weights, BF16) / lost(weights, F16), allowed=(7.5, 8.5))
with gpt.evaluating():
    logits = mt.tensor(gpt(held_out[0][0]).numpy(), requires_grad=True)
mt.cross_entropy(logits, held_out[0][1]).backward()
gradient = np.asarray(logits.grad.data, np.float64)  # (B, T, V)
vanished = 100 * (gradient.astype(F16) == 0).mean()
guess_zero.see(vanished, allowed=(10, 85))
powers = np.arange(-16, 37, 2)
curves = {name: np.array([lost(gradient, dtype, 2.0**n) for n in powers]) for name, dtype in
          (("float16", F16), ("bfloat16", BF16))}  # fmt: skip
fine = powers[curves["float16"] < curves["bfloat16"]]
assert np.isinf(curves["float16"][-1]) and curves["float16"][0] > 0.5 and curves["bfloat16"].max() < 2**-8
lines(powers, {name: np.where(np.isfinite(c), c, np.nan) for name, c in curves.items()}, logy=True,
      xlabel="n, where the loss is multiplied by 2ⁿ", ylabel="error of the rounded gradient",
      title="float16 has three bits more in its window, and infinity behind it", reference={"nothing left": 1},
      path=lesson.figure("range_against_precision"))  # fmt: skip
lesson.claim(
    "C29",
    measured=f"BF16's rounding error is {lost(weights, BF16) / lost(weights, F16):.1f} times FP16's on weights, and on "
    f"a gradient in FP16's range. FP16 keeps more of it with the loss multiplied by 2^{fine[0]} to 2^{fine[-1]} (at 1, "
    f"{vanished:.0f} % of the entries, the small ones, are 0); below it is 0, above infinite; BF16's is neither",
    setup=f"GPT of 2 layers, gradient of the logits of {logits.size:,} entries; nothing was trained in 16 bits",
    verdict="partly",
)

# %% [markdown]
# "Loses less" is two statements. Of *digits* BF16 loses 8 times more, always. Of *range* it loses nothing, and range is
# what stops a training: a gradient that is 0, a loss that is infinite. FP16 needs a factor on the loss ("loss
# scaling"), found by trial as training goes; BF16 needs none. Both need the weights themselves in `float32`: in BF16 a
# weight of 1 that is to become 0.999 stays where it is, for ever.
#
# ## 10. Break it
#
# Three bugs that raise no error. **The zero-point forgotten** in `int4_zero`. **The scale of the wrong axis**: rows are
# rounded, then columns multiplied, and in square matrices nobody complains. **Nibbles swapped**: the high half first.
# Which is the worst? An untrained model has a loss of about $\ln V$.


# %%
def forgotten(w):
    weight = quantize(w, "int4_zero")
    weight.view()["zero"][...] = 0
    return weight.dequantize()


def swapped(w):
    weight = quantize(w, "int4")
    codes = weight.view()["codes"]
    codes[...] = codes << 4 | codes >> 4
    return weight.dequantize()


def wrong_axis(w):
    d = abs(w).max(axis=1, keepdims=True) / 127  # (N, 1)
    return np.rint(w / d) * (d.T if w.shape[0] == w.shape[1] else d)


lesson.step("Break it")
guess_swapped = lesson.predict("loss with nibbles swapped, times ln V?", 1.3, "times")
bugs = {"zero-point forgotten": forgotten, "wrong axis": wrong_axis, "nibbles swapped": swapped}
square = gpt.blocks[0].attention.output.weight.data  # (128, 128)
for name, rounding in bugs.items():
    loss, worst = loss_of(gpt, with_rounded(rounding)), abs(rounding(square) - square).max() / abs(square).max()
    lesson.say(f"  {name:21} loss {loss:.3f}; a weight is off by up to {worst:.0%} of the largest")
    assert worst > (1 / 127 if name == "wrong axis" else 1 / 7), "off by more than a step: the bound finds it"
guess_swapped.see(loss / math.log(CONFIG.vocab_size), allowed=(0.5, 10))

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | far too large a loss | zero-point forgotten | no weight may be off by more than a step |
# | a little worse, nobody knows why | scale of the wrong axis | the same bound, rows of different size, N ≠ K |
# | noise, though packing and unpacking agree | nibbles swapped in both | one block of a file, byte by byte |
# | rare wrong sums on another processor | 16-bit pairs, cut off | all codes at the extremes, sums compared exactly |

# %%
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Does decoding not cost what reading less saves?** A byte from memory takes longer than the AND, the shift and the
#   product that decode it. And where the codes are multiplied as integers there is little to decode.
# * **Why are 4-bit inputs rare?** They have outliers in a few channels, and a row's scale must follow the largest. AWQ
#   moves that size into the weights (D1 §4.1a); GPTQ lets later weights make good the errors of earlier ones.
# * **There is LLM.int8(). Is there LLM.int4()?** No, though D5 §2.3 names it. For 4 bits one uses groups, as here.
#
# ## Exercises
#
# 1. `quantize_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]`: codes and scales of rows, zeros included.
#    <details><summary>Hint</summary>A row of zeros has the scale 0, and may not be divided by it.</details>
# 2. `pack_int4(codes: np.ndarray) -> np.ndarray`: (N, K) codes to (N, K / 2) bytes in GGUF's order.
#    <details><summary>Hint</summary>Blocks of 32: a half for the low nibbles, a half for the high ones.</details>
# 3. `integer_product(q, s, c, d) -> np.ndarray`: the formula of section 3, exact before the scales.
#    <details><summary>Hint</summary>In which dtype does NumPy add up int8?</details>
# 4. `decode_q4_1(data: bytes) -> np.ndarray`: a file's blocks to numbers.
#    <details><summary>Hint</summary>A structured dtype describes 20 bytes at a time.</details>
#
# ## Quiz
#
# 1. A row of 4096 weights in 4 bits, groups of 128, float16 scales, takes **(a)** 2048, **(b)** 2112, **(c)** 2176
#    bytes. — (b): 2048 and 32 scales of 2. (a) forgets the scales. (c) has a minimum too.
# 2. Two more bits lower the rms error **(a)** by half, **(b)** to a quarter, **(c)** to a sixteenth. — (b): each halves
#    the step. (a) is one bit. (c) is the noise power, 12 dB.
# 3. Integer sums are the same on every processor since **(a)** int8 is small, **(b)** addition of integers does not
#    round, **(c)** all use one thread. — (b). (a) is no reason: 16 bits overflow. (c) is false, and not needed.
# 4. Training in float16 gives zeros for many gradients. First try **(a)** a larger rate, **(b)** a factor on the loss,
#    **(c)** 8-bit weights. — (b): it moves them into range. (a) multiplies zeros. (c) is another matter.

# %% [markdown] exercise="11.1"
# ### Exercise 11.1: `quantize_rows`
#
# The way into 8 bits: each row of the last axis gets one scale, its largest magnitude over 127, and codes that are the
# nearest integers. A row of zeros has the scale 0 and codes 0, and is not divided by anything.
#
# ```python
# import numpy as np
#
#
# def quantize_rows(x):
#     """x (..., K) float32, K >= 1 -> codes int8 (..., K) within ±127, scales float32 (...): x ≈ scale · codes."""
#     raise NotImplementedError("max |x| / 127 of each row; divide, round, make int8 of it")
# ```
#
# <details><summary>Hint 1</summary>`np.abs(x).max(-1)` has the shape of the scales.</details>
# <details><summary>Hint 2</summary>Divide by `np.where(scales > 0, scales, 1)`, with a new last axis.</details>
# <details><summary>Hint 3</summary>`np.rint` rounds to the nearest integer; `astype` alone cuts off.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def quantize_rows(x):
#     scales = np.abs(x).max(-1) / np.float32(127)
#     usable = np.where(scales > 0, scales, np.float32(1))
#     return np.rint(x / usable[..., None]).clip(-127, 127).astype(np.int8), scales
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * cut off, not rounded: `np.rint(x / usable[..., None])` → `np.trunc(x / usable[..., None])`
# * the largest number, not magnitude: `np.abs(x).max(-1)` → `x.max(-1)`
# * 128 steps: `np.float32(127)` → `np.float32(128)`
# * zeros are divided by zero: `np.where(scales > 0, scales, np.float32(1))` → `scales`
# * one scale for all rows: `np.abs(x).max(-1)` → `np.full(x.shape[:-1], np.abs(x).max())`
#
# </details>

# %% [markdown] exercise="11.2"
# ### Exercise 11.2: `pack_int4`
#
# Two codes share a byte, in GGUF's order: of every 32 codes in a row, the first 16 become the low halves of 16 bytes
# and the last 16 their high halves.
#
# ```python
# import numpy as np
#
#
# def pack_int4(codes):
#     """codes (N, K) integers 0..15, K a multiple of 32 -> bytes uint8 (N, K / 2)."""
#     raise NotImplementedError("blocks of 32; the first 16 of each, and the last 16 shifted by 4")
# ```
#
# <details><summary>Hint 1</summary>Work in uint8. `low | high << 4` is one byte.</details>
# <details><summary>Hint 2</summary>A reshape shows the halves: (N, K // 32, 2, 16).</details>
# <details><summary>Hint 3</summary>`halves[:, :, 0] | halves[:, :, 1] << 4`, then (N, K // 2).</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def pack_int4(codes):
#     N, K = codes.shape
#     halves = codes.astype(np.uint8).reshape(N, K // 32, 2, 16)
#     return (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(N, K // 2)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * nibbles swapped: `halves[:, :, 0] | halves[:, :, 1] << 4` → `halves[:, :, 1] | halves[:, :, 0] << 4`
# * neighbours share a byte: `.reshape(N, K // 32, 2, 16)` → `.reshape(N, K // 32, 16, 2).swapaxes(2, 3)`
# * the row for the block: `.reshape(N, K // 32, 2, 16)` → `.reshape(N, 1, 2, K // 2)`
# * shifted too little: `<< 4` → `<< 3`
# * eight bytes for one: `codes.astype(np.uint8)` → `codes.astype(np.int64)`
#
# </details>

# %% [markdown] exercise="11.3"
# ### Exercise 11.3: `integer_product`
#
# The formula of section 3. Codes of inputs and weights are multiplied and added up as integers, exactly, within each
# group of the weight. Only these sums meet the scales.
#
# ```python
# import numpy as np
#
#
# def integer_product(q, s, c, d):
#     """q (M, K) int8, s (M,) float32, c (N, K) int8, d (N, G) float32, G divides K -> y (M, N) float32:
#
#     y_mn = s_m Σ_g d_ng Σ_{k in group g} q_mk c_nk, group g being the K / G neighbours from g K / G.
#     """
#     raise NotImplementedError("for each group an integer product, then its scale; the rows' scales at the end")
# ```
#
# <details><summary>Hint 1</summary>127 · 127 is no int8, and NumPy adds int8 up in int8: widen first.</details>
# <details><summary>Hint 2</summary>Group g is `slice(g * K // G, (g + 1) * K // G)` of the last axis.</details>
# <details><summary>Hint 3</summary>sums (M, N) times `d[:, g]`, added up over g; then times `s[:, None]`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def integer_product(q, s, c, d):
#     q, c, y = q.astype(np.int64), c.astype(np.int64), np.zeros((len(q), len(c)), np.float32)
#     K, G = q.shape[1], d.shape[1]
#     for g in range(G):
#         group = slice(g * K // G, (g + 1) * K // G)
#         y += (q[:, group] @ c[:, group].T).astype(np.float32) * d[:, g]
#     return y * s[:, None]
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * added up in 8 bits: `q.astype(np.int64), c.astype(np.int64)` → `q, c`
# * added up in 16 bits: `q.astype(np.int64), c.astype(np.int64)` → `q.astype(np.int16), c.astype(np.int16)`
# * the first group's scale for all: `* d[:, g]` → `* d[:, 0]`
# * the rows' scales on columns: `y * s[:, None]` → `y * np.resize(s, len(c))`
# * the last group only: `y += (q` → `y = (q`
# * strided groups: `slice(g * K // G, (g + 1) * K // G)` → `slice(g, K, G)`
#
# </details>

# %% [markdown] exercise="11.4"
# ### Exercise 11.4: `decode_q4_1`
#
# Read a tensor of a GGUF file. A `q4_1` block is 20 bytes: scale d and minimum b, each a little-endian float16, then 16
# bytes of codes as in 11.2. Weight = d · code + b.
#
# ```python
# import numpy as np
#
#
# def decode_q4_1(data):
#     """bytes of n >= 1 blocks -> (32 n,) float32. Raises ValueError where the bytes are no whole blocks."""
#     raise NotImplementedError("a structured dtype of 20 bytes, np.frombuffer, low halves before high halves")
# ```
#
# <details><summary>Hint 1</summary>One block: `np.dtype([("d", "<f2"), ("b", "<f2"), ("codes", "u1", 16)])`.</details>
# <details><summary>Hint 2</summary>`np.frombuffer(data, block)` has an array for each field, and refuses what does not
# fit.</details>
# <details><summary>Hint 3</summary>`codes & 15` are low halves, `codes >> 4` high: side by side, (n, 32).</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def decode_q4_1(data):
#     blocks = np.frombuffer(data, np.dtype([("d", "<f2"), ("b", "<f2"), ("codes", "u1", 16)]))
#     d, b = blocks["d"].astype(np.float32)[:, None], blocks["b"].astype(np.float32)[:, None]
#     codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1)
#     return (d * codes + b).reshape(-1)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * minimum before scale: `("d", "<f2"), ("b", "<f2")` → `("b", "<f2"), ("d", "<f2")`
# * the high halves first: `[blocks["codes"] & 15, blocks["codes"] >> 4]` →
#   `[blocks["codes"] >> 4, blocks["codes"] & 15]`
# * neighbours from one byte: `np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1)` →
#   `np.stack([blocks["codes"] & 15, blocks["codes"] >> 4], axis=2).reshape(-1, 32)`
# * a zero of 8, as in q4_0: `d * codes + b` → `d * (codes - np.float32(8)) + b`
# * worked out in float16: `blocks["d"].astype(np.float32)` → `blocks["d"]`
# * big-endian: `("d", "<f2")` → `("d", ">f2")`
#
# </details>
