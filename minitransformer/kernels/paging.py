"""Keys and values in pages: what lies where, and how a gradient finds its way back.

Rows of different lengths are lined up at their ends: token j of row b gets the place j + L - lengths[b] of L, the
longest length. The last token of every row then stands at the same place, so one offset serves all queries.

On a device nobody waits to see how long the longest is: L is what the tables have room for, and one place more, which
a length beyond that reaches. There is no page behind it, nor behind a number that is no page: its rows are NaN.
"""

import numpy

from .devices import device_of, xp


def places(table, lengths, page):
    """(pages, slots, filled), each (B, L): where the tokens lie (page -1: nowhere), and which places hold one."""
    np = xp(table)
    table, lengths = table.astype(np.int64), lengths.astype(np.int64)
    if device_of(lengths) == "cpu":
        L = int(lengths.max(initial=0))
    else:
        L = table.shape[1] * page + 1
        lengths = np.clip(lengths, 0, L)
    token = np.arange(L) - (L - lengths[:, None])
    filled = token >= 0
    token = np.where(filled, token, 0)
    table = np.concatenate([table, np.full((len(table), 1), -1, np.int64)], 1)
    return np.where(filled, np.take_along_axis(table, token // page, 1), -1), token % page, filled


def gather(pool, pages, slots):
    """The rows of a pool (P, G, n, d) at these places: (B, G, L, d). Where there is no page they may be anything."""
    if device_of(pool) != "cpu":
        np, P = xp(pool), len(pool)
        pool = np.concatenate([pool, np.full((1, *pool.shape[1:]), numpy.nan, pool.dtype)])
        pages = np.where(_there(pages, P), pages, P)
    return pool[pages, :, slots].transpose(0, 2, 1, 3)


def scatter_add(rows, pool, pages, slots):
    """Zeros like the pool, to which rows (B, G, L, d) are added where they were gathered: pages may be shared."""
    np, P = xp(rows), len(pool)
    found = np.zeros((P + 1, *pool.shape[1:]), rows.dtype)  # the last page takes what belongs to none
    np.add.at(found, (np.where(_there(pages, P), pages, P), slice(None), slots), rows.transpose(0, 2, 1, 3))
    return found[:P]


def _there(pages, P):
    return (pages >= 0) & (pages < P)


def spans(filled, queries):
    """What the queries of `attention_forward` may see of the places: (B, Tq, 2)."""
    B, L = filled.shape
    np = xp(filled)
    found = np.empty((B, queries, 2), np.int64)
    found[..., 0], found[..., 1] = (~filled).sum(1)[:, None], L
    return found
