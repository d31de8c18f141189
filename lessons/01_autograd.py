# %% [markdown]
# # Autograd, by hand
#
# How does one walk backwards find the gradient of every parameter, and what makes it wrong without an error message?
# Training needs the derivative of one number, the loss, by each of a million others. All come out of *one* walk back
# through the graph that forward left behind. Build that walk in forty lines, break it in the classic ways, and meet it
# again in the engine.
#
# | | |
# | --- | --- |
# | You will be able to | write and check a backward; say why order, `+=` and `zero_grad` matter, and what it holds |
# | Builds on | the chain rule, NumPy |
# | Time | 35 minutes to read, 10 s to run |
# | Files to open | `minitransformer/graph.py`, `function.py`, `gradient_check.py`, `ops/arithmetic.py` |
# | Source | Griewank & Walther 2008, *Evaluating Derivatives*, ch. 3 |
# | Documents | D2 §3.1 reads gradient norms while training: near zero is taken to tell vanishing gradients. Is it so? |
# | Next | 02, attention: a backward worth fusing |

# %%
import functools
import itertools
import sys
import tracemalloc

import numpy as np

import minitransformer as mt
from minitransformer.lesson import Lesson
from minitransformer.visualization import graph, heatmap, lines
from minitransformer.visualization.style import save

lesson = Lesson("01", "Autograd, by hand")

# %% [markdown]
# ## 1. Numbers on paper
#
# Let $x = 2$, $a = x\cdot x = 4$, $b = 3a = 12$ and $y = a\cdot b = 48$. Since $y = 3x^4$, the answer has to be
# $dy/dx = 12x^3 = 96$. Now find it without that formula. Write under each value its *cotangent*, "by how much does
# $y$ change if I change?", and begin at the end, where $dy = 1$:
#
# * $y = a\cdot b$ sends $b\,dy = 12$ to $a$, and $a\,dy = 4$ to $b$.
# * $b = 3a$ sends $3\,db = 12$ to $a$. Now $a$ has heard twice: $12 + 12 = 24$.
# * $a = x\cdot x$ sends $x\,da = 48$ to its left factor and $48$ to its right. Both are $x$: $48 + 48 = 96$. ✓
#
# Two things were decisive. Contributions were **added**, and $a$ **waited** for both before it sent anything on.
# The paths $a \to b \to y$ and $a \to y$ form a *diamond*; every residual connection of a transformer is one.
#
# ## 2. A micro-engine
#
# An operation knows one thing only: given the cotangent of its result, what goes back to its parents (`pull`). A
# cotangent has the shape of its value; for matrices $y = a\,b$ only $da = dy\,b^\top$ and $db = a^\top dy$ fit.


# %%
class Value:
    """An array, its gradient, the values it was made from, and how its cotangent is pulled back to them."""

    numbers = itertools.count()

    def __init__(self, data, parents=(), pull=lambda dy: (), name=""):
        self.data = np.asarray(data, dtype=np.float64)
        self.grad = np.zeros_like(self.data)
        self.parents, self.pull, self.name = parents, pull, name
        self.number = next(Value.numbers)  # parents were made before us: their numbers are smaller

    def __add__(a, b):  # two arrays of one shape
        return Value(a.data + b.data, (a, b), lambda dy: (dy, dy))

    def __mul__(a, b):  # two arrays of one shape
        return Value(a.data * b.data, (a, b), lambda dy: (dy * b.data, dy * a.data))

    def __matmul__(a, b):  # (N, K) @ (K, M) -> (N, M)
        return Value(a.data @ b.data, (a, b), lambda dy: (dy @ b.data.T, a.data.T @ dy))

    def tanh(a):  # any shape -> the same
        y = np.tanh(a.data)
        return Value(y, (a,), lambda dy: (dy * (1 - y * y),))


def newest_first(y):
    found, waiting = {y}, [y]
    while waiting:  # a list instead of recursion
        for parent in waiting.pop().parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return sorted(found, key=lambda node: -node.number)


def backward(y, dy=1.0, order=newest_first):
    """Every node, in the given order, hands its gradient on to its parents, which add it to what they have."""
    y.grad += dy
    for node in order(y):
        for parent, dx in zip(node.parents, node.pull(node.grad)):
            parent.grad += dx


