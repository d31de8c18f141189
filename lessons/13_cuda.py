# %% [markdown]
# # CUDA on your laptop
#
# How do thousands of threads compute one result when nobody promises their order? Here real CUDA C++ runs on your CPU,
# thread by thread, and everything can be counted: loads, barriers, transfers. You write a kernel, add numbers up in
# three ways, cut a product into tiles, use tensor cores, train a GPT on a GPU that is not there, and break things.
#
# | | |
# | --- | --- |
# | You will be able to | read and write a CUDA kernel, predict what it moves, find a missing barrier |
# | Builds on | 02, attention; 10, tiles; no GPU, no CUDA |
# | Time | 45 minutes to read, 5 s to run; half a minute the first time, when kernels are compiled |
# | Files to open | `csrc/cuda_emulator/cuda_emulator.h`, `csrc/cuda/rows.cuh`, `kernels/cuda/standin.py` |
# | Source | NVIDIA, CUDA C++ Programming Guide; Harris 2007, Optimizing Parallel Reduction in CUDA |
# | Documents | D2 §3.3: graph optimisation and kernel fusion, up to five times (claim C15) |
# | Next | `minitransformer ladder attention`: from the naive loop to the shipped kernel, rung by rung |

# %%
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np

import minitransformer as mt
from minitransformer import kernels, locate, optim
from minitransformer.kernels.cuda import emulator, launch, standin
from minitransformer.lesson import Lesson
from minitransformer.models import GPT, GPTConfig
from minitransformer.visualization import lines
from minitransformer.visualization.style import WIDTH, drawing, new_figure, save

lesson = Lesson("13", "CUDA on your laptop")
random = mt.Generator(0)

# %% [markdown]
# ## 1. Who am I?
#
# A kernel is a function that many threads run, each with a number of its own. A **thread** has its own variables, in
# registers. 32 are a **warp** and take every step together. Up to 1,024 are a **block**: they share a small fast memory
# and may wait for each other. The blocks are the **grid**: they run in any order and never wait for one another. So
# each thread asks first which element is its own: `i = blockIdx.x * blockDim.x + threadIdx.x`. 2 blocks of 3 threads:
#
# | block | 0 | 0 | 0 | 1 | 1 | 1 |
# | --- | --- | --- | --- | --- | --- | --- |
# | thread | 0 | 1 | 2 | 0 | 1 | 2 |
# | element | 0·3+0 = 0 | 1 | 2 | 1·3+0 = 3 | 4 | 5 |
#
# With five elements, the last thread has none and must do nothing: `if (i < n)`.

# %%
lesson.step("Who am I?")


def elements(blocks, threads):
    """The element of every thread, (blocks, threads)."""
    return np.arange(blocks)[:, None] * threads + np.arange(threads)


