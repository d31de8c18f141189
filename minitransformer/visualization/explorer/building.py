"""From arrays to the finished page: `explore`."""

from __future__ import annotations

import html as _html
import os
import pathlib
from dataclasses import dataclass

import numpy as np

from ..checks import visible_cells
from . import packing, page
from .axes import describe_axis
from .extras import LogitLens, Question
from .sources import collect, head_numbers, key_length


@dataclass(frozen=True)
class Explorer:
    """The finished page. In a notebook it shows itself."""

    html: str
    encoding: str  # how weights are stored, in words
    worst_error: float  # the largest |shown - given| over the weights that are kept
    dropped: float  # the largest mass that top-k rows leave out

    @property
    def megabytes(self):
        return len(self.html.encode("utf-8")) / 1e6

    def save(self, path):
        """Write the page to a file, whole or not at all; missing folders are made. Returns the path."""
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(self.html, encoding="utf-8", newline="\n")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _repr_html_(self):
        return (
            '<iframe style="width:100%;height:820px;border:0" sandbox="allow-scripts allow-downloads" '
            f'title="Attention explorer" srcdoc="{_html.escape(self.html)}"></iframe>'
        )

    def __repr__(self):
        return f"<Explorer {self.megabytes:.1f} MB, {self.encoding}, worst error {self.worst_error:.2g}>"


def explore(
    attention,
    query_labels=None,
    key_labels=None,
    *,
    versus=None,
    names=("A", "B"),
    maps=None,
    lens=None,
    token_ids=None,
    groups=None,
    visible=None,
    title="Attention",
    caption="",
    question=None,
    start=None,
    top_k=64,
    max_mb=40.0,
    path=None,
):
    """Attention maps as one self-contained interactive page -> Explorer; saved if `path` is given.

    attention: (L, H, Tq, Tk), (H, Tq, Tk), (Tq, Tk), a list of layers (H_l, Tq, Tk) with unequal heads, or a dictionary
    {training step: any of these}. Rows sum to 1. `stitch` joins a prefill and its decode steps first.
    query_labels, key_labels: tokens, `ImagePatches` or `AudioFrames`; when key_labels are left out of square maps, the
    keys are the queries (self-attention).
    versus: a second model's attention of the same (Tq, Tk); names: what the two are called.
    maps: {name: nonnegative array like attention}: `value_weighted` norms, `relevance(...)[:, None]`, ...; rollout is
    added by itself to square self-attention up to 1,024 tokens.
    lens: a `LogitLens`. question: a `Question` asked first. token_ids (Tk,): enables the induction score.
    groups: number of key/value heads in grouped-query attention. visible (Tq, Tk): cells outside are grey; None finds a
    causal mask. start: what is selected at first, {"layer": 3, "head": 5, "token": 12, ...} as in the page's link.

    Weights are stored as described in `packing`; more than 512 keys, or a page above `max_mb` megabytes, as the `top_k`
    (then fewer, down to 8) largest of each row with the dropped mass shown.

    Raises TypeError or ValueError, naming the axis, for batch axes, NaN, rows that do not sum to 1, wrong label counts,
    arrays of unequal axes, and a page that stays above `max_mb`.
    """
    _check_options(names, question, lens, groups, max_mb)
    queries, keys = key_length(attention)
    one_axis = queries == keys and (key_labels is None or key_labels is query_labels)
    self_attention = one_axis or token_ids is not None
    sources = collect(attention, versus, names, maps, self_attention)
    models = [source for source in sources if source.normalised]
    visible = np.any([visible_cells("explore", layer, visible) for model in models for layer in model.layers], axis=0)
    query_axis = describe_axis(query_labels, "query", queries)
    key_axis = query_axis if one_axis else describe_axis(key_labels, "key", keys)
    heads = [len(layer) for layer in sources[0].layers]
    if groups is not None and any(count % groups for count in heads):
        raise ValueError(f"explore: groups={groups} must divide the number of heads, {heads[0]}")

    meta = {
        "title": str(title), "caption": str(caption), "queries": queries, "keys": keys, "groups": groups,
        "query": query_axis.packed(), "key": None if one_axis else key_axis.packed(),
        "question": question.packed() if question else None, "lens": lens.packed(queries) if lens else None,
        "start": _start(start or {}),
    }  # fmt: skip
    blocks = {}
    meta["visible"] = _mask_name(visible)
    if meta["visible"] == "custom":
        blocks["visible"] = packing.text_of(visible.astype(np.uint8).tobytes())
    for s, source in enumerate(sources):
        small = [packing.thumbnails(layer, source.scale, visible) for layer in source.layers]
        meta["thumbnail"] = small[0].shape[1:]
        blocks[f"thumbnails-{s}"] = packing.text_of(b"".join(thumbnail.tobytes() for thumbnail in small))
    shell = len(page.assemble(str(title), {**blocks, "meta": packing.text_of(page.json_bytes(meta))}))
    encoder = packing.choose(sources, keys, top_k, max_mb * 1e6 - shell)

    meta |= {"sources": [], "topK": encoder.k, "encoding": encoder.name}
    for s, source in enumerate(sources):
        reference = sources[1] if s == 0 and versus is not None else sources[0] if len(models) > 1 else None
        packed = [encoder.pack(layer, source.scale, source.normalised) for layer in source.layers]
        for i, layer in enumerate(packed):
            blocks[f"layer-{s}-{i}"] = packing.text_of(layer.data, deflate=False)
        meta["sources"].append(
            {
                "name": source.name, "kind": source.kind, "step": source.step, "scale": source.scale,
                "heads": [len(layer) for layer in source.layers],
                "statistics": head_numbers(source, reference, token_ids, visible, self_attention),
                "worstError": max(layer.worst_error for layer in packed),
                "dropped": max(layer.dropped for layer in packed) if source.normalised else 0.0,
            }
        )  # fmt: skip
    blocks = {"meta": packing.text_of(page.json_bytes(meta)), **blocks}
    exact = [source for source in meta["sources"] if source["kind"] != "map"]
    worst, dropped = (max(source[name] for source in exact) for name in ("worstError", "dropped"))
    explorer = Explorer(page.assemble(str(title), blocks), encoder.name, worst, dropped)
    if explorer.megabytes > max_mb:
        raise ValueError(
            f"explore: the page has {explorer.megabytes:.2f} MB, above max_mb={max_mb:g}; "
            "pass fewer layers or tokens, or raise max_mb"
        )
    if path is not None:
        explorer.save(path)
    return explorer


