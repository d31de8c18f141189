"""A small directed graph as boxes and arrows: a computation with its values, and the cotangents on their way back."""

from __future__ import annotations

from collections import Counter

import numpy as np

from .fonts import drawable
from .style import FAINT, MUTED, PALETTE, drawing, new_figure, save

_LETTER, _MARGIN, _HEIGHT, _BETWEEN, _ROW = 0.1, 0.4, 0.68, 1.25, 1.4  # inches: of text, of a box, between two


def graph(nodes, edges, *, title=None, path=None):
    """An acyclic graph, drawn from left to right -> the figure, saved if `path` is given.

    nodes: {name: lines} with one to three strings, or one string for one line: the first in bold blue, the second in
    orange, the third as a small remark above the box. edges: (start, end) or (start, end, label) with names of nodes;
    the label is orange. Several edges between two nodes are separate arcs, and an edge bends around boxes in its way.
    A node stands one column after the last of those that it reads, an input one column before its first reader. In a
    column inputs stand above the rest, otherwise the first of `nodes` is the lowest.

    Raises ValueError for no node, more than three lines, an edge to a node that is not there, or a cycle.
    """
    nodes = {name: (lines,) if isinstance(lines, str) else tuple(map(str, lines)) for name, lines in nodes.items()}
    edges = [(start, end, "".join(map(str, label))) for start, end, *label in edges]
    for name, lines in nodes.items():
        if not 1 <= len(lines) <= 3:
            raise ValueError(f"graph: node {name!r} has {len(lines)} lines of text, one to three are drawn")
    places = _places(list(nodes), [(start, end) for start, end, _ in edges])

    texts, families = drawable([str(title or ""), *(label for *_, label in edges), *sum(nodes.values(), ())])
    title, *texts = texts
    labels, texts = texts[: len(edges)], iter(texts[len(edges) :])
    nodes = {name: [next(texts) for _ in lines] for name, lines in nodes.items()}

    width = max(len(line) for lines in nodes.values() for line in lines[:2]) * _LETTER + _MARGIN
    centres = {name: np.array((column * (width + _BETWEEN), row * _ROW)) for name, (column, row) in places.items()}
    bends = _bends(centres, [(start, end) for start, end, _ in edges], width)
    low, high = np.min(list(centres.values()), axis=0), np.max(list(centres.values()), axis=0)
    middles = [_curve(centres[start], centres[end], bend) for (start, end, _), bend in zip(edges, bends, strict=True)]
    low[1], high[1] = min([low[1], *(y + 0.2 for _, y in middles)]), max([high[1], *(y - 0.2 for _, y in middles)])
    low, high = low - (width / 2 + 0.1, _HEIGHT / 2 + 0.1), high + (width / 2 + 0.1, _HEIGHT / 2 + 0.3)

    with drawing(families):
        figure = new_figure(*(high - low + (0.2, 0.4 if title else 0.1)))
        axes = figure.add_subplot(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_axis_off()
        boxes = {name: _box(axes, centres[name], width, lines) for name, lines in nodes.items()}
        for (start, end, _), bend, middle, label in zip(edges, bends, middles, labels, strict=True):
            axes.annotate(
                "", centres[end], centres[start],
                arrowprops={
                    "arrowstyle": "-|>", "color": PALETTE[0], "linewidth": 1.4, "connectionstyle": f"arc3,rad={bend}",
                    "patchA": boxes[start], "patchB": boxes[end], "shrinkA": 0, "shrinkB": 2,
                },
            )  # fmt: skip
            if label:
                behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                axes.text(*middle, label, color=PALETTE[1], ha="center", va="center", bbox=behind)
        if title:
            axes.set_title(title)
        return save(figure, path)


def _places(names, edges):
    """{name: (column, row)}."""
    if not names:
        raise ValueError("graph: there is no node to draw")
    unknown = [name for edge in edges for name in edge if name not in names]
    if unknown:
        raise ValueError(f"graph: an edge names {unknown[0]!r}, the nodes are {', '.join(map(repr, names))}")
    columns, left = {}, list(names)
    while left:  # a node is placed when all that it reads have their places
        ready = [name for name in left if all(start in columns for start, end in edges if end == name)]
        if not ready:
            raise ValueError(f"graph: {', '.join(map(repr, left))} lie on or behind a cycle, which cannot be drawn")
        for name in ready:
            columns[name] = 1 + max((columns[start] for start, end in edges if end == name), default=-1)
        left = [name for name in left if name not in columns]
    read = {end for _, end in edges}
    for name in names:
        readers = [columns[end] for start, end in edges if start == name]
        if readers and name not in read:
            columns[name] = min(readers) - 1
    filled, places = Counter(), {}
    for name in sorted(names, key=lambda name: name not in read):  # inputs above what is computed
        places[name] = (columns[name], filled[columns[name]])
        filled[columns[name]] += 1
    return places


def _bends(centres, edges, width):
    """How far each edge leaves the straight line, as arc3's rad: the least at which it passes every other box."""
    number, seen, bends = Counter(edges), Counter(), []
    for start, end in edges:
        several, place = number[start, end], seen[start, end]
        seen[start, end] += 1
        apart = 0.4 - 0.8 * place / (several - 1) if several > 1 else 0.0
        others = np.array([centre for name, centre in centres.items() if name not in (start, end)]).reshape(-1, 1, 2)
        for bend in (apart + more for more in (0.0, 0.34, -0.34, 0.6, -0.6)):
            curve = _curve(centres[start], centres[end], bend, np.linspace(0, 1, 50)[:, None])  # (50, 2)
            if not (np.abs(curve - others) < (width / 2 + 0.08, _HEIGHT / 2 + 0.08)).all(-1).any():
                break
        else:
            bend = apart
        bends.append(bend)
    return bends


def _curve(start, end, bend, t=0.5):
    """The point at t of the quadratic Bézier curve that arc3 draws."""
    control = (start + end) / 2 + bend * (end - start)[::-1] * (1, -1)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _box(axes, centre, width, lines):
    from matplotlib.patches import Rectangle

    corner = centre - (width / 2, _HEIGHT / 2)
    box = axes.add_patch(Rectangle(corner, width, _HEIGHT, facecolor="white", edgecolor=FAINT, zorder=2))
    lift = 0.14 if len(lines) > 1 else 0.0
    centred = {"ha": "center", "va": "center", "zorder": 3}
    axes.text(*(centre + (0, lift)), lines[0], color=PALETTE[0], fontweight="bold", **centred)
    if len(lines) > 1:
        axes.text(*(centre - (0, 0.15)), lines[1], color=PALETTE[1], **centred)
    if len(lines) > 2:
        axes.text(*(corner + (width, _HEIGHT + 0.06)), lines[2], color=MUTED, fontsize=7.5, ha="right", zorder=3)
    return box
