"""Attention: csrc/cuda/attention.cu, and attention_tensor_cores.cu for the forward pass in bfloat16."""

import functools

import ml_dtypes
import numpy as np

from ..contract import Unsupported
from ..devices import device, device_of
from .launch import elements, empty, kernel, packed, teams, wide

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WARPS = 4  # of a block; its tile has WARPS · 32 / itemsize rows


def attention_forward(q, k, v, **options):
    q, k, v = packed(q), packed(k), packed(v)
    return _forward(q, k, v, (None, None, *map(np.int32, (1, 0, 0))), _Options(q, k, v, **options))


def paged_attention_forward(q, keys, values, table, lengths, *, scale, window=None, slopes=None):
    q, keys, values = packed(q), packed(keys), packed(values)
    pages, slots = keys.shape[0], table.shape[1]
    sizes = map(np.int32, (keys.shape[2], pages, slots))
    places = packed(table.astype(np.int64)), packed(lengths.astype(np.int64)), *sizes
    # Each row's kernel sets its own Tk and offset, from its length.
    options = _Options(q, keys, values, scale=scale, causal=True, window=window, slopes=slopes, offset=0)
    return _forward(q, keys, values, places, options)


def _forward(q, k, v, places, options):
    B, H, Tq, _ = q.shape
    o, lse = empty(q, (*q.shape[:3], v.shape[3])), empty(q, q.shape[:3])
    if not lse.size:
        return o, lse
    width = tensor_core_width(q, o)
    arguments = q, k, v, o, lse, *places, *options.arguments
    if width:
        run = kernel("attention_tensor_cores", "attention_forward", q, f"bfloat16_{width}", _tensor_core_shared(width))
        run((B * H * -(-Tq // ROWS),), (32, 4), arguments)
    else:
        run = kernel("attention", "attention_forward", q, shared=_shared(q, v.shape[3]))
        run(_tiles(q, B * H, Tq), (32, WARPS), arguments)
    return o, lse


def attention_backward(do, q, k, v, o, lse, **options):
    do, q, k, v, o, lse = map(packed, (do, q, k, v, o, lse))
    options = _Options(q, k, v, **options).arguments
    dq, dk, dv = empty(q), empty(k), empty(v)
    B, H, Tq, d = q.shape
    G, Tk, width = v.shape[1:]
    delta = empty(q, q.shape[:3], wide(q))
    if delta.size:
        rows = delta.size, width
        kernel("attention", "attention_delta", q)(*teams(*rows), (do, o, delta, np.int64(rows[0]), np.int32(width)))
    if dq.size:
        run = kernel("attention", "attention_backward_queries", q, shared=_shared(q, d))
        run(_tiles(q, B * H, Tq), (32, WARPS), (do, q, k, v, lse, delta, dq, *options))
    if dk.size or dv.size:
        run = kernel("attention", "attention_backward_keys", q, shared=_shared(q, d + width))
        run(_tiles(q, B * G, Tk), (32, WARPS), (do, q, k, v, lse, delta, dk, dv, *options))
    return dq, dk, dv


def attention_probabilities(q, k, lse, *, heads=None, rows=None, **options):
    q, k, lse = packed(q), packed(k), packed(lse)
    heads, rows = (None if chosen is None else packed(chosen.astype(np.int64)) for chosen in (heads, rows))
    counts = [size if chosen is None else len(chosen) for chosen, size in zip((heads, rows), q.shape[1:3])]
    p = empty(q, (q.shape[0], *counts, k.shape[2]))
    if p.size:
        sizes = np.int64(p.size), *map(np.int32, counts)
        options = _Options(q, k, None, **options).arguments
        run = kernel("attention", "attention_probabilities", q)
        run(*elements(p.size), (q, k, lse, heads, rows, p, *sizes, *options))
    return p


class _Options:
    """What ATTENTION_PARAMETERS of csrc/cuda/attention.cuh are, in that order, from a routine's options."""

    def __init__(
        self, q, k, v, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None
    ):  # fmt: skip
        (_, H, Tq, d), (_, G, Tk, _) = q.shape, k.shape
        steps = (0, 0, 0, 0)
        if mask is not None:
            mask = packed(mask.reshape((1,) * (4 - mask.ndim) + mask.shape))
            steps = [0 if n == 1 else step // mask.itemsize for n, step in zip(mask.shape, mask.strides)]
        slopes, spans = None if slopes is None else packed(slopes), None if spans is None else packed(spans)
        offset = Tk - Tq if offset is None else offset
        spans_step = 0 if spans is None or len(spans) == 1 else 2 * Tq
        sizes = map(np.int32, (H, G, Tq, Tk, d, d if v is None else v.shape[3]))
        numbers = map(np.int64, (window or 0, offset, spans_step, *steps))
        self.arguments = (mask, slopes, spans, *sizes, wide(q).type(scale), np.int32(causal), *numbers)


def _tiles(q, matrices, rows):
    """The grid: one block for each tile of a matrix's rows."""
    tile = WARPS * 32 // wide(q).itemsize
    blocks = matrices * -(-rows // tile)
    if blocks >= 2**31:
        raise Unsupported(f"attention: {blocks} tiles of rows; a CUDA grid has at most 2**31 - 1 blocks")
    return (blocks,)


def _shared(q, width):
    """Bytes for the sums of a block's rows, `width` in all; the tiles beside them are static.

    Raises Unsupported where that is more than every GPU has.
    """
    size = WARPS * 32 * width
    if size > 80 << 10:
        raise Unsupported(f"attention: the sums of {width} columns do not fit into a block's shared memory")
    return size


# ---------------------------------------------------------------- tensor cores

ROWS = 64  # of a block of the tensor-core kernel, and keys of a tile


def tensor_core_width(q, o) -> int:
    """64, 128 or 256: the narrowest tensor-core kernel that takes these heads. 0 where the plain kernel has to: other
    dtypes, wider heads, and GPUs before sm_80."""
    widest = max(q.shape[3], o.shape[3])
    if q.dtype != BFLOAT16 or widest > 256 or compute_capability(device_of(q)) < 80:
        return 0
    return next(width for width in (64, 128, 256) if widest <= width)


@functools.cache
def compute_capability(place: str) -> int:
    """80 of sm_80. The emulator has whatever the sources ask for."""
    return int(device(place).arrays.cuda.Device().compute_capability) if place == "cuda" else 1000


def _tensor_core_shared(width):
    """Bytes of shared memory: a tile of queries and one of keys or values, the scores and their weights."""
    return 2 * ROWS * (width + 8) * 2 + ROWS * (ROWS + 4) * 4 + ROWS * (ROWS + 8) * 2
