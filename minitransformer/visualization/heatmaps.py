"""Attention as images: one head (`heatmap`) and every head of a model (`head_grid`).

Rows are queries (the position that looks), columns are keys (what it looks at), as in softmax(QKᵀ/√d).
"""

from __future__ import annotations

import numpy as np

from .checks import GRID, HEAD, attention_array, axis_labels, visible_cells
from .fonts import drawable, drawable_labels
from .head_statistics import rollout
from .style import DIFFERENCE, FAINT, INK, MASKED, MUTED, PALETTE, PROBABILITY, WIDTH, drawing, new_figure, save

QUERY, KEY = "query (looks)", "key (looked at)"


def heatmap(
    attention,
    query_labels=None,
    key_labels=None,
    *,
    title=None,
    path=None,
    scale="linear",
    vmax=None,
    visible=None,
    annotate=None,
    normalised=True,
    label="attention probability",
):
    """One head's attention (Tq, Tk) with a label for each query and key -> the figure, saved if `path` is given.

    scale: "linear", "sqrt" (small weights visible) or "log". vmax: top of the colour scale, the largest value if None;
    give 1 to compare figures. visible (Tq, Tk): cells outside are grey; None finds a causal mask. annotate: print the
    numbers (None: up to 8 × 8). normalised=False draws any matrix: scores, or a difference, whose negative values
    bring a diverging scale around 0. key_labels default to query_labels when the matrix is square. Labels are any
    tokens, in any script; long axes are labelled at every n-th position.

    Raises TypeError or ValueError, naming the axis, for batch axes, NaN, rows that do not sum to 1, wrong label counts.
    """
    attention = attention_array("heatmap", attention, HEAD, normalised=normalised)
    queries, keys = attention.shape
    if key_labels is None and queries == keys:
        key_labels = query_labels
    visible = visible_cells("heatmap", attention, visible, normalised=normalised)
    rows, row_fonts = drawable_labels(axis_labels("heatmap", query_labels, "query", queries), 24)
    cols, col_fonts = drawable_labels(axis_labels("heatmap", key_labels, "key", keys), 24)
    (title, label), text_fonts = drawable([str(title or ""), str(label)])
    norm, cmap = _colours(attention, scale, vmax, normalised)
    annotate = max(queries, keys) <= 8 if annotate is None else annotate

    cell = min(0.62 if annotate else 0.34, 6.0 / keys, 8.0 / queries)
    with drawing(dict.fromkeys([*row_fonts, *col_fonts, *text_fonts])):
        figure = new_figure(max(keys * cell, 1.6) + 2.2, max(queries * cell, 1.4) + 1.5)
        axes = figure.add_subplot()
        image = _draw(axes, attention, visible, norm, cmap)
        _label_axis(axes.xaxis, cols, cell)
        _label_axis(axes.yaxis, rows, cell)
        axes.set_xlabel(KEY)
        axes.set_ylabel(QUERY)
        if title:
            axes.set_title(title)
        if annotate:
            _write_values(axes, attention, visible, norm, cmap)
        _colour_bar(figure, image, label, scale, ax=axes, fraction=0.05, shrink=0.8, aspect=22, pad=0.02)
        return save(figure, path)


