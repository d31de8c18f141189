"""What every view asks of its input, said once: shapes, labels, finite values, rows that sum to one.

Each function returns the value in the form that the views use, or raises with one line that names the view, the axis
and the repair.
"""

from __future__ import annotations

import numpy as np

HEAD = ("query", "key")
GRID = ("layer", "head", "query", "key")


def attention_array(view, attention, axes, *, normalised=True):
    """`attention` as a float array with these axes -> float32 or float64, checked.

    With `normalised` each row is a probability distribution over keys: no negative value, Σ_key = 1 within 1e-3 (2e-2
    for 16-bit floats). Raises TypeError for what is not a real array and ValueError for anything else.
    """
    try:
        array = np.asarray(attention)
        if array.dtype.kind not in "fiubV":  # V: bfloat16
            raise TypeError
        low_precision = array.dtype.itemsize <= 2
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
    except (TypeError, ValueError):
        kind = type(attention).__name__
        raise TypeError(f"{view}: attention must be one real array with axes {_tuple(axes)}, got {kind}") from None
    if array.ndim > len(axes):
        extra = array.ndim - len(axes)
        leading = "a leading axis" if extra == 1 else f"{extra} leading axes"
        raise ValueError(
            f"{view}: attention has shape {array.shape}, {leading} (batch?) too many for {_tuple(axes)}; "
            f"choose one entry: attention[{', '.join('0' * extra)}]"
        )
    if array.ndim < len(axes):
        raise ValueError(f"{view}: attention has shape {array.shape} but needs the axes {_tuple(axes)}")
    for name, length in zip(axes, array.shape, strict=True):
        if length == 0:
            raise ValueError(f"{view}: the {name} axis of attention is empty (shape {array.shape})")
    finite = np.isfinite(array)
    if not finite.all():
        where = np.unravel_index(np.argmin(finite), array.shape)
        raise ValueError(f"{view}: attention is {array[where]} at {_place(axes, where)}; every value must be finite")
    if normalised:
        _check_rows(view, array, axes, 2e-2 if low_precision else 1e-3)
    return array


def _check_rows(view, array, axes, tolerance):
    if array.min() < -1e-6:
        where = np.unravel_index(np.argmin(array), array.shape)
        raise ValueError(
            f"{view}: attention is {array[where]:.4g} at {_place(axes, where)}; probabilities are not negative "
            f"({_unnormalised(view)})"
        )
    sums = array.sum(axis=-1, dtype=np.float64)
    wrong = np.abs(sums - 1) > tolerance
    if not wrong.any():
        return
    where = np.unravel_index(np.argmax(wrong), sums.shape)
    row = f"{_place(axes[:-1], where)} sums to {sums[where]:.4g}"
    found = f"{view}: attention must sum to 1 over the key axis, but {row}"
    if np.abs(array.sum(axis=-2, dtype=np.float64) - 1).max() <= tolerance:
        raise ValueError(f"{found}; the query axis does sum to 1: swap the last two axes")
    if sums[where] == 0:
        raise ValueError(f"{found}: a padded or fully masked query; cut padding off the query axis first")
    raise ValueError(f"{found} ({_unnormalised(view)})")


def _unnormalised(view):
    """How to show what is no probability."""
    if view.startswith("explore"):
        return "give magnitudes as maps={name: array}"
    return "pass normalised=False to draw scores or differences"


def axis_labels(view, labels, axis, length):
    """The labels of one axis as a list; None gives positions. Raises ValueError when their number is wrong."""
    if labels is None:
        return [str(i) for i in range(length)]
    if isinstance(labels, str | bytes):
        raise TypeError(f"{view}: {axis}_labels must be a sequence, one label per {axis}, got {type(labels).__name__}")
    labels = list(labels)
    if len(labels) != length:
        raise ValueError(f"{view}: the {axis} axis has length {length} but there are {len(labels)} {axis} labels")
    return labels


def visible_cells(view, attention, visible=None, *, normalised=True):
    """Which keys each query may see -> bool (Tq, Tk), given or found in `attention` (..., Tq, Tk).

    "auto" (None): causal when every weight with key > query + Tk - Tq is exactly 0 (the last query sees all keys, as in
    decoding with a cache), otherwise everything is visible. Raises ValueError when a given mask has another shape, or
    hides a weight that is not 0 (unless `normalised` is False: scores may be hidden).
    """
    queries, keys = attention.shape[-2:]
    if visible is not None:
        visible = np.asarray(visible, dtype=bool)
        if visible.shape != (queries, keys):
            raise ValueError(f"{view}: visible must have shape (query, key) = {(queries, keys)}, got {visible.shape}")
        hidden = attention[..., ~visible]
        if normalised and hidden.size and hidden.max() > 1e-6:
            raise ValueError(
                f"{view}: visible hides a weight of {hidden.max():.3g}; the mask and the attention disagree"
            )
        return visible
    causal = np.tri(queries, keys, keys - queries, dtype=bool)
    if queries <= keys and not np.any(attention[..., ~causal]):
        return causal
    return np.ones((queries, keys), dtype=bool)


def _tuple(axes):
    return f"({', '.join(axes)})"


def _place(axes, where):
    return ", ".join(f"{name} {int(i)}" for name, i in zip(axes, where, strict=True))