def diamond(swapped=False):
    x, c = Value(2.0, name="x"), Value(3.0, name="c")
    a = x * x
    b = c * a
    y = b * a if swapped else a * b
    a.name, b.name, y.name = "a", "b", "y"
    return x, y


x, y = diamond()
backward(y)
assert x.grad == 96

# %% [markdown]
# Drawn from the values themselves, with the order of creation above each: a node is made after everything that it
# reads. So a walk from the highest number to the lowest never meets a node which still has something to receive. That
# is all that a *topological order* is.

# %%
nodes, edges = {}, []
for node in reversed(newest_first(y)):
    nodes[node.name] = f"{node.name} = {node.data:g}", f"d{node.name} = {node.grad:g}", f"#{node.number}"
    edges += [(parent.name, node.name, f"← {dx:g}") for parent, dx in zip(node.parents, node.pull(node.grad))]
title = "y = a · b with b = c · a and a = x · x: values in blue, cotangents in orange"
graph(nodes, edges, title=title, path=lesson.figure("graph"))


# %%
def expression(x, w):
    h = (x @ w).tanh()  # (3, 4) @ (4, 2) -> (3, 2)
    return h * h + h  # (3, 2); h is used three times


# The engine spells its operators as we do: one expression runs on both, and text and package cannot drift apart.
random = mt.Generator(1)
x_data, w_data, dy = (random.normal(shape, dtype=np.float64) for shape in ((3, 4), (4, 2), (3, 2)))
micro = Value(x_data), Value(w_data)
backward(expression(*micro), dy)
engine = mt.tensor(x_data, requires_grad=True), mt.tensor(w_data, requires_grad=True)
expression(*engine).backward(dy)
for ours, theirs in zip(micro, engine):
    np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-12)
lesson.say("The micro-engine and the engine agree to 12 digits.")

# %% [markdown]
# ## 3. Predict: the wrong order
#
# Most people's first idea is recursion: a node, then its parents, each once. On the diamond that visits $y$, then $a$,
# $x$, and only then $b$. Go through it on paper. What gradient does $x$ end up with?


# %%
def depth_first(node, seen=None):
    seen = set() if seen is None else seen
    seen.add(node)
    yield node
    for parent in node.parents:
        if parent not in seen:
            yield from depth_first(parent, seen)


lesson.step("The wrong order")
guess = lesson.predict("dy/dx of the diamond, depth first (truth: 96)?", 48)
x, y = diamond()
backward(y, order=depth_first)
guess.see(x.grad, allowed=(48, 48))
x, y = diamond(swapped=True)
backward(y, order=depth_first)
lesson.say(f"The same function written b · a gives {x.grad:g}: right, because b happens to come first.")

# %% [markdown]
# $a$ was handled when one of its two cotangents had arrived; the other came too late. No error, a plausible number,
# and **it depends on whether you write `a * b` or `b * a`**. One repair keeps the recursion: never wait, pass each
# contribution on by itself. The result is right. How many calls for $x \to x + x$, done 15 times, 16 nodes?


# %%
def path_by_path(node, dy=1.0):
    """Adds the contribution of every path from the end to each node; returns the number of calls."""
    node.grad += dy
    calls = 1
    for parent, dx in zip(node.parents, node.pull(dy)):
        calls += path_by_path(parent, dx)
    return calls


guess = lesson.predict("calls for 15 doublings, path by path?", 2**16 - 1, "calls")
x = y = Value(1.0)
for _ in range(15):
    y = y + y
guess.see(path_by_path(y), allowed=(65535, 65535))
assert x.grad == 2**15

# %% [markdown]
# One call a *path*, and each doubling doubles the paths: 30 of them would take two thousand million calls. In
# topological order everybody waits, hence right, and **everybody speaks once, hence cheap**. `graph.py` does it with a
# heap of waiting nodes, keyed by creation number.
#
# ## 4. Why `+=`, and why `zero_grad`
#
# Inside one backward, `+=` adds what several *readers* send. Across backwards it adds what several *calls* send: a
# gift, since two halves of a batch make a whole one, and a trap, since yesterday's gradient stays. Minimise
# $\frac12(w-3)^2$ from $w = 0$ with step 0.1 and never clear the gradient. Each step then uses the *sum of all
# gradients so far*: a weight on a spring without friction. What is the largest $w$?