def head_grid(
    attention,
    labels=None,
    *,
    key_labels=None,
    title=None,
    path=None,
    scale="sqrt",
    vmax=1.0,
    visible=None,
    highlight=(),
    normalised=True,
    label="attention probability",
):
    """Every head's attention (L, H, Tq, Tk) as thumbnails, layers down and heads across, in one colour scale.

    labels: one per query (and per key when the maps are square; else key_labels), written along the outer thumbnails,
    every n-th where not all fit; without labels the first and last positions are numbered. highlight: (layer, head)
    pairs to frame. The other arguments, and the errors, are those of `heatmap`; the scale here is 0..1 with square
    roots, so that two grids compare at sight.
    """
    attention = attention_array("head_grid", attention, GRID, normalised=normalised)
    layers, heads, queries, keys = attention.shape
    if key_labels is None and queries == keys:
        key_labels = labels
    visible = visible_cells("head_grid", attention, visible, normalised=normalised)
    rows = axis_labels("head_grid", labels, "query", queries) if labels is not None else None
    cols = axis_labels("head_grid", key_labels, "key", keys) if key_labels is not None else None
    (title, label), families = drawable([str(title or ""), str(label)])
    framed = {(int(layer), int(head)) for layer, head in highlight}
    outside = [pair for pair in framed if not (0 <= pair[0] < layers and 0 <= pair[1] < heads)]
    if outside:
        raise ValueError(f"head_grid: highlight names (layer, head) {outside[0]} in a grid of {layers} × {heads}")
    norm, cmap = _colours(attention, scale, vmax, normalised)

    side = float(np.clip(WIDTH / heads, 0.62, 1.45))
    tall = side * float(np.clip(queries / keys, 0.35, 2.5))
    with drawing(families):
        figure, grid, bar = _grid_of_axes(layers, heads, side, tall, rows, cols, title)
        for (layer, head), axes in np.ndenumerate(grid):
            image = _draw(axes, attention[layer, head], visible, norm, cmap)
            axes.set_aspect("auto")
            axes.set_xticks([])
            axes.set_yticks([])
            if layer == 0:
                axes.set_title(f"head {head}", loc="center", fontsize=8, pad=4)
            if head == 0:
                axes.set_ylabel(f"layer {layer}", fontsize=8, fontweight="bold", color=INK, labelpad=4)
            if (layer, head) in framed:
                for spine in axes.spines.values():
                    spine.set(visible=True, color=PALETTE[1], linewidth=2.2)
        for axes in grid[:, 0]:
            _label_thumbnail(axes.yaxis, rows, queries, tall)
        for axes in grid[-1]:
            _label_thumbnail(axes.xaxis, cols, keys, side)
        _colour_bar(figure, image, label, scale, cax=bar)
        return save(figure, path)


def rollout_heatmap(attention, labels=None, *, title=None, path=None, scale="sqrt", **options):
    """Attention rollout through all layers as one heatmap: which input positions each output position draws from.

    attention (L, H, T, T) of one sequence; labels and options as in `heatmap`. Drawn is `rollout(attention)[-1]`.
    Raises TypeError or ValueError as `heatmap` does, also for query and key axes of different lengths.
    """
    attention = attention_array("rollout_heatmap", attention, GRID)
    label = options.pop("label", "share of the input, through all layers")
    return heatmap(rollout(attention)[-1], labels, title=title, path=path, scale=scale, label=label, **options)


def _grid_of_axes(layers, heads, side, tall, rows, cols, title):
    """Thumbnails of side × tall inches with room for their labels, and the colour bar's axes.

    Placed by hand: matplotlib's layout engine measures every thumbnail several times, seconds for a large model.
    """
    gap = 0.07
    left, bottom = 0.6 + (0.5 if rows else 0.15), 0.36 + (0.45 if cols else 0.1)
    width, height = heads * (side + gap), layers * (tall + gap)
    figure = new_figure(left + width + 1.2, bottom + height + (0.55 if title else 0.3), layout=None)
    across, down = figure.get_size_inches()

    def axes_at(x, y, w, h):
        return figure.add_axes((x / across, y / down, w / across, h / down))

    lows = [bottom + (layers - 1 - layer) * (tall + gap) for layer in range(layers)]
    grid = [[axes_at(left + head * (side + gap), low, side, tall) for head in range(heads)] for low in lows]
    bar = axes_at(left + width + 0.1, bottom + 0.1 * height, 0.13, 0.8 * height)
    quiet = {"ha": "center", "va": "center", "fontsize": 9, "color": MUTED}
    figure.text((left + width / 2) / across, 0.12 / down, KEY, **quiet)
    figure.text(0.12 / across, (bottom + height / 2) / down, QUERY, rotation=90, **quiet)
    if title:
        figure.text(0.04 / across, 1 - 0.14 / down, title, va="center", fontsize=10.5, fontweight="bold")
    return figure, np.array(grid), bar


