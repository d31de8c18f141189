"""Curves and bars for lessons: series are labelled where they end, values where they stand, units on the axis."""

from __future__ import annotations

import math

import numpy as np

from .fonts import drawable
from .style import FAINT, INK, MUTED, PALETTE, WIDTH, drawing, new_figure, save


def loss_curve(
    steps,
    train,
    validation=None,
    *,
    validation_steps=None,
    vocabulary=None,
    smooth=None,
    title=None,
    path=None,
    ylabel="loss (nats per token)",
):
    """Training loss, raw (faint) and smoothed, with validation points; returns the figure, saves it if `path` is given.

    smooth: standard deviation, in points, of the Gaussian mean, which unlike a running mean does not lag behind a
    falling curve; None: 1/80 of the run; 0 draws the raw values only. validation_steps: where `validation` was
    measured, if not at `steps`. vocabulary: draw ln V, the loss of guessing uniformly among V tokens. A loss that stops
    being finite ends the curve and is marked.

    Raises ValueError when the lengths differ, there is no point, or smooth or vocabulary is out of range.
    """
    steps, train = _series("loss_curve", "steps", steps), _series("loss_curve", "train", train)
    _same_length("loss_curve", steps, train=train)
    smooth = len(train) / 80 if smooth is None else smooth
    if not smooth >= 0:
        raise ValueError(f"loss_curve: smooth must be a number of points, 0 or more, got {smooth}")
    if vocabulary is not None and vocabulary < 2:
        raise ValueError(f"loss_curve: vocabulary must be at least 2 tokens, got {vocabulary}")
    if validation is not None:
        validation = _series("loss_curve", "validation", validation)
        validation_steps = _series(
            "loss_curve", "validation_steps", steps if validation_steps is None else validation_steps
        )
        _same_length("loss_curve", validation_steps, validation=validation)
    (title, ylabel), families = drawable([str(title or ""), str(ylabel)])
    broken = np.flatnonzero(~np.isfinite(train))
    end = broken[0] if len(broken) else len(train)

    with drawing(families):
        figure = new_figure(WIDTH, 3.6)
        axes = figure.add_subplot()
        ends = []
        if end:
            if smooth > 0.5:
                axes.plot(steps[:end], train[:end], color=PALETTE[0], alpha=0.25, linewidth=0.8)
            curve = _smoothed(train[:end], smooth)
            axes.plot(steps[:end], curve, color=PALETTE[0])
            ends.append((steps[end - 1], curve[-1], "train", PALETTE[0]))
        if validation is not None:
            finite = np.isfinite(validation)
            axes.plot(validation_steps[finite], validation[finite], color=PALETTE[1], marker="o", markersize=3.5)
            if finite.any():
                ends.append((validation_steps[finite][-1], validation[finite][-1], "validation", PALETTE[1]))
        if vocabulary is not None:
            axes.axhline(math.log(vocabulary), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"guessing uniformly: ln {vocabulary:,} = {math.log(vocabulary):.2f}", (1, math.log(vocabulary)),
                xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", ha="right", va="bottom",
                fontsize=8, color=MUTED,
            )  # fmt: skip
        if len(broken):
            axes.axvline(steps[end], color=PALETTE[1], linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(
                f"loss is {train[end]} from step {steps[end]:g}", (steps[end], 0.96),
                xycoords=("data", "axes fraction"), xytext=(-4, 0), textcoords="offset points", ha="right", va="top",
                fontsize=8, color=PALETTE[1],
            )  # fmt: skip
        axes.grid(axis="y")
        axes.set_xlabel("training step")
        axes.set_ylabel(ylabel)
        axes.margins(x=0.01, y=0.12)
        if title:
            axes.set_title(title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _thousands(axes.xaxis)
        _label_ends(axes, [(x, y, f"{name} {y:.2f}", color) for x, y, name, color in ends])
        return save(figure, path)


def lines(
    x,
    series,
    *,
    xlabel,
    ylabel,
    title=None,
    path=None,
    logx=False,
    logy=False,
    markers=None,
    reference=None,
):
    """Labelled series over a common x: series is {label: values}; returns the figure, saves it if `path` is given.

    Each series is named at its end. Units belong in xlabel and ylabel ("memory (MiB)"). markers: dots at the points
    (None: up to 24). reference: {label: value}, dashed horizontal lines. NaN leaves a gap. Raises ValueError for other
    lengths, for no series, more than 8 series, and for values <= 0 on a log axis.
    """
    x = _series("lines", "x", x)
    if not series or len(series) > len(PALETTE):
        raise ValueError(f"lines: series must hold 1 to {len(PALETTE)} labelled series, got {len(series)}")
    series = {str(name): _series("lines", f"series {name!r}", values) for name, values in series.items()}
    _same_length("lines", x, **series)
    for axis, log, arrays in (("x", logx, {"x": x}), ("y", logy, series)):
        for name, values in arrays.items():
            if log and (values <= 0).any():
                raise ValueError(f"lines: {name} holds {values.min():g}, and a log {axis} axis has only values above 0")
    names, families = drawable([str(t or "") for t in (title, xlabel, ylabel, *series, *(reference or {}))])
    title, xlabel, ylabel, *names = names
    markers = len(x) <= 24 if markers is None else markers

    with drawing(families):
        figure = new_figure(WIDTH, 3.6)
        axes = figure.add_subplot()
        if logx:
            axes.set_xscale("log", base=2 if _powers_of_two(x) else 10)
        if logy:
            axes.set_yscale("log")
        ends = []
        for name, values, colour in zip(names, series.values(), PALETTE, strict=False):
            axes.plot(x, values, color=colour, marker="o" if markers else None, markersize=3.5)
            finite = np.flatnonzero(np.isfinite(values))
            if len(finite):
                ends.append((x[finite[-1]], values[finite[-1]], name, colour))
        for name, value in zip(names[len(series) :], (reference or {}).values(), strict=True):
            axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                name, (0, value), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
                fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.grid(axis="y")
        axes.margins(x=0.02, y=0.1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if title:
            axes.set_title(title)
        for axis, log in ((axes.xaxis, logx), (axes.yaxis, logy)):
            _thousands(axis)
            if log:
                axis.minorticks_off()
        if logx and len(x) <= 12:
            axes.set_xticks(x)
        _label_ends(axes, ends)
        return save(figure, path)


def bars(
    labels,
    values,
    *,
    xlabel,
    title=None,
    path=None,
    spread=None,
    highlight=(),
    log=False,
    reference=None,
    digits=3,
):
    """Horizontal bars, the first on top, each with its value; returns the figure, saves it if `path` is given.

    xlabel names the quantity and its unit ("time per step (ms)"). spread: one half-width per bar, drawn as a thin line.
    highlight: labels of the bars to stress (the others turn grey). reference: {label: value}, dashed vertical lines.
    Raises ValueError for other lengths, no bar, values that are not finite, and values <= 0 on a log axis.
    """
    labels, values = [str(label) for label in labels], _series("bars", "values", values)
    if len(labels) != len(values):
        raise ValueError(f"bars: there are {len(values)} values but {len(labels)} labels")
    if not np.isfinite(values).all():
        raise ValueError(f"bars: the value of {labels[int(np.argmin(np.isfinite(values)))]!r} is not finite")
    if log and (values <= 0).any():
        lowest = labels[int(np.argmin(values))]
        raise ValueError(f"bars: {lowest!r} is {values.min():g}, and a log axis has only values above 0")
    if spread is not None:
        spread = _series("bars", "spread", spread)
        _same_length("bars", values, spread=spread)
    unknown = set(highlight) - set(labels)
    if unknown:
        raise ValueError(f"bars: highlight names {min(unknown)!r}, which is no label; known are {', '.join(labels)}")
    stressed = [not highlight or label in highlight for label in labels]
    texts, families = drawable([str(title or ""), str(xlabel), *labels, *(reference or {})])
    title, xlabel, *texts = texts

    with drawing(families):
        figure = new_figure(WIDTH, 0.34 * len(values) + 1.25)
        axes = figure.add_subplot()
        if log:
            axes.set_xscale("log")
        at = np.arange(len(values))
        axes.barh(at, values, height=0.68, color=[PALETTE[0] if s else "#aeb8c2" for s in stressed])
        if spread is not None:
            axes.hlines(at, values - spread, values + spread, color=INK, linewidth=1.2)
        tips = np.maximum(values, 0) + (spread if spread is not None else 0)
        for i, (tip, value) in enumerate(zip(tips, values, strict=True)):
            axes.annotate(
                _number(value, digits), (tip, i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5,
                color=INK, fontweight="bold" if highlight and stressed[i] else "normal",
            )  # fmt: skip
        for name, value in zip(texts[len(labels) :], (reference or {}).values(), strict=True):
            axes.axvline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
                ha="center", va="bottom", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.set_yticks(at, labels=texts[: len(labels)])
        for text in axes.get_yticklabels():
            text.set(parse_math=False, color=INK, fontsize=9)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.1)
        axes.grid(axis="x")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.axvline(0, color=FAINT, linewidth=1) if not log else axes.minorticks_off()
        axes.set_xlabel(xlabel)
        if title:
            axes.set_title(title, pad=20 if reference else 10)
        _thousands(axes.xaxis)
        return save(figure, path)


def _series(view, name, values):
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{view}: {name} must be numbers, got {type(values).__name__}") from None
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{view}: {name} must be a non-empty one-dimensional array, got shape {array.shape}")
    return array


def _same_length(view, first, **others):
    for name, values in others.items():
        if len(values) != len(first):
            raise ValueError(f"{view}: {name} has {len(values)} values but there are {len(first)} points")


def _smoothed(values, deviation):
    """Gaussian mean around each point, over the points that exist; the values themselves up to a deviation of 0.5."""
    if deviation <= 0.5:
        return values
    reach = min(math.ceil(3 * deviation), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    inside = slice(reach, reach + len(values))
    return np.convolve(values, kernel)[inside] / np.convolve(np.ones_like(values), kernel)[inside]


def _powers_of_two(x):
    return bool((x > 0).all() and (np.log2(x) == np.round(np.log2(x))).all())


def _number(value, digits):
    """1234.5 -> "1,234", 0.01234 -> "0.0123"."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits - 1}e}" if decimals > 6 or abs(value) >= 1e9 else f"{value:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _thousands(axis):
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}".replace("-", "\N{MINUS SIGN}"))


def _label_ends(axes, ends, gap=0.062):
    """Name series right of their last points; labels closer than `gap` of the axis height are moved apart."""
    if not ends:
        return
    axes.autoscale_view()
    axes.figure.draw_without_rendering()  # fixes the limits that the heights below are measured in
    low, high = axes.transAxes.inverted(), axes.transData
    ends = sorted(ends, key=lambda end: end[1])
    wanted = [low.transform(high.transform((end[0], end[1])))[1] for end in ends]
    placed = _apart(wanted, gap)
    right = max(end[0] for end in ends)
    for (x, _, text, colour), height in zip(ends, placed, strict=True):
        near = low.transform(high.transform((right if x > 0.9 * right else x, axes.get_ylim()[0])))[0]
        axes.annotate(
            text, (near, height), xycoords="axes fraction", xytext=(7, 0), textcoords="offset points", color=colour,
            fontsize=9, fontweight="bold", va="center", annotation_clip=False,
        )  # fmt: skip


def _apart(wanted, gap):
    """Sorted heights moved as little as needed so that neighbours are at least `gap` apart."""
    placed = np.array(wanted, dtype=float)
    for _ in range(50):
        close = np.flatnonzero(np.diff(placed) < gap - 1e-9)
        if not len(close):
            break
        for i in close:
            middle = (placed[i] + placed[i + 1]) / 2
            placed[i], placed[i + 1] = middle - gap / 2, middle + gap / 2
    return placed
