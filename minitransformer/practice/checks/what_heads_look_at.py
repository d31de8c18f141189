"""Lesson 05: two scores without a loop, sequences to copy, what one head owes to another."""

import numpy as np

from ...random import Generator
from . import Wrong, arrays, check, equal, frozen, shown
from .multi_head_attention import small_model


def _maps(seed, *shape):
    """Causal attention maps: rows sum to 1, nothing above the diagonal."""
    p = np.exp(arrays(seed, shape)[0]) * np.tri(shape[-1])
    return frozen(p / p.sum(-1, keepdims=True))


@check("05.1", "three tokens, on paper")
def _(previous_token_score):
    p = frozen(np.array([[1.0, 0, 0], [0.75, 0.25, 0], [0.125, 0.25, 0.625]]))
    equal("score", previous_token_score(p), np.float64(0.5), {"p": p})


@check("05.1", "a perfect head scores 1, one that looks at itself 0")
def _(previous_token_score):
    back = np.eye(6, k=-1)
    back[0, 0] = 1
    equal("score", previous_token_score(frozen(back)), np.float64(1), {"p": back})
    equal("score", previous_token_score(frozen(np.eye(6))), np.float64(0), {"p": np.eye(6)})


@check("05.1", "one map, a layer's heads, all layers of a batch")
def _(previous_token_score):
    for seed, shape in enumerate(((5, 5), (3, 4, 4), (2, 3, 2, 7, 7), (1, 2, 2))):
        p = _maps(seed, *shape)
        right = np.zeros(shape[:-2])
        for i in range(1, shape[-1]):
            right += p[..., i, i - 1] / (shape[-1] - 1)
        equal("score", previous_token_score(p), right, {"p": p}, terms=shape[-1])


def _induction(p, ids):
    sums = []
    for i in range(len(ids)):
        followers = [j for j in range(1, i) if ids[j - 1] == ids[i]]
        if followers:
            sums.append(sum(p[i, j] for j in followers))
    return np.float64(np.mean(sums))


def _score(induction_score, p, ids):
    equal("score", induction_score(p, ids), _induction(p, ids), {"p": p, "ids": ids}, terms=len(ids) ** 2)


@check("05.2", "a b a, on paper")
def _(induction_score):
    p = frozen(np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.125, 0.75, 0.125]]))
    _score(induction_score, p, frozen(np.array([0, 1, 0])))


@check("05.2", "a letter that came several times has several followers")
def _(induction_score):
    for seed, text in enumerate(("abab", "abcabcabc", "aabbaabb", "abcdeeedcba")):
        ids = frozen(np.array([ord(letter) - ord("a") for letter in text]))
        _score(induction_score, _maps(seed, len(ids), len(ids)), ids)


@check("05.2", "the same letter twice in a row: a token is not its own follower")
def _(induction_score):
    _score(induction_score, _maps(9, 4, 4), frozen(np.array([2, 2, 2, 1])))


@check("05.2", "50 random texts")
def _(induction_score):
    for seed in range(50):
        ids = np.random.default_rng(seed).integers(0, 4, 12)
        _score(induction_score, _maps(seed, 12, 12), frozen(ids))


# ---------------------------------------------------------------- 05.3 copies


def _copied(copies, count, length, seed=0):
    ids = copies(Generator(seed), count, length)
    if not isinstance(ids, np.ndarray) or ids.shape != (count, 2 * length) or ids.dtype.kind not in "iu":
        what = f"{ids.dtype} {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
        raise Wrong(f"copies(generator, {count}, {length}) must be integers of shape {(count, 2 * length)}, got {what}")
    return ids


@check("05.3", "shape, and letters in 0..47")
def _(copies):
    for count, length in ((1, 1), (3, 4), (5, 48), (0, 3)):
        ids = _copied(copies, count, length)
        if ids.size and (ids.min() < 0 or ids.max() > 47):
            raise Wrong(f"letters must lie in 0..47, got {ids.min()} to {ids.max()}")


@check("05.3", "the second half repeats the first, whose letters are all different")
def _(copies):
    for row in _copied(copies, 20, 6):
        first, second = row[:6], row[6:]
        if (first != second).any():
            raise Wrong(f"the second half must repeat the first, got {shown(row)}")
        if len(set(first.tolist())) < 6:
            raise Wrong(f"the letters of a half must all be different, got {shown(first)}")


@check("05.3", "all randomness comes from the generator")
def _(copies):
    generator = Generator(7)
    one, other, again = copies(generator, 4, 9), copies(generator, 4, 9), _copied(copies, 4, 9, seed=7)
    equal("ids with the same seed", again, np.asarray(one), exact=True)
    if (np.asarray(one) == np.asarray(other)).all() or (again == _copied(copies, 4, 9, seed=8)).all():
        raise Wrong("another call, and another seed, must give other letters")
    if (again[0] == again[1]).all():
        raise Wrong("the sequences of a batch must not all be the same")


@check("05.3", "every letter is as likely as any other, at every place")
def _(copies):
    for place, column in enumerate(_copied(copies, 4800, 3)[:, :3].T):
        counts = np.bincount(column, minlength=48)
        if counts.min() < 50 or counts.max() > 160:  # 100 expected, ±10: five of those
            at = int(np.abs(counts - 100).argmax())
            raise Wrong(f"at place {place} letter {at} came {counts[at]} times in 4,800 sequences, about 100 expected")


# ---------------------------------------------------------------- 05.4 path_patch


def _texts(seed, T=6):
    ids = np.random.default_rng(seed).integers(0, 3, (3, T))
    ids[:, -1] = ids[:, 0]  # so that every text has a follower
    return ids


def _lost(model, ids, writer, reader):
    scores = []
    for off in ([], [writer]):
        with model.without_heads(off), model.evaluating():
            maps = model(ids, capture_attention=True)[1][reader[0]][:, reader[1]]
        scores.append(np.mean([_induction(p, row) for p, row in zip(maps, ids)]))
    return np.float64(scores[0] - scores[1])


def _patched(path_patch, model, ids, writer, reader):
    equal("lost", path_patch(model, ids, writer, reader), _lost(model, ids, writer, reader),
          {"ids": ids, "writer": writer, "reader": reader}, condition=1e4)  # fmt: skip


@check("05.4", "two layers: each writer below, each reader above")
def _(path_patch):
    model, ids = small_model(0)[0], _texts(0)
    for writer in (0, 1):
        for reader in (0, 1):
            _patched(path_patch, model, ids, (0, writer), (1, reader))


@check("05.4", "a writer that is not below the reader changes nothing")
def _(path_patch):
    model, ids = small_model(1)[0], _texts(1)
    for writer, reader in (((1, 0), (0, 1)), ((0, 0), (0, 1)), ((1, 1), (1, 0))):
        got = path_patch(model, ids, writer, reader)
        equal("lost", got, np.float64(0), {"writer": writer, "reader": reader}, exact=True)


@check("05.4", "three layers, one text alone")
def _(path_patch):
    model, ids = small_model(2, layers=3)[0], _texts(3)[:1]
    _patched(path_patch, model, ids, (0, 1), (2, 0))
    _patched(path_patch, model, ids, (1, 0), (2, 1))


@check("05.4", "the model is left as it was")
def _(path_patch):
    (model, ids, targets), model_ids = small_model(3), _texts(4)
    before = model.loss(ids, targets).item()
    path_patch(model, model_ids, (0, 0), (1, 0))
    equal("the loss afterwards", model.loss(ids, targets).item(), np.float64(before), exact=True)
    if not model.training:
        raise Wrong("the model was left in evaluation mode")
