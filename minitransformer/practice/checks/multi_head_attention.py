"""Lesson 03: heads as a view and back; what a head is worth, by one backward; greedy pruning."""

import contextlib

import numpy as np

from ...models.gpt import GPT, GPTConfig
from ...random import Generator
from ...tensor import tensor
from . import Wrong, arrays, check, cost, equal, shown

# B, T, D, H
SHAPES = [(1, 1, 2, 1), (1, 2, 4, 2), (1, 3, 4, 4), (2, 5, 6, 3), (2, 3, 8, 1), (0, 2, 4, 2), (3, 1, 12, 4)]


def _heads(x, H):
    """(B, T, D) -> (B, H, T, d), channel by channel."""
    B, T, D = x.shape
    out = np.empty((B, H, T, D // H), x.dtype)
    for channel in range(D):
        out[:, channel * H // D, :, channel % (D // H)] = x[:, :, channel]
    return out


@check("03.1", "two tokens, two heads, on paper")
def _(split_heads):
    x = np.arange(8.0).reshape(1, 2, 4)
    equal("heads", split_heads(x, 2), np.array([[[[0.0, 1], [4, 5]], [[2, 3], [6, 7]]]]), {"x": x, "heads": 2})


@check("03.1", "batches, one head, as many heads as channels, an empty batch")
def _(split_heads):
    for B, T, D, H in SHAPES:
        x = np.arange(float(B * T * D)).reshape(B, T, D)
        equal("heads", split_heads(x, H), _heads(x, H), {"x": x, "heads": H}, exact=True)


@check("03.1", "nothing is copied: writing into x is seen in the heads")
def _(split_heads):
    x = np.zeros((2, 3, 4), np.float32)
    heads = split_heads(x, 2)
    if not np.shares_memory(heads, x):
        raise Wrong("the heads do not share memory with x: somewhere they were copied")
    x[1, 2, 3] = 7
    equal("heads[1, 1, 2]", heads[1, 1, 2], np.array([0, 7], np.float32))


@check("03.1", "a packed qkv, which is not contiguous, is not copied either")
def _(split_heads):
    packed = np.arange(2 * 3 * 12.0).reshape(2, 3, 12)
    k = packed[:, :, 4:8]
    equal("heads", split_heads(k, 2), _heads(k, 2), {"x": k, "heads": 2}, exact=True)
    if not np.shares_memory(split_heads(k, 2), packed):
        raise Wrong("x was a slice of a larger array, and was copied")


@cost("03.1", "(8, 256, 512), 8 heads, float32", naive=_heads)
def _():
    return (arrays(0, (8, 256, 512), dtype=np.float32)[0], 8), {}


@check("03.2", "two heads, two tokens, on paper")
def _(merge_heads):
    o = np.array([[[[0.0, 1], [4, 5]], [[2, 3], [6, 7]]]])
    equal("y", merge_heads(o), np.arange(8.0).reshape(1, 2, 4), {"o": o})


@check("03.2", "the inverse of splitting, for every shape")
def _(merge_heads):
    for B, T, D, H in SHAPES:
        x = np.arange(float(B * T * D)).reshape(B, T, D)
        equal("y", merge_heads(_heads(x, H)), x, {"o": _heads(x, H)}, exact=True)


@check("03.2", "outputs of a kernel and views of activations alike; float32 stays float32")
def _(merge_heads):
    for contiguous in (True, False):
        x = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
        o = x.reshape(1, 4, 3, 2).transpose(0, 2, 1, 3)
        equal("y", merge_heads(o.copy() if contiguous else o), x, {"o": o}, exact=True)


@cost("03.2", "(8, 8, 256, 64), float32")
def _():
    return arrays(0, (8, 8, 256, 64), dtype=np.float32), {}


# ---------------------------------------------------------------- 03.3 head_importance


def small_model(seed, layers=2, heads=2):
    """A small GPT in float64 whose attention is loud enough to matter, and a batch for it."""
    model = GPT(GPTConfig(vocab_size=7, context=6, layers=layers, heads=heads, width=4 * heads), Generator(seed))
    model = model.to("float64")
    for _, parameter in model.named_parameters():
        parameter.data *= 10
    ids = np.random.default_rng(seed).integers(0, 7, (3, 7))
    return model, ids[:, :-1], ids[:, 1:]


def _importance(model, ids, targets, h=1e-5):
    """-∂loss/∂m by central differences."""
    L, H = model.config.layers, model.config.heads
    found = np.empty((L, H))
    for layer, head in np.ndindex(L, H):
        attention, losses = model.blocks[layer].attention, []
        for sign in (1, -1):
            attention.head_mask = tensor(np.ones(H) + sign * h * np.eye(H)[head])
            losses.append(model.loss(ids, targets).item())
        attention.head_mask = None
        found[layer, head] = -(losses[0] - losses[1]) / (2 * h)
    return found


def _compare_importance(head_importance, *model):
    right, got = _importance(*model), head_importance(*model)
    if not isinstance(got, np.ndarray) or got.shape != right.shape:
        equal("importance", got, right)
    equal("importance", np.asarray(got, np.float64), right, condition=1e7)  # what central differences can tell


@check("03.3", "one layer, two heads, beside finite differences")
def _(head_importance):
    _compare_importance(head_importance, *small_model(0, layers=1))


@check("03.3", "three layers, three heads")
def _(head_importance):
    _compare_importance(head_importance, *small_model(1, layers=3, heads=3))


@check("03.3", "asked twice it says the same")
def _(head_importance):
    model = small_model(2)
    equal("the second answer", head_importance(*model), head_importance(*model).copy(), exact=True)


@check("03.3", "the model is left as it was: masks and loss")
def _(head_importance):
    model, ids, targets = small_model(3)
    kept = model.blocks[1].attention.head_mask = tensor(np.array([1.0, 0.5]))
    loss = model.loss(ids, targets).item()
    head_importance(model, ids, targets)
    if model.blocks[0].attention.head_mask is not None or model.blocks[1].attention.head_mask is not kept:
        raise Wrong("head_mask of a block is not what it was before: put back what you replaced")
    equal("the loss afterwards", model.loss(ids, targets).item(), np.float64(loss), exact=True)


# ---------------------------------------------------------------- 03.4 greedy_prune


class Heads:
    """Stands in for a GPT: its loss is a function of the set of heads that are off."""

    def __init__(self, layers, heads, damage):
        self.config = GPTConfig(vocab_size=2, layers=layers, heads=heads, width=heads)
        self.off, self.damage = frozenset(), damage

    @contextlib.contextmanager
    def without_heads(self, heads):
        before, self.off = self.off, self.off | {tuple(map(int, head)) for head in heads}
        try:
            yield self
        finally:
            self.off = before


def _loss(model):
    return model.damage(model.off)


def _pruned(greedy_prune, layers, heads, damage, count, expected):
    got = greedy_prune(Heads(layers, heads, damage), _loss, count)
    plain = [tuple(map(int, head)) for head in got] if isinstance(got, (list, tuple)) else got
    if plain != expected:
        raise Wrong(f"removed, in order: {shown(plain)}, expected {shown(expected)}\n"
                    f"{layers} layers of {heads} heads, count = {count}")  # fmt: skip


@check("03.4", "heads that do not know of each other: the harmless first")
def _(greedy_prune):
    harm = {(0, 0): 3.0, (0, 1): 1.0, (1, 0): 2.0, (1, 1): -0.5}
    damage = lambda off: 1 + sum(harm[head] for head in off)  # noqa: E731
    for count in range(5):
        _pruned(greedy_prune, 2, 2, damage, count, [(1, 1), (0, 1), (1, 0), (0, 0)][:count])


@check("03.4", "heads that stand in for each other: measure again after each")
def _(greedy_prune):
    def damage(off):  # (0, 0) and (0, 1) do the same: either may go, not both
        return 0.1 * ((0, 0) in off) + 0.2 * ((0, 1) in off) + 5 * ({(0, 0), (0, 1)} <= off) + 0.5 * ((0, 2) in off)

    _pruned(greedy_prune, 1, 3, damage, 2, [(0, 0), (0, 2)])
    _pruned(greedy_prune, 1, 3, damage, 3, [(0, 0), (0, 2), (0, 1)])


@check("03.4", "a GPT: as brute force, and left as it was")
def _(greedy_prune):
    model, ids, targets = small_model(5)

    def loss(model):
        return model.loss(ids, targets).item()

    whole, off = loss(model), []
    while len(off) < 3:
        tries = {}
        for head in np.ndindex(2, 2):
            if head not in off:
                with model.without_heads([*off, head]):
                    tries[head] = loss(model)
        off.append(min(tries, key=tries.get))
    got = [tuple(map(int, head)) for head in greedy_prune(model, loss, 3)]
    if got != off:
        raise Wrong(f"removed, in order: {got}, expected {off}")
    equal("the loss afterwards", loss(model), np.float64(whole), exact=True)
