"""Attention in few bytes: square-root 8-bit codes, whole or as the k largest weights of each row, deflated.

    code = round(255 √(p / scale)),   p̂ = (code / 255)² · s,   s = (1 - dropped) / Σ_j (code_j / 255)²

The square root spends the 256 codes where probabilities crowd: rounding costs at most √p/255 + 1/510², so a weight of
0.001 keeps 12 % accuracy where a linear byte would lose it. s, worked out by the page, makes each row sum to one again.
Arrays that are no probabilities (`normalised=False`) are divided by their largest value and not rescaled. The packers
measure the error that all this makes.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy as np

THUMBNAIL = 48  # the longest side of an overview picture, in cells
MASKED = 255  # in thumbnails only
DENSE_KEYS = 512  # longer rows are stored as their largest weights
FEWEST = 8  # of these, at least


@dataclass(frozen=True)
class Packed:
    """One layer's heads: deflated bytes, and what they lose."""

    data: bytes
    worst_error: float  # max |p̂ - p| over the weights that are kept
    dropped: float  # the largest mass that any row lost to top-k; 0 when dense


def codes_of(values, scale=1.0):
    """√-codes uint8 of nonnegative values; `scale` is the value of code 255."""
    return np.rint(255 * np.sqrt(np.clip(values / scale, 0, 1))).astype(np.uint8)


def decoded(codes, scale=1.0, row_sums=None):
    """What the page shows for codes (..., Tk): the inverse of `codes_of`, rescaled to `row_sums` (...) if given."""
    values = np.square(codes.astype(np.float64) / 255) * scale
    if row_sums is not None:
        sums = values.sum(axis=-1)
        values *= np.divide(row_sums, sums, out=np.ones_like(sums), where=sums > 0)[..., None]
    return values


def pack_dense(layer, scale, normalised):
    """Every weight of a layer (H, Tq, Tk), one byte each before deflating."""
    codes = codes_of(layer, scale)
    sums = np.ones(layer.shape[1]) if normalised else None
    error = max(float(np.abs(decoded(c, scale, sums) - head).max()) for c, head in zip(codes, layer, strict=True))
    return Packed(zlib.compress(codes.tobytes(), 6), error, 0.0)


def pack_topk(layer, k, scale, normalised):
    """The k largest weights of each row of a layer (H, Tq, Tk): head after head, four planes, each C-ordered:

    low bytes, then high bytes of the keys (Tq, k): ascending in a row, each but the first as difference to the last
    codes (Tq, k): 0 marks an unused place (its key difference is 0)
    codes of the dropped mass 1 - Σ p_kept (Tq,); 0 when not `normalised`
    """
    heads = [_topk_head(head, min(k, layer.shape[-1]), scale, normalised) for head in layer]
    planes, errors, dropped = zip(*heads, strict=True)
    return Packed(zlib.compress(b"".join(planes), 6), max(errors), max(dropped))


def _topk_head(head, k, scale, normalised):
    keys = head.shape[-1]
    best = np.argpartition(head, keys - k, axis=-1)[:, keys - k :]
    codes = codes_of(np.take_along_axis(head, best, axis=-1), scale)
    best = np.where(codes > 0, best, keys)  # unused places sort to the end
    order = np.argsort(best, axis=-1, kind="stable")
    best, codes = np.take_along_axis(best, order, axis=-1), np.take_along_axis(codes, order, axis=-1)
    used = codes > 0
    kept = np.where(used, np.take_along_axis(head, np.minimum(best, keys - 1), axis=-1), 0.0)
    dropped = np.clip(1 - kept.sum(axis=-1, dtype=np.float64), 0, 1) if normalised else np.zeros(len(head))
    dropped_codes = codes_of(dropped)
    best = np.where(used, best, np.max(np.where(used, best, 0), axis=-1, keepdims=True))
    steps = np.diff(best, axis=-1, prepend=0).astype(np.uint16)
    row_sums = 1 - decoded(dropped_codes) if normalised else None
    shown = decoded(codes, scale, row_sums)
    planes = [(steps & 255).astype(np.uint8), (steps >> 8).astype(np.uint8), codes, dropped_codes]
    error = np.abs(np.where(used, shown - kept, 0)).max()
    return b"".join(plane.tobytes() for plane in planes), float(error), float(dropped.max())


@dataclass(frozen=True)
class Encoder:
    """One way to store layers: every weight (k None), or the k largest of each row."""

    k: int | None

    @property
    def name(self):
        codes = "8-bit square roots"
        return codes if self.k is None else f"the {self.k} largest weights of each row as {codes}"

    def pack(self, layer, scale, normalised):
        if self.k is None:
            return pack_dense(layer, scale, normalised)
        return pack_topk(layer, self.k, scale, normalised)


def choose(sources, keys, top_k, room):
    """The first encoder whose text fits into `room` bytes: dense, then top_k, halved and halved; judged by two heads
    of each source.

    Rows of more than DENSE_KEYS are never dense. Raises ValueError for top_k < 1.
    """
    if top_k < 1:
        raise ValueError(f"explore: top_k must be at least 1, got {top_k}")

    def size(encoder):
        total = 0.0
        for source in sources:
            sample, heads = source.layers[-1][:2], sum(len(layer) for layer in source.layers)
            total += len(encoder.pack(sample, source.scale, source.normalised).data) * heads / len(sample)
        return total * 4 / 3  # base64

    ladder = [None] if keys <= DENSE_KEYS else []
    while not ladder or ladder[-1] is None or ladder[-1] >= 2 * FEWEST:
        ladder.append(min(top_k, keys) if not ladder or ladder[-1] is None else ladder[-1] // 2)
    return next((Encoder(k) for k in ladder if size(Encoder(k)) < 0.97 * room), Encoder(ladder[-1]))


def thumbnails(layer, scale, visible):
    """The heads of a layer as small pictures: the largest code of each block, MASKED where no cell is visible."""
    _, queries, keys = layer.shape
    rows, columns = -(-queries // THUMBNAIL), -(-keys // THUMBNAIL)
    pooled = codes_of(_block_max(layer, rows, columns), scale)
    seen = _block_max(visible[None], rows, columns)
    return np.where(seen, np.minimum(pooled, MASKED - 1), MASKED).astype(np.uint8)


def _block_max(array, rows, columns):
    """Maximum over blocks of rows × columns cells of the last two axes; the last blocks may be smaller."""
    array = np.maximum.reduceat(array, np.arange(0, array.shape[-2], rows), axis=-2)
    return np.maximum.reduceat(array, np.arange(0, array.shape[-1], columns), axis=-1)


def text_of(data, deflate=True):
    """Bytes as base64 text for the page, deflated unless they are already."""
    return base64.b64encode(zlib.compress(data, 6) if deflate else data).decode("ascii")
