"""Keys and values in pages: what lies where, and how a gradient finds its way back.

Rows of different lengths are lined up at their ends: token j of row b gets the place j + L - lengths[b] of L, the
longest length. The last token of every row then stands at the same place, so one offset serves all queries.
"""

import numpy as np


def places(table, lengths, page):
    """(pages, slots, filled), each (B, L): where the tokens lie, and which of the L places hold one."""
    table, lengths = table.astype(np.int64), lengths.astype(np.int64)
    L = int(lengths.max(initial=0))
    token = np.arange(L, like=lengths) - (L - lengths[:, None])
    filled = token >= 0
    token = np.where(filled, token, 0)
    pages = np.take_along_axis(table, token // page, 1) if L else np.zeros_like(token)
    return np.where(filled, pages, 0), token % page, filled


def gather(pool, pages, slots):
    """The rows of a pool (P, G, n, d) at these places: (B, G, L, d)."""
    return pool[pages, :, slots].transpose(0, 2, 1, 3)


def scatter_add(rows, pool, pages, slots, filled):
    """Zeros like the pool, to which rows (B, G, L, d) are added where they were gathered: pages may be shared."""
    found = np.zeros(pool.shape, rows.dtype, like=rows)
    np.add.at(found, (pages[filled], slice(None), slots[filled]), rows.transpose(0, 2, 1, 3)[filled])
    return found


def spans(filled, queries):
    """What the queries of `attention_forward` may see of the places: (B, Tq, 2)."""
    B, L = filled.shape
    found = np.empty((B, queries, 2), np.int64, like=filled)
    found[..., 0], found[..., 1] = (~filled).sum(1)[:, None], L
    return found