def _colours(attention, scale, vmax, normalised):
    """The norm and the colour map: 0..vmax, or -vmax..vmax around white when there are negative values."""
    import matplotlib
    from matplotlib import colors

    if scale not in ("linear", "sqrt", "log"):
        raise ValueError(f'scale must be "linear", "sqrt" or "log", got {scale!r}')
    signed = not normalised and attention.min() < 0
    top = float(vmax if vmax is not None else np.abs(attention).max()) or 1.0
    if not (top > 0 and np.isfinite(top)):
        raise ValueError(f"vmax must be a positive number, got {vmax!r}")
    cmap = matplotlib.colormaps[DIFFERENCE if signed else PROBABILITY].with_extremes(bad=MASKED)
    if signed:
        return colors.Normalize(-top, top), cmap
    if scale == "log":
        return colors.LogNorm(top * 1e-4, top, clip=True), cmap
    return colors.PowerNorm(0.5 if scale == "sqrt" else 1.0, 0.0, top, clip=True), cmap


def _draw(axes, matrix, visible, norm, cmap):
    image = axes.imshow(np.ma.array(matrix, mask=~visible), norm=norm, cmap=cmap, interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _label_axis(axis, labels, cell):
    """Every n-th label, n so small that labels do not touch; positions are added when some are left out."""
    step = max(1, int(np.ceil(0.135 / cell)))
    positions = range(0, len(labels), step)
    shown = [labels[i] if step == 1 or labels[i] == str(i) else f"{labels[i]}  {i}" for i in positions]
    axis.set_ticks(list(positions), labels=shown)
    upright = axis.axis_name == "x" and max(map(len, shown)) * 0.085 > cell * step
    for text in axis.get_ticklabels():
        text.set(parse_math=False, color=INK, fontsize=8 if cell > 0.2 else 7)
        if upright:
            text.set(rotation=90)


def _label_thumbnail(axis, labels, length, side):
    if labels is not None:
        step = int(np.ceil(0.08 * length / side))  # every n-th, n so small that labels do not touch
        short, families = drawable_labels(labels[::step], 8)
        axis.set_ticks(range(0, length, step), labels=short)
        size = min(7.0, 0.8 * 72 * side * step / length)
    else:
        families, size = [], 6.5
        axis.set_ticks([0, length - 1] if length > 1 else [0])
        for text, across, down in zip(axis.get_ticklabels(), ("left", "right"), ("top", "bottom"), strict=False):
            text.set(ha=across) if axis.axis_name == "x" else text.set(va=down)  # the neighbour's number is close
    upright = labels is not None and axis.axis_name == "x"
    for text in axis.get_ticklabels():
        text.set(parse_math=False, fontsize=size, rotation=90 if upright else 0)
        text.set_fontfamily([*text.get_fontfamily(), *families])


def _write_values(axes, matrix, visible, norm, cmap):
    for (i, j), value in np.ndenumerate(matrix):
        if visible[i, j]:
            red, green, blue, _ = cmap(norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            number = f"{round(float(value), 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")  # + 0.0: no minus zero
            axes.text(j, i, number, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)


def _colour_bar(figure, image, label, scale, **place):
    bar = figure.colorbar(image, **place)
    bar.outline.set_visible(False)
    bar.set_label(label if scale == "linear" or image.norm.vmin < 0 else f"{label}\n({_SCALES[scale]} scale)")
    if scale == "sqrt" and image.norm.vmin == 0:
        bar.set_ticks([image.norm.vmax * t for t in (0, 0.01, 0.1, 0.25, 0.5, 1)])
    bar.ax.minorticks_off()
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("-", "\N{MINUS SIGN}"))
    bar.ax.tick_params(color=FAINT)


_SCALES = {"sqrt": "square-root", "log": "logarithmic"}