# %%
lesson.step("+= and zero_grad")
w = mt.tensor([1.0, -2.0], dtype="float64", requires_grad=True)
batch = mt.Generator(2).normal((8, 2), dtype=np.float64)  # (N, 2)
for rows in np.split(batch, 2):
    ((mt.tensor(rows) @ w) ** 2).sum().backward()
np.testing.assert_allclose(w.grad, 2 * batch.T @ (batch @ w.data), rtol=1e-12)  # the gradient of all eight rows


def descend(clear, rate=0.1):
    w, track = mt.tensor(0.0, dtype="float64", requires_grad=True), [0.0]
    for _ in range(60):
        if clear:
            w.grad = None  # the engine's zero: no array at all
        ((w - 3) ** 2 * 0.5).backward()
        with mt.no_grad():
            w.add_(w.grad, alpha=-rate)
        track.append(w.item())
    return track


guess = lesson.predict("largest w without zero_grad (minimum at 3)?", 6)
tracks = {"forgotten": descend(clear=False), "cleared": descend(clear=True)}
guess.see(max(tracks["forgotten"]), allowed=(5.9, 6.3))
lines(range(61), tracks, xlabel="step", ylabel="w", title="Without zero_grad, w swings around the minimum at 3",
      path=lesson.figure("zero_grad"), markers=False)  # fmt: skip

# %% [markdown]
# In a real run this looks like a learning rate that is too high, and lowering the rate only slows the swing.
#
# ## 5. Is a backward right? Finite differences
#
# $f'(x) \approx \big(f(x+h) - f(x-h)\big)/2h$. By hand, $x^3$ at 2 with $h = 0.1$: $(9.261 - 6.859)/0.2 = 12.01$. The
# truth is 12, the error $h^2$. So take a tiny $h$? Each $f$ is rounded by about $\varepsilon|f|$, and that is divided
# by $2h$. The two errors meet near $\varepsilon^{1/3}$; $\varepsilon = 2.2\cdot10^{-16}$ in float64. Which $h$ is best?

# %%
lesson.step("Finite differences")
points = mt.Generator(3).normal(200, dtype=np.float64)
steps = 10.0 ** np.arange(-14, 0.1, 0.5)


def errors_of_steps(dtype):
    """For each step the mean error of tanh's difference quotient over the points, relative to the mean derivative."""
    x = mt.tensor(points, requires_grad=True)
    x.tanh().backward(np.ones(200))
    errors = []
    for h in steps:
        above, below = (mt.tensor((points + side).astype(dtype)).tanh().data for side in (h, -h))
        errors.append(np.abs((above - below).astype(np.float64) / (2 * h) - x.grad).mean() / x.grad.mean())
    return np.array(errors)


guess = lesson.predict("best step of a central difference in float64?", 1e-5)
curves = {"float32": errors_of_steps(np.float32), "float64": errors_of_steps(np.float64)}
guess.see(steps[curves["float64"].argmin()], allowed=(1e-7, 1e-4))
assert curves["float32"].min() > 1e5 * curves["float64"].min()
lines(steps, curves, xlabel="step h", ylabel="relative error of the derivative", logx=True, logy=True, markers=True,
      title="Too large a step is inexact, too small a one is noise", path=lesson.figure("step_size"))  # fmt: skip

# %% [markdown]
# At its best step float32 gives some five digits, float64 eleven. So checks run in **float64**, and every op has it.
#
# ### Which cotangent? The `.sum()` trap
#
# The obvious choice, `f(x).sum()`, is the cotangent of ones, and it is blind: the outputs of a softmax always sum to 1,
# so the true gradient is 0, and a backward that returns zeros passes. A cotangent picks the combination that you look
# at of the rows of the Jacobian, $y_i(\delta_{ij} - y_j)$:

# %%
logits = np.array([1.0, 0.5, 0.0, -0.5, 0.75])
copies = mt.tensor(np.tile(logits, (5, 1)), requires_grad=True)  # (5, 5): five times the same softmax
mt.softmax(copies).backward(np.eye(5))  # each with another unit cotangent, which picks one row of the Jacobian
jacobian = copies.grad  # (5, 5)
assert np.abs(np.ones(5) @ jacobian).max() < 1e-15  # what .sum() sees: nothing
path = lesson.figure("softmax_jacobian")
figure = heatmap(jacobian, title="The Jacobian of a softmax: each column sums to 0", normalised=False, label="∂y / ∂x")
figure.axes[0].set(xlabel="input j", ylabel="output i")
save(figure, path)

