"""A ladder's figure: how fast each version of a kernel is, beside what the machine can do."""

from __future__ import annotations

import numpy as np

from .charts import _number, _series, _thousands
from .fonts import drawable
from .style import FAINT, INK, MUTED, PALETTE, WIDTH, drawing, new_figure, save

__all__ = ["ladder"]


def ladder(labels, values, ceilings, *, xlabel, failed=None, title=None, path=None):
    """Horizontal bars on a log scale, the first on top, and the ceilings as lines; returns the figure.

    It is saved if `path` is given. ceilings: {label: value}, in the bars' unit. failed: one bool a bar; those are grey.
    A bar's text is its value
    and how often the value of the last bar above it that did not fail. Raises ValueError for other lengths and for
    values that are not above 0.
    """
    labels, values = [str(label) for label in labels], _series("ladder", "values", values)
    failed = [False] * len(labels) if failed is None else list(failed)
    if not len(labels) == len(values) == len(failed):
        raise ValueError(f"ladder: {len(labels)} labels, {len(values)} values and {len(failed)} marks of failure")
    limits = _series("ladder", "ceilings", list(ceilings.values()))
    if not (np.isfinite(values).all() and (values > 0).all() and (limits > 0).all()):
        raise ValueError("ladder: a log scale has only finite values above 0")
    texts, families = drawable([str(title or ""), str(xlabel), *labels, *ceilings])
    title, xlabel, *texts = texts

    with drawing(families):
        figure = new_figure(WIDTH, 0.34 * len(values) + 1.5)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        low, high = 10 ** np.floor(np.log10(values.min()) - 0.05), max(limits.max(), values.max()) * 1.12
        for i, (value, bad) in enumerate(zip(values, failed)):
            colour = "#c4ccd4" if bad else PALETTE[0]
            axes.barh(i, value - low, left=low, height=0.5 if bad else 0.7, color=colour)
            before = [v for v, b in zip(values[:i], failed[:i]) if not b]
            gain = f"   {_number(value / before[-1], 2)}×" if before else ""
            inside = np.log(value / low) > 0.62 * np.log(high / low)
            axes.annotate(
                _number(value, 3) + gain, (value, i), xytext=(-5 if inside else 4, 0), textcoords="offset points",
                va="center", ha="right" if inside else "left", fontsize=8.5,
                color=("white" if inside and not bad else MUTED if bad else INK),
            )  # fmt: skip
        for n, (name, value) in enumerate(zip(texts[len(labels) :], limits)):
            axes.axvline(value, color=PALETTE[1], linewidth=1.2, linestyle=(0, (4, 3)), zorder=0.9)  # behind the bars
            last = n == len(limits) - 1
            axes.annotate(
                f"{name}: {_number(value, 3)}", (value, 1), xycoords=("data", "axes fraction"),
                xytext=(0, 3 + 11 * (len(limits) - 1 - n)), textcoords="offset points", ha="right", va="bottom",
                fontsize=8, color=PALETTE[1], fontweight="bold" if last else "normal",
            )  # fmt: skip
        axes.set_yticks(np.arange(len(values)), labels=texts[: len(labels)])
        for text, bad in zip(axes.get_yticklabels(), failed):
            text.set(parse_math=False, color=MUTED if bad else INK, fontsize=9, style="italic" if bad else "normal")
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(low, high)
        axes.grid(axis="x")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.axvline(low, color=FAINT, linewidth=1)
        axes.minorticks_off()
        axes.set_xlabel(xlabel)
        if title:
            axes.set_title(title, pad=12 + 11 * len(limits))
        _thousands(axes.xaxis)
        return save(figure, path)