assert elements(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
guess_idle = lesson.predict("1,000 elements, blocks of 256: how many threads find nothing to do?", 24, "threads")
guess_idle.see((elements(-(-1000 // 256), 256) >= 1000).sum(), allowed=(24, 24))

# %% [markdown]
# ## 2. What a warp reads together
#
# The 32 lanes of a warp read in the same step, and memory answers in *lines* of 128 bytes. If lane $i$ reads 4 bytes
# next to those of lane $i - 1$, one line serves all. And for a column of a matrix whose rows have 1,024 floats?

# %%
lesson.step("Coalescing: lines of 128 bytes that 32 lanes touch")
guess_column = lesson.predict("lines for a column of rows of 1,024 floats (for a row: 1)?", 32, "lines")
lanes = np.arange(32)
patterns = {"a row": 4 * lanes, "one float late": 4 + 4 * lanes, "every second": 8 * lanes, "a column": 4096 * lanes}
touched = {name: np.unique(address // 128, return_inverse=True)[1] for name, address in patterns.items()}  # (32,) each
guess_column.see(1 + touched["a column"].max(), allowed=(32, 32))


def picture(name, matrix, rows, title, xlabel, ylabel=""):
    """A matrix of whole numbers, each written into its cell; -1: nothing there."""
    with drawing():
        figure = new_figure(WIDTH, 0.25 * len(rows) + 0.9)
        axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.pcolormesh(np.ma.masked_less(matrix, 0), edgecolors="white", linewidth=0.5)
        for (row, column), value in np.ndenumerate(matrix):
            style = {"ha": "center", "va": "center", "color": "white" if value < 0.6 * matrix.max() else "black"}
            axes.text(column + 0.5, row + 0.5, value if value >= 0 else "", fontsize=6.5, **style)
        axes.set_xticks(np.arange(matrix.shape[1]) + 0.5, range(matrix.shape[1]))
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
        axes.set_ylim(len(rows), 0)
        axes.spines[:].set_visible(False)
        save(figure, lesson.figure(name))


wanted = np.stack(list(touched.values()))  # (4, 32)
picture("lines", wanted, list(touched), "Which line of 128 bytes each lane wants", "lane of the warp")

# %% [markdown]
# A line has four sectors of 32 bytes, and only those that are touched are fetched: a column moves 32 · 32 bytes, eight
# times what it uses. So thread $t$ of `csrc/cuda/rows.cuh` takes $t$, $t + W$, $t + 2W$ …: neighbours read neighbours.
#
# ## 3. A first kernel
#
# What stands below is CUDA C++, as a GPU gets it. `emulator.RawModule` (named after CuPy's, which takes the same text)
# puts `csrc/cuda_emulator/` in front of it and calls your C++ compiler. A thread is a stack of its own; one after the
# other runs until it has to wait.

# %%
if emulator.REASON:
    lesson.say(f"\nThe rest of this lesson runs CUDA, and cannot here: {emulator.REASON}")
    lesson.save()
    raise SystemExit

# What the GPT of section 7 needs of csrc/cuda/ is compiled while you read on, and kept for the next time.
CONCEPTS = {"activation", "adamw", "attention", "cross_entropy", "embedding", "normalization"}
background = ThreadPoolExecutor(2)
sources = [path.stem for path in sorted((locate.csrc() / "cuda").glob("*.cu"))]
building = [background.submit(launch.module, name, "cpu") for name in sources if name in CONCEPTS]

FIRST = """
extern "C" __global__ void add(const float* x, const float* y, float* z, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = x[i] + y[i];
}

extern "C" __global__ void turns(int* clock, int* when) {  // when (2, threads): before the barrier, and after
    when[threadIdx.x] = atomicAdd(clock, 1);
    __syncthreads();
    when[blockDim.x + threadIdx.x] = atomicAdd(clock, 1);
}
"""


def add_naive(x, y, blocks, threads):
    """x, y (n,) -> z (n,): what the grid does, one thread after the other."""
    z = np.full_like(x, np.nan)  # (n,)
    for i in elements(blocks, threads).flat:
        if i < len(x):
            z[i] = x[i] + y[i]
    return z


lesson.step("A first kernel")
first = emulator.RawModule(code=FIRST, name="first.cu")
x, y = random.normal((2, 1000))  # (1000,) each
z = np.full_like(x, np.nan)
first.get_function("add")((4,), (256,), (x, y, z, np.int32(1000)))  # grid, block, arguments
assert np.array_equal(z, x + y) and np.array_equal(z, add_naive(x, y, 4, 256))

# %% [markdown]
# CUDA promises no order, neither of blocks nor of threads between two barriers. So the emulator has three, and a right
# kernel gives the same in all: `with emulator.schedule(order="random", seed=3)`. Each thread of `turns` notes its turn
# before a barrier and after. A barrier (`__syncthreads`) opens when all threads of the block have come.

# %%
turns, labels = [], []
for order in emulator.Schedule.ORDERS:
    clock, when = np.zeros(1, np.int32), np.zeros((2, 16), np.int32)
    with emulator.schedule(order=order, seed=3):
        first.get_function("turns")((1,), (16,), (clock, when))
    assert when[0].max() < when[1].min()  # the barrier, in every order
    turns, labels = [*turns, *when], [*labels, f'"{order}", before the barrier', "after it"]
picture("turns", np.stack(turns), labels, "At which turn a thread comes, in three orders", "thread")

# %% [markdown]
# ## 4. One sum of many numbers, three ways
#
# $n = 4096$ numbers, 16 blocks of 256 threads.
#
# * **Atomics**: every thread adds to one place, `atomicAdd`: 4,096 queue up there.
# * **A tree in shared memory**: 128 threads add $s_{t+128}$ to $s_t$, then 64, 32 … 1; after each step all wait, for
#   the next reads what others wrote. On paper, 8 threads: 8 → 4 → 2 → 1, $\log_2 8 = 3$ steps and 1 + 3 barriers.
# * **Shuffles**: `__shfl_down_sync` reads another lane's register. Five steps add up a warp; the eight warps leave
#   their sums in shared memory, wait once, and one warp adds these up in three steps.
#
# The last two leave one sum a block, and are launched again to add those 16. `note` counts what block 0 does.

# %%
SUMS = """
enum { BARRIERS, STEPS, BYTES };
__device__ void note(int* tally, int what, int by = 1) { if (blockIdx.x + threadIdx.x == 0) tally[what] += by; }
__device__ void barrier(int* tally) { __syncthreads(), note(tally, BARRIERS); }

extern "C" __global__ void atomic_sum(const float* x, int n, float* total, int* tally) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(total, x[i]);
}

extern "C" __global__ void tree_sum(const float* x, int n, float* sums, int* tally, int* who) {
    extern __shared__ float s[];  // (blockDim.x,)
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    s[t] = i < n ? x[i] : 0;  // beyond n: nothing to add, but nobody returns, for all must reach the barriers
    note(tally, BYTES, blockDim.x * sizeof(float));
    if (who) who[t] = t;
    barrier(tally);
    for (int step = 1, half = blockDim.x / 2; half > 0; half /= 2, step++) {
        if (t < half) s[t] += s[t + half];
        if (who && t < half) who[step * blockDim.x + t] = who[step * blockDim.x + t + half] = t;
        note(tally, STEPS);
        barrier(tally);
    }
    if (t == 0) sums[blockIdx.x] = s[0];
}

extern "C" __global__ void warp_sum(const float* x, int n, float* sums, int* tally) {
    __shared__ float of_warp[32];
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t, warps = blockDim.x / 32;
    float v = i < n ? x[i] : 0;
    for (int distance = 16; distance > 0; distance /= 2)
        v += __shfl_down_sync(0xffffffff, v, distance), note(tally, STEPS);
    if (t % 32 == 0) of_warp[t / 32] = v;
    note(tally, BYTES, warps * sizeof(float));
    barrier(tally);
    if (t >= 32) return;  // whole warps, and no barrier comes after
    v = t < warps ? of_warp[t] : 0;
    for (int distance = warps / 2; distance > 0; distance /= 2)
        v += __shfl_down_sync(0xffffffff, v, distance), note(tally, STEPS);
    if (t == 0) sums[blockIdx.x] = v;
}
"""
lesson.step("A sum, three ways")
guess_tree = lesson.predict("barriers of a block of 256, as a tree?", 9, "barriers")
guess_warp = lesson.predict("barriers of a block of 256, with shuffles?", 1, "barriers")
guess_bytes = lesson.predict("and bytes of shared memory that it uses?", 32, "bytes")
sums = emulator.RawModule(code=SUMS, name="sums.cu")


def total(kernel, x, blocks=16):
    """x (n,) -> its sum, and what was counted: barriers, steps, bytes of shared memory (3,)."""
    function, tally, out = sums.get_function(kernel), np.zeros(3, np.int32), np.zeros(blocks, np.float32)
    shared, who = (1024, (None,)) if kernel == "tree_sum" else (0, ())
    function((blocks,), (256,), (x, np.int32(len(x)), out, tally, *who), shared_mem=shared)
    done = blocks == 1 or kernel == "atomic_sum"
    return out[0] if done else total(kernel, out, 1)[0], tally


x, counted = np.round(random.normal(4096) * 9), {}  # whole numbers: every order gives the same sum, exactly
for kernel in ("atomic_sum", "tree_sum", "warp_sum"):
    found, counted[kernel] = total(kernel, x)
    assert found == x.sum()
    lesson.say("  {:10} barriers {}, steps {}, shared bytes {:,}".format(kernel, *counted[kernel]))
guess_tree.see(counted["tree_sum"][0], allowed=(9, 9))
guess_warp.see(counted["warp_sum"][0], allowed=(1, 1))
guess_bytes.see(counted["warp_sum"][2], allowed=(32, 32))
assert counted["tree_sum"][1] == counted["warp_sum"][1] == np.log2(256)

guess_atomic = lesson.predict("real numbers, ten random orders: different sums by atomics?", 9, "results")
x, results = random.normal(4096), {"atomic_sum": set(), "warp_sum": set()}
for seed in range(10):
    with emulator.schedule(order="random", seed=seed):
        for kernel, seen in results.items():
            seen.add(float(total(kernel, x)[0]))
guess_atomic.see(len(results["atomic_sum"]), allowed=(2, 10))
assert len(results["warp_sum"]) == 1

who = np.full((5, 16), -1, np.int32)  # (step, element)
tree = sums.get_function("tree_sum")
tree((1,), (16,), (np.ones(16, np.float32), np.int32(16), np.zeros(1, np.float32), np.zeros(3, np.int32), who),
     shared_mem=64)  # fmt: skip
steps = ["load", "+ 8", "+ 4", "+ 2", "+ 1"]
picture("tree", who, steps, "Which thread touches which element", "element of shared memory", "step, then a barrier")

# %% [markdown]
# Atomics give *a* sum, another in every order: floating-point addition is not associative. Shuffles and the tree fix
# who adds to whom, and give the same bits, always. So do the engine's kernels (`team_reduce` in `rows.cuh`).
#
# ## 5. A matrix product in tiles
#
# $C = AB$, all $n \times n$, a thread an element of $C$: it reads a row of $A$ and a column of $B$, so $2n^3$ loads in
# all. But the 256 threads of a $16\times16$ block want the same rows and columns. In tiles, each thread fetches *one*
# element of $A$ and one of $B$ into shared memory, all wait, and each uses 16 + 16 of them: $2n^3/16$ loads.

# %%
MATRICES = """
struct Counted {  // global memory that counts how often it is read and written
    float* p;
    unsigned* moved;
    __device__ float& operator[](int i) const { atomicAdd(moved, 1u); return p[i]; }
};

template <int TILE> __device__ void tiled(Counted a, Counted b, float* c, int n) {
    __shared__ float a_tile[TILE][TILE], b_tile[TILE][TILE];
    const int y = threadIdx.y, x = threadIdx.x, row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    float sum = 0;
    for (int k = 0; k < n; k += TILE) {
        a_tile[y][x] = row < n && k + x < n ? a[row * n + k + x] : 0;
        b_tile[y][x] = k + y < n && column < n ? b[(k + y) * n + column] : 0;
        __syncthreads();  // the tiles are there
        for (int j = 0; j < TILE; j++) sum += a_tile[y][j] * b_tile[j][x];
        __syncthreads();  // all have used them: they may be overwritten
    }
    if (row < n && column < n) c[row * n + column] = sum;
}
#define TILED(TILE)                                                                                    \\
    extern "C" __global__ void tiled_##TILE(float* a, float* b, float* c, int n, unsigned* moved) {    \\
        tiled<TILE>({a, moved}, {b, moved}, c, n);                                                     \\
    }
TILED(1) TILED(2) TILED(4) TILED(8) TILED(16) TILED(32)  // 1 is naive: everybody fetches all that he uses

extern "C" __global__ void softmax(float* x_, float* y_, unsigned* moved) {  // rows of 32: a warp a row
    const Counted x{x_, moved}, y{y_, moved};
    const int i = 32 * blockIdx.x + threadIdx.x;
    float v = x[i], top = v;
    for (int bit = 16; bit > 0; bit /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, bit));
    float e = expf(v - top), mass = e;
    for (int bit = 16; bit > 0; bit /= 2) mass += __shfl_xor_sync(0xffffffff, mass, bit);
    y[i] = e / mass;
}
"""
lesson.step("A matrix product, naive and in tiles")
guess_tiles = lesson.predict("loads of the naive product (tiles of 1) over those in tiles of 16?", 16, "times")
matrices = emulator.RawModule(code=MATRICES, name="matrices.cu")


def product(a, b, tile):
    """a, b (n, n) -> a b (n, n), and how many numbers were read from global memory."""
    n, moved = len(a), np.zeros(1, np.uint32)
    c, blocks = np.full((n, n), np.nan, np.float32), -(-n // tile)
    matrices.get_function(f"tiled_{tile}")((blocks, blocks), (tile, tile), (a, b, c, np.int32(n), moved))
    return c, int(moved[0])


TILES, loads = (1, 2, 4, 8, 16, 32), {}
for n in (64, 50):  # 50 is no multiple of a tile
    a, b = np.round(random.normal((2, n, n)) * 4)  # (n, n) each, whole numbers
    for tile in TILES:
        c, loads[tile, n] = product(a, b, tile)
        assert np.array_equal(c, a @ b)
assert all(loads[tile, 64] == 2 * 64**3 / tile for tile in TILES)
guess_tiles.see(loads[1, 64] / loads[16, 64], allowed=(16, 16))
lines(TILES, {f"n = {n}": [loads[tile, n] for tile in TILES] for n in (64, 50)}, logx=True, logy=True,
      xlabel="side of a tile", ylabel="numbers read from global memory", title="Twice the tile, half the loads",
      path=lesson.figure("loads"))  # fmt: skip

# %% [markdown]
# Is that enough? A product does $2n^3$ operations, so naive a quarter a byte, and in tiles of 16 four. An H100's data
# sheet has 67 TFLOP/s (float32) and 3.35 TB/s: it wants 20. Hence the next rungs: each thread computes 8 × 8 elements
# in registers (`minitransformer ladder`), or tensor cores do.
#
# **Fusion** is the same thought along a chain. An array library runs softmax as five kernels: maximum (reads each
# number), subtract (reads and writes), exp (both), sum (reads), divide (both). One kernel with its row in registers
# reads once and writes once. D2 §3.3 speaks of up to five times (C15).

# %%
lesson.step("Softmax in five kernels, and in one")
guess_fused = lesson.predict("five kernels move how many times as much as one?", 4, "times")
x = random.normal((64, 32))  # (rows, 32)
top, y, one = x.max(1, keepdims=True), np.empty_like(x), np.zeros(1, np.uint32)
shifted = x - top  # (rows, 32)
e = np.exp(shifted)  # (rows, 32)
mass = e.sum(1, keepdims=True)  # (rows, 1)
chain = [(x, top), (x, top, shifted), (shifted, e), (e, mass), (e, mass, e / mass)]  # what each reads and writes
five = sum(array.shape == x.shape for arrays in chain for array in arrays)
matrices.get_function("softmax")((64,), (32,), (x, y, one))
np.testing.assert_allclose(y, kernels.softmax(x, -1), rtol=1e-5)
guess_fused.see(five * x.size / one[0], allowed=(4, 4))
lesson.claim(
    "C15",
    measured=f"softmax in one kernel moves each number {one[0] / x.size:.0f} times, in five kernels {five}, with 1 "
    "launch for 5; to move 5 times less takes 5 element-wise kernels in one",
    setup="emulator: one kernel's reads and writes counted in it, those of five from sizes; an upper bound, not a time",
    verdict="partly",
)

# %% [markdown]
# ## 6. Tensor cores
#
# `wmma` lets the 32 lanes of a warp multiply two 16 × 16 matrices together. Its inputs have 16 bits: bfloat16 keeps 8
# binary digits, so rounding changes a number by at most $2^{-8}$ of itself, 0.42 times that in the mean square, and a
# product of two by $\sqrt2$ times as much: $0.42\cdot2^{-8}\cdot\sqrt2 = 0.23\,\%$. Sums are float32. In a sum of $K$
# independent products error and result both grow as $\sqrt K$. So what is the error for $K = 1024$?

# %%
TENSOR = """
#include <mma.h>
#include <cuda_bf16.h>
using namespace nvcuda;

// One warp: c (16, 16) = a (16, K) @ b (K, 16), sixteen of K at a time.
extern "C" __global__ void tensor(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int K) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> a_part;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> b_part;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int k = 0; k < K; k += 16) {
        wmma::load_matrix_sync(a_part, a + k, K);
        wmma::load_matrix_sync(b_part, b + k * 16, 16);
        wmma::mma_sync(sum, a_part, b_part, sum);
    }
    wmma::store_matrix_sync(c, sum, 16, wmma::mem_row_major);
}
"""
lesson.step("Tensor cores")
guess_error = lesson.predict("error of a bf16 product, in % of the result's length, K = 1,024?", 0.23, "%")
K, c = 1024, emulator.empty((16, 16))
a, b = random.normal((16, K)), random.normal((K, 16))  # float32
rounded = [emulator.empty(m.shape, ml_dtypes.bfloat16) for m in (a, b)]  # where cudaMalloc's lie: wmma needs it
for half, m in zip(rounded, (a, b), strict=True):
    half[...] = m
tensor = emulator.RawModule(code=TENSOR, name="tensor.cu").get_function("tensor")
tensor((1,), (32,), (*rounded, c, np.int32(K)))
exact, of_rounded = (one.astype(np.float64) @ other.astype(np.float64) for one, other in ((a, b), rounded))
guess_error.see(100 * np.linalg.norm(c - exact) / np.linalg.norm(exact), allowed=(0.17, 0.30))
assert np.linalg.norm(c - of_rounded) < 2e-6 * np.linalg.norm(exact)  # all the error is in rounding the inputs

# %% [markdown]
# A GPU adds the 16 products in an order of its own: the last digits may differ from ours, not the size of the error.
#
# ## 7. A GPT on a GPU that is not there
#
# A GPU has its own memory, and the way there is slow: to read one number back, the computer waits for all that was
# asked before. `mt.device("cuda-emulated")` has arrays as strict as CuPy's (nothing converts by itself) and counts what
# moves. What must a training step move in, and what out?

# %%
lesson.step("A training step, and what it moves")
guess_in = lesson.predict("transfers to the device in a training step?", 2, "transfers")
guess_out = lesson.predict("transfers back?", 1, "transfers")
for module in building:
    module.result()  # compiled by now
THERE = mt.device("cuda-emulated")
x, y = np.arange(32).reshape(2, 16) % 11, np.arange(1, 33).reshape(2, 16) % 11  # (B, T) each


def new_training(place):
    model = GPT(GPTConfig(11, context=16, layers=1, heads=2, width=32), mt.Generator(1)).to(place)
    return model, optim.AdamW(model.parameters(), lr=1e-2)


def step(model, optimizer, place):
    optimizer.zero_grad()
    loss = model.loss(mt.tensor(x, device=place), mt.tensor(y, device=place))  # the batch goes in
    loss.backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()  # the loss comes out


here, there = new_training("cpu"), new_training(THERE)
for _ in range(5):
    with standin.counting() as counts:
        away = step(*there, THERE)
    np.testing.assert_allclose(away, step(*here, "cpu"), rtol=1e-4)
guess_in.see(counts.to_device, allowed=(2, 2))
guess_out.see(counts.from_device, allowed=(1, 1))
assert (counts.bytes_to_device, counts.bytes_from_device) == (x.nbytes + y.nbytes, 4)
with kernels.use("cuda-emulated"):
    calls = kernels.explain(step, *there, THERE)
    on_the_cpu = kernels.explain(kernels.gelu, random.normal(100), "none")  # the same file, on NumPy's arrays
ran = sorted({call.routine for call in calls if call.source == "cuda-emulated"})
assert "layer_norm_forward" in ran and "adamw_step" in ran and on_the_cpu[0].source == "cuda-emulated"
lesson.say(f"  {counts.launches} launches a step; ran as CUDA: {', '.join(ran)}")

# %% [markdown]
# Five steps give the CPU's losses. `print(gradient_norm)` in the loop would be one more transfer: not for its 4 bytes,
# but because the computer stops and waits.
#
# ## 8. Break it
#
# `left` gives each element its left neighbour, through shared memory, and forgets to wait. How many of 63 are wrong
# when threads run first to last? Last to first? At random?

# %%
MISTAKES = """
extern "C" __global__ void left(const float* x, float* y) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = x[t];
    y[t] = t > 0 ? s[t - 1] : 0;  // nobody waited
}
extern "C" __global__ void uneven(const float* x, float* y) {
    if (threadIdx.x < 32) __syncthreads();  // half of them come
    __syncthreads();
}
extern "C" __global__ void waiting(const float* x, float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffffff, x[threadIdx.x], 8);  // asks for 32 lanes
    __syncthreads();
}
"""
lesson.step("Break it")
guess_first = lesson.predict("wrong elements, first to last?", 0, "of 63")
guess_last = lesson.predict("wrong elements, last to first?", 63, "of 63")
guess_random = lesson.predict("wrong elements, at random?", 32, "of 63")
mistakes, wrong = emulator.RawModule(code=MISTAKES, name="mistakes.cu"), {}
x = random.normal(64)
for order in emulator.Schedule.ORDERS:
    y = np.zeros_like(x)
    with emulator.schedule(order=order, seed=1):
        mistakes.get_function("left")((1,), (64,), (x, y))
    wrong[order] = (y[1:] != x[:-1]).sum()
guess_first.see(wrong["first"], allowed=(0, 0))
guess_last.see(wrong["last"], allowed=(63, 63))
guess_random.see(wrong["random"], allowed=(16, 48))
said = []
for kernel in ("uneven", "waiting"):
    try:
        mistakes.get_function(kernel)((1,), (64,), (x, y))
    except emulator.KernelError as error:
        said.append(str(error))
        lesson.say(f"  {error}")
assert "divergent barrier: threads 0-31 wait in __syncthreads" in said[0]
assert "deadlock: threads 0-15 wait in __shfl_down_sync" in said[1]

# %% [markdown]
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | right here, wrong there; NaN now and then | no barrier between a write and another thread's read | every order |
# | hangs, or adds up halves of two steps | a barrier inside an `if` that not all take | any order: both lines |
# | hangs | a shuffle whose mask names lanes that never come | any order: its line |
#
# First to last, `left` is *right*, as it may be on a GPU while a block is one warp. Shared memory is NaN before each
# block, so that what nobody wrote shows. Where all orders are lucky, `sanitize.run(..., sanitizer="thread")` is not.
#
# ## 9. What has run where
#
# The emulator tells results, counts, races, deadlocks and bounds. It does not tell *time*, caches, bank conflicts or
# occupancy, and its `__expf` is more accurate than a GPU's. The project's kernels run in its tests through the
# emulator, and nvcc compiles them where there is one. On a real GPU none has run yet: `make gpu` does that on yours.

# %%
if shutil.which("nvcc"):
    command = "nvcc -x cu - -cubin -arch=sm_80 -std=c++17 -Xptxas -v -o".split()
    text = "\n".join([TENSOR, FIRST, SUMS, MATRICES, MISTAKES])
    said = subprocess.run([*command, os.devnull], input=text, capture_output=True, text=True, check=False).stderr
    used = [int(found) for found in re.findall(r"Used (\d+) registers", said)]
    lesson.say(
        f"  nvcc: {len(used)} kernels, at most {max(used)} registers a thread" if used else f"  nvcc: {said:.99}"
    )
else:
    lesson.say("  nvcc is not installed here; where it is, it compiles the same text")
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Why is a barrier only for a block?** The other blocks may not have begun. Who must wait for the whole grid ends
#   the kernel and launches the next one, as section 4 does.
# * **Do the lanes of a warp not run in step anyway?** Since Volta (2017) each has its own program counter. What relied
#   on it broke then; `__syncwarp` and the masks of shuffles say it.
#
# ## Exercises
#
# Your file holds a Python function that returns CUDA source; the check compiles it and launches it in every order.
#
# 1. `add_bias_kernel() -> str`: rows and columns of a matrix, and nothing outside of it.
#    <details><summary>Hint</summary>Two numbers now: x counts columns, y counts rows; both need a bound.</details>
# 2. `block_sum_kernel() -> str`: the tree of section 4, for any block of a power of two.
#    <details><summary>Hint</summary>Where must all wait, and who must not have returned by then?</details>
# 3. `lines_touched(start, stride, size, lanes=32, line=128) -> tuple`: what an access pattern costs.
#    <details><summary>Hint</summary>Bytes first; then `// line` gives the line of each.</details>
# 4. `transpose_kernel() -> str`: a kernel that has lost its barriers. Give it back two.
#    <details><summary>Hint</summary>A tile is written, read, then written again for the next turn.</details>
#
# ## Quiz
#
# 1. 10,000 elements, blocks of 512: idle threads are **(a)** 0, **(b)** 240, **(c)** 272. — (b): 20 blocks are 10,240.
#    (a) would need 512 to divide 10,000. (c) is what the last block does: 10,000 − 19 · 512.
# 2. 32 lanes read float64 neighbours, aligned. Lines: **(a)** 1, **(b)** 2, **(c)** 32. — (b): 256 bytes. (a) is for
#    4 bytes a lane. (c) is for a column.
# 3. Without the *second* barrier of the tiled product **(a)** nothing happens, **(b)** a fast thread overwrites a tile
#    that others still read, **(c)** it hangs. — (b). (a): now and then. (c): fewer barriers never hang.
# 4. `atomicAdd` on floats gives another last digit each time because **(a)** additions get lost, **(b)** atomics are
#    less accurate, **(c)** the order of rounding changes. — (c). (a): that is what "atomic" prevents. (b): the same
#    adder.

# %% [markdown] exercise="13.1"
# ### Exercise 13.1: `add_bias_kernel`
#
# y = x + bias, x a matrix in rows, the bias a row. The grid has two dimensions now: x counts columns, so that
# neighbouring threads touch neighbouring addresses, and y counts rows. The block's shape is the caller's choice, the
# grid just covers the matrix, so threads hang over both edges.
#
# ```python
# def add_bias_kernel():
#     """-> CUDA source with: extern "C" __global__ void add_bias(const float* x, const float* bias, float* y, int rows,
#     int columns), x and y (rows, columns), bias (columns,). blockDim (a, b) is any; the grid is
#     (ceil(columns / a), ceil(rows / b)).
#     """
#     raise NotImplementedError("which row and column a thread has, whether they exist, and where they lie in memory")
# ```
#
# <details><summary>Hint 1</summary>column = blockIdx.x * blockDim.x + threadIdx.x, and the row alike, with y.</details>
# <details><summary>Hint 2</summary>Both must be inside, before anything is read.</details>
# <details><summary>Hint 3</summary>Element (row, column) lies at row * columns + column.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def add_bias_kernel():
#     return """
# extern "C" __global__ void add_bias(const float* x, const float* bias, float* y, int rows, int columns) {
#     const int column = blockIdx.x * blockDim.x + threadIdx.x;
#     const int row = blockIdx.y * blockDim.y + threadIdx.y;
#     if (row < rows && column < columns) y[row * columns + column] = x[row * columns + column] + bias[column];
# }
# """
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * no bound for columns: `row < rows && column < columns` → `row < rows`
# * one row too many: `row < rows &&` → `row <= rows &&`
# * x and y swapped: `column = blockIdx.x * blockDim.x` → `column = blockIdx.y * blockDim.x`
# * the bias of the row: `bias[column]` → `bias[row]`
#
# </details>

# %% [markdown] exercise="13.2"
# ### Exercise 13.2: `block_sum_kernel`
#
# The tree of section 4, from memory: each block adds up its share of x and leaves one sum. Blocks have any power of
# two of threads, from 1 to 1,024, and as many floats of dynamic shared memory. n may end anywhere. The sum must come
# out the same, bit by bit, in every order of threads.
#
# ```python
# def block_sum_kernel():
#     """-> CUDA source with: extern "C" __global__ void block_sum(const float* x, float* sums, int n),
#     x (n,), sums (gridDim.x,): sums[b] = Σ x[i] of the i of block b's threads.
#     """
#     raise NotImplementedError("load with a bound, then halve: those below add what lies above; wait between")
# ```
#
# <details><summary>Hint 1</summary>`extern __shared__ float s[];` is the dynamic shared memory.</details>
# <details><summary>Hint 2</summary>A thread beyond n loads 0 and stays: all must reach every barrier.</details>
# <details><summary>Hint 3</summary>One `__syncthreads()` at the head of the loop is enough: it stands between the load
# and the first step, too.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def block_sum_kernel():
#     return """
# extern "C" __global__ void block_sum(const float* x, float* sums, int n) {
#     extern __shared__ float s[];
#     const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
#     s[t] = i < n ? x[i] : 0.0f;
#     for (int half = blockDim.x / 2; half > 0; half /= 2) {
#         __syncthreads();
#         if (t < half) s[t] += s[t + half];
#     }
#     if (t == 0) sums[blockIdx.x] = s[0];
# }
# """
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * nobody waits: `__syncthreads();` → `;`
# * no bound: `i < n ? x[i] : 0.0f` → `x[i]`
# * the last step is missing: `half > 0` → `half > 1`
# * all threads add: `if (t < half) s[t]` → `s[t]`
#
# </details>

# %% [markdown] exercise="13.3"
# ### Exercise 13.3: `lines_touched`
#
# What does one read of a warp cost? Lane i reads `size` bytes at `start + i * stride`. Count the lines of memory that
# this touches, and the share of their bytes that anybody asked for. Several lanes may want the same bytes (stride 0),
# and that costs nothing more.
#
# ```python
# def lines_touched(start, stride, size, lanes=32, line=128):
#     """-> (lines, share): the number of different lines, and different bytes asked for / bytes of these lines.
#
#     All in bytes; start, stride and line are multiples of size, so that no read crosses into another line; start is
#     large enough for a negative stride.
#     """
#     raise NotImplementedError("a set of addresses, and a set of lines")
# ```
#
# <details><summary>Hint 1</summary>`{start + i * stride for i in range(lanes)}` are the different addresses.</details>
# <details><summary>Hint 2</summary>`address // line` is the number of its line.</details>
# <details><summary>Hint 3</summary>Asked for: size bytes an address. Fetched: line bytes a line.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def lines_touched(start, stride, size, lanes=32, line=128):
#     addresses = {start + i * stride for i in range(lanes)}
#     lines = {address // line for address in addresses}
#     return len(lines), len(addresses) * size / (len(lines) * line)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the start is forgotten: `{start + i * stride` → `{i * stride`
# * bytes over the length of a line: `return len(lines), ` → `return -(-lanes * size // line), `
# * every lane counts: `len(addresses) * size` → `lanes * size`
# * always 128: `len(lines) * line)` → `len(lines) * 128)`
#
# </details>

# %% [markdown] exercise="13.4"
# ### Exercise 13.4: `transpose_kernel`
#
# Find the barriers. A block of 16 × 16 threads transposes one tile after another: it reads a tile row by row into
# shared memory and writes it column by column, so that both ways neighbours touch neighbours. Somebody has lost the
# barriers of `BROKEN`. Give it back two `__syncthreads()`, no more, where *all* threads meet.
#
# ```python
# BROKEN = """
# extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns) {
#     __shared__ float tile[16][17];  // a column more: then a column of it lies in 16 different banks
#     const int i = threadIdx.y, j = threadIdx.x, down = 16 * blockIdx.y;
#     for (int right = 0; right < columns; right += 16) {
#         if (down + i < rows && right + j < columns) tile[i][j] = x[(down + i) * columns + right + j];
#         if (right + i < columns && down + j < rows) y[(right + i) * rows + down + j] = tile[j][i];
#     }
# }
# """
#
#
# def transpose_kernel():
#     """-> CUDA source with: extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns),
#     x (rows, columns) -> y (columns, rows). blockDim (16, 16), grid (1, ceil(rows / 16)). Two barriers in the text.
#     """
#     raise NotImplementedError("BROKEN with a barrier between write and read, and between read and the next write")
# ```
#
# <details><summary>Hint 1</summary>Who wrote the element `tile[j][i]` that thread (i, j) reads?</details>
# <details><summary>Hint 2</summary>And who may still be reading when the loop begins its next turn?</details>
# <details><summary>Hint 3</summary>Each is a line of its own, inside the loop and outside of every `if`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def transpose_kernel():
#     return """
# extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns) {
#     __shared__ float tile[16][17];
#     const int i = threadIdx.y, j = threadIdx.x, down = 16 * blockIdx.y;
#     for (int right = 0; right < columns; right += 16) {
#         if (down + i < rows && right + j < columns) tile[i][j] = x[(down + i) * columns + right + j];
#         __syncthreads();  // the tile is there
#         if (right + i < columns && down + j < rows) y[(right + i) * rows + down + j] = tile[j][i];
#         __syncthreads();  // all have read it
#     }
# }
# """
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * only the second: `__syncthreads();  // the tile is there` → `;`
# * only the first: `__syncthreads();  // all have read it` → `;`
# * in an if: `__syncthreads();  // the tile is there` → `if (down + i < rows) __syncthreads();`
# * three, to be safe: `__syncthreads();  // all have read it` → `__syncthreads(), __syncthreads();`
#
# </details>