# %% [markdown]
# ## 6. Break it: three planted bugs, two ways to check
#
# One backward returns zeros. One has the derivative right and forgets the cotangent. One has a wrong factor.


# %%
class Zeros(mt.ops.softmax.Softmax, abstract=True):  # abstract: not entered among the engine's ops
    def backward(self, dy):
        return 0 * dy


class NoCotangent(mt.ops.activation.Tanh, abstract=True):
    def backward(self, dy):
        return 1 - self.saved[0] ** 2


class WrongFactor(mt.ops.activation.Tanh, abstract=True):
    def backward(self, dy):
        return dy * (1 - self.saved[0])


def passes(op, cotangent, h=1e-6):
    x = mt.tensor(logits, requires_grad=True)
    op.apply(x).backward(cotangent)
    sides = [[op.apply(mt.tensor(x.data + sign * e)).data @ cotangent for sign in (1, -1)] for e in h * np.eye(5)]
    return np.allclose(x.grad, [(above - below) / (2 * h) for above, below in sides], atol=1e-8)


lesson.step("Break it: three planted bugs")
planted, ones, arbitrary = (Zeros, NoCotangent, WrongFactor), np.ones(5), random.normal(5, dtype=np.float64)
for op in (mt.ops.softmax.Softmax, mt.ops.activation.Tanh, *planted):
    by_sum, by_random = passes(op, ones), passes(op, arbitrary)
    lesson.say(f"  {op.__name__:12} passes with .sum(): {by_sum!s:6} passes with a random cotangent: {by_random}")
    assert by_random == (op not in planted) and by_sum == (op is not WrongFactor)
print(mt.gradcheck(NoCotangent.apply, points[:3], raise_on_failure=False))
print(mt.gradcheck(lambda x: mt.softmax(x).sum(), points[:3], raise_on_failure=False))

# %% [markdown]
# `mt.gradcheck` draws the cotangent at random, and *refuses* a derivative that is zero everywhere: agreement on nothing
# proves nothing.
#
# | symptom | cause | the test that catches it |
# | --- | --- | --- |
# | right for `b * a`, wrong for `a * b` | a node was handled before all had arrived | a diamond, written both ways |
# | $dx$ of $x\cdot x$ is $x$ | `=` for `+=` | one value used twice by one op |
# | loss swings, a lower rate slows it | `zero_grad` forgotten | two equal steps give equal gradients |
# | passes alone, trains badly | the cotangent was ignored | a random cotangent |
#
# ## 7. What the engine adds: memory, edits, depth
#
# An op keeps what its backward needs until that has run: tanh its output, for $1 - y^2$, addition nothing. How much do
# ten tanh's on 1 MiB hold when forward is done? What if somebody edits a kept array meanwhile? And how long a chain
# does a recursive backward survive, which takes a Python frame for each node?


# %%
def held(op):
    """MiB that ten ops on 1 MiB leave behind after forward."""
    tracemalloc.start()
    y = mt.tensor(np.ones(2**18, dtype=np.float32), requires_grad=True)
    for _ in range(10):
        y = op(y)
    mebibytes = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return mebibytes


def refused(y):
    try:
        y.backward(np.ones(2))
    except RuntimeError as error:
        return lesson.say(f"  RuntimeError: {error}")
    raise AssertionError("the engine let a wrong gradient through")


lesson.step("Memory, edits, depth")
guess = lesson.predict("MiB held after ten tanh's on 1 MiB, the input included?", 11, "MiB")
guess.see(held(mt.tanh), allowed=(10.9, 11.2))
assert held(lambda y: y + 1.0) < 2.2  # the input and the last result
y = mt.tensor([1.0, 2.0], requires_grad=True).tanh()
y.detach().mul_(2.0)  # the same memory: 1 - y² would be silently wrong, but memory counts its edits
refused(y)
y = mt.tensor([1.0, 2.0], requires_grad=True).tanh()
y.backward(np.ones(2))
refused(y)  # what it saved is gone