_NUMBERS, _NAMES = (
    ("source", "layer", "head", "token", "key", "other"),
    ("mode", "scale", "colour", "direction", "theme"),
)


def _check_options(names, question, lens, groups, max_mb):
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"explore: names must be two, of the first and of the second model, got {names!r}")
    for name, value, kind in (("question", question, Question), ("lens", lens, LogitLens)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"explore: {name} must be a {kind.__name__}, got {type(value).__name__}")
    if groups is not None and not (isinstance(groups, int | np.integer) and groups > 0):
        raise ValueError(f"explore: groups must be a positive integer, got {groups!r}")
    if not max_mb > 0:
        raise ValueError(f"explore: max_mb must be above 0, got {max_mb!r}")


def _start(start):
    unknown = sorted(set(start) - {*_NUMBERS, *_NAMES})
    if unknown:
        raise ValueError(f"explore: start has no {unknown[0]!r}; known are {', '.join((*_NUMBERS, *_NAMES))}")
    for name in _NUMBERS:
        if name in start and not (isinstance(start[name], int | np.integer) and start[name] >= 0):
            raise ValueError(f"explore: start[{name!r}] must be an integer, 0 or more, got {start[name]!r}")
    return {name: int(value) if name in _NUMBERS else str(value) for name, value in start.items()}


def _mask_name(visible):
    if visible.all():
        return "all"
    queries, keys = visible.shape
    return "causal" if np.array_equal(visible, np.tri(queries, keys, keys - queries, dtype=bool)) else "custom"