limit = sys.getrecursionlimit()
guess = lesson.predict("longest chain that recursion survives?", limit, "ops")
chain = [Value(1.0)]
for _ in range(2 * limit):
    chain.append(chain[-1].tanh())
try:
    path_by_path(chain[-1])
except RecursionError as error:
    lesson.say(f"  RecursionError: {error}")
guess.see(sum(node.grad != 0 for node in chain), allowed=(limit // 2, limit))
x = y = mt.tensor(0.0, requires_grad=True)
for _ in range(20 * limit):
    y = y + 1.0
y.backward()
assert x.grad == 1 and y.item() == 20 * limit
lesson.say(f"The engine, whose heap is no stack, walked back through {20 * limit:,} ops.")

# %% [markdown]
# ## 8. The claim, and what we saw
#
# Near zero means vanishing, says D2 §3.1. Sigmoids do vanish: a slope of at most 1/4, and $(1/4)^{20} < 10^{-12}$.

# %%
lesson.step("The claim: a gradient norm near zero")
norms = {}
for name, function, at in (
    ("20 sigmoids", lambda x: functools.reduce(lambda h, _: mt.sigmoid(h), range(20), x).sum(), points),
    ("a minimum", lambda w: (w - 3) ** 2, 3.0),
    ("a symmetry, softmax summed", lambda x: mt.softmax(x).sum(), points),
    ("a bug, backward of zeros", lambda x: (Zeros.apply(x) * points).sum(), points),
):
    x = mt.tensor(at, dtype="float64", requires_grad=True)
    function(x).backward()
    norms[name] = float(np.linalg.norm(x.grad))
    lesson.say(f"  {name:27} |gradient| = {norms[name]:.0e}")
assert max(norms.values()) < 1e-10
lesson.claim(
    "D2 §3.1: a gradient norm near zero tells vanishing gradients",
    measured=f"20 sigmoids go to {norms['20 sigmoids']:.0e}; so do a minimum, a symmetry and a bug",
    setup="float64, 200 inputs",
    verdict="partly",
)
lesson.say("A good alarm and no diagnosis: look at the norm of each layer, and at the loss beside it.")
lesson.finish()

# %% [markdown]
# ## Questions learners ask
#
# * **Why not forward mode, which keeps no graph?** It carries one direction at a time: a million parameters, a million
#   passes. Reverse mode takes one pass per *output*, and a loss has one.
# * **What does a backward cost?** For $y = xW$ two products, $dx = dy\,W^\top$ and $dW = x^\top dy$, of forward's size.
#   So a step costs three forwards, $6ND$ operations for $N$ weights and $D$ tokens (a multiplication and an addition
#   each), however large $N$ is. Finite differences cost two forwards *for each weight*.
# * **Why does `backward()` of a matrix ask for a cotangent?** It computes the row $dy^\top J$, never the Jacobian $J$:
#   say which combination you mean.
# * **Where do broadcasts go?** A bias $(M,)$ added to $(N, M)$ is one value used $N$ times: its gradient is a sum over
#   rows. `ElementWise` in `function.py` does that in one place.
#
# ## Exercises
#
# 1. `divide(a: Value, b: Value) -> Value` for the micro-engine, equal to `mt.div`.
#    <details><summary>Hint</summary>With $y = a/b$ at hand, $db = -da\,y$.</details>
# 2. `kahn(y: Value) -> list[Value]`: the order without creation numbers, by counting the readers a node waits for.
#    <details><summary>Hint</summary>Count all edges first. A node is ready when its count is 0.</details>
# 3. `class Softplus(mt.ElementWise)`, $y = \ln(1 + e^x)$, right at $x = \pm 1000$ too, passing `mt.gradcheck`.
#    <details><summary>Hint</summary>$\max(x, 0) + \ln(1 + e^{-|x|})$, and the derivative is the sigmoid.</details>
# 4. `multiplications(fn, *args) -> int`: of all products that fn runs; show that backward : forward is 2 for $xW$.
#    <details><summary>Hint</summary>`mt.kernels.explain(fn, *args)` lists each kernel call with its shapes.</details>
#
# ## Quiz
#
# 1. A node may pass its gradient on when **(a)** all readers that lead to the loss have sent theirs, **(b)** the first
#    reader has, **(c)** its parents ask. — (a). (b) gives the 48 above. (c): parents only receive.
# 2. A weight used at every time step gets the gradient **(a)** of the last use, **(b)** the mean, **(c)** the sum over
#    uses. — (c). (a) is what `=` for `+=` computes. (b) arises only if the loss itself is a mean.
# 3. A layer norm of weight 1 passes a check with `.sum()`. You know **(a)** that it is right, **(b)** almost nothing,
#    **(c)** that the step is wrong. — (b): its rows always sum to 0. (a) takes a random cotangent. (c): no step helps.
# 4. Gradient checks use float64 because **(a)** it is faster, **(b)** kernels lack float32, **(c)** rounding leaves
#    float32 five digits at best. — (c), see the figure. (a): it is slower. (b): training runs in float32.

# %% [markdown] exercise="01.1"
# ### Exercise 01.1: `divide`
#
# An op for the micro-engine: y = a / b for two arrays of one shape. It knows what goes back to each of its two parents
# when the cotangent dy of y arrives.
#
# ```python
# import numpy as np
#
#
# class Value:
#     """Given, as in the lesson: an array, what it was made from, and how its cotangent is pulled back."""
#
#     def __init__(self, data, parents=(), pull=lambda dy: ()):
#         self.data = np.asarray(data, dtype=np.float64)
#         self.parents, self.pull = parents, pull
#
#
# def divide(a, b):
#     """Values a, b of one shape -> Value y = a / b with parents (a, b); pull(dy) returns (da, db)."""
#     raise NotImplementedError("return Value(data, (a, b), pull), where pull maps dy to (da, db)")
# ```
#
# <details><summary>Hint 1</summary>y = a · (1/b). How much does y change when a does, and how much when b
# does?</details>
# <details><summary>Hint 2</summary>∂y/∂a = 1/b and ∂y/∂b = -a/b². Each is multiplied by dy, entry by entry.</details>
# <details><summary>Hint 3</summary>With y at hand db = -da · y, so one division is enough: da = dy / b.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def divide(a, b):
#     y = a.data / b.data
#
#     def pull(dy):
#         da = dy / b.data
#         return da, -da * y
#
#     return Value(y, (a, b), pull)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the sign of db: `-da * y` → `da * y`
# * the cotangent forgotten: `da = dy / b.data` → `da = 1 / b.data`
# * a/b for a/b²: `-da * y` → `-dy * y`
# * only one parent: `(a, b), pull` → `(a,), pull`
# * parents swapped: `(a, b), pull` → `(b, a), pull`
#
# </details>

# %% [markdown] exercise="01.2"
# ### Exercise 01.2: `kahn`
#
# The order of the walk back without numbers of creation. A value may pass its gradient on when every value that reads
# it, and that leads to y, has sent its own. So count the readers first, then start at y. No recursion: a chain may be
# longer than Python's stack.
#
# ```python
# def kahn(y):
#     """Value y -> list of every Value that leads to y, each once: y first, each before its `parents`."""
#     raise NotImplementedError("count the readers of every value; a value is ready when its count is 0")
# ```
#
# <details><summary>Hint 1</summary>Two walks. The first finds every value and counts how often it is read.</details>
# <details><summary>Hint 2</summary>x · x reads x twice. Count it twice, and take it off twice.</details>
# <details><summary>Hint 3</summary>A list of ready values begins as [y]. Take one, put it out, lower the count of
# each of its parents, and whoever comes to 0 is ready too.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def kahn(y):
#     readers, waiting = {y: 0}, [y]
#     while waiting:
#         for parent in waiting.pop().parents:
#             if parent not in readers:
#                 readers[parent] = 0
#                 waiting.append(parent)
#             readers[parent] += 1
#     order, ready = [], [y]
#     while ready:
#         node = ready.pop()
#         order.append(node)
#         for parent in node.parents:
#             readers[parent] -= 1
#             if readers[parent] == 0:
#                 ready.append(parent)
#     return order
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * ready at the first reader: `if readers[parent] == 0:` → `if parent not in order and parent not in ready:`
# * a value that is read twice counts once: `for parent in node.parents:` → `for parent in set(node.parents):`
# * every path is walked, not every edge: `if parent not in readers:` → `if readers.setdefault(parent, 0) >= 0:`
# * the order reversed: `return order` → `return order[::-1]`
#
# </details>

# %% [markdown] exercise="01.3"
# ### Exercise 01.3: `unbroadcast`
#
# NumPy stretches (3,) to (2, 3) to add it to a matrix. Then dy has the shape of the result, and the gradient must
# have the shape of the input: every copy's share, added up.
#
# ```python
# import numpy as np
#
#
# def unbroadcast(dy, shape):
#     """dy, of a shape that `shape` broadcasts to -> dx of that shape: sums over what broadcasting repeated."""
#     raise NotImplementedError("sum away the axes that were added in front, then those that were stretched from 1")
# ```
#
# <details><summary>Hint 1</summary>Broadcasting copies. A value that is used several times gets the sum of what its
# uses send.</details>
# <details><summary>Hint 2</summary>Shapes are lined up at the right: dy.ndim - len(shape) axes were added in
# front.</details>
# <details><summary>Hint 3</summary>`dy.sum(axis=...)` over the added axes; then, for each axis of length 1 in
# `shape`, a sum with `keepdims=True`.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# def unbroadcast(dy, shape):
#     added = dy.ndim - len(shape)
#     dx = np.asarray(dy.sum(axis=tuple(range(added))))
#     stretched = tuple([axis for axis, n in enumerate(shape) if n == 1])
#     return dx.sum(axis=stretched, keepdims=True)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * the mean of the copies: `keepdims=True)` → `keepdims=True) / max(1, dy.size // max(1, dx.size))`
# * stretched axes vanish: `, keepdims=True` → `, keepdims=False`
# * only added axes: `return dx.sum(axis=stretched, keepdims=True)` → `return dx`
# * the last axes for the first: `tuple(range(added))` → `tuple(range(len(shape), dy.ndim))`
# * the first copy's share alone: `dx = np.asarray(dy.sum(axis=tuple(range(added))))` →
#   `dx = np.asarray(dy[(0,) * added])`
#
# </details>

# %% [markdown] exercise="01.4"
# ### Exercise 01.4: `Softplus`
#
# Now an op for the real engine: y = ln(1 + eˣ), whose slope is the sigmoid. It must be right at x = ±1000 too, where
# eˣ overflows or vanishes, and keep float32. `save` keeps arrays for backward, `self.saved` returns them as a tuple.
#
# ```python
# import numpy as np
#
# import minitransformer as mt
#
#
# class Softplus(mt.ElementWise, abstract=True):  # abstract: not entered among the engine's own ops
#     """y = ln(1 + exp x),   dx = dy / (1 + exp(-x))"""
#
#     def forward(self, x):
#         """Array x, any shape -> array y alike."""
#         raise NotImplementedError("forward: ln(1 + exp x), without overflow; self.save what backward needs")
#
#     def backward(self, dy):
#         """Array dy -> array dx, alike."""
#         raise NotImplementedError("backward: dy times the sigmoid of x, without overflow")
# ```
#
# <details><summary>Hint 1</summary>For large x the 1 is lost, so y = x. For x < 0 the exponential is harmless. Join
# the two.</details>
# <details><summary>Hint 2</summary>y = max(x, 0) + ln(1 + exp(-|x|)): the exponent is never positive. `np.log1p`
# keeps small ones.</details>
# <details><summary>Hint 3</summary>The sigmoid is exp(x - y), because eʸ = 1 + eˣ; and x - y is never
# positive.</details>
#
# <details><summary>Solution</summary>
#
# ```python
# class Softplus(mt.ElementWise, abstract=True):
#     def forward(self, x):
#         y = np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))
#         self.save(x, y)
#         return y
#
#     def backward(self, dy):
#         x, y = self.saved
#         return dy * np.exp(x - y)
# ```
#
# </details>
# <details><summary>Mistakes that the check must find</summary>
#
# * overflow: `np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))` → `np.log1p(np.exp(x))`
# * small ones rounded away: `np.log1p(np.exp(-abs(x)))` → `np.log(1 + np.exp(-abs(x)))`
# * the cotangent forgotten: `return dy * np.exp(x - y)` → `return np.exp(x - y)`
# * the other sigmoid: `return dy * np.exp(x - y)` → `return dy * np.exp(-y)`
# * a wider dtype: `np.maximum(x, 0)` → `np.maximum(x, np.zeros(1))`
#
# </details>
