"""One look for every figure: palette, colour maps, type, and how a figure is made and saved.

Figures are made without pyplot and inside `rc_context`, so a reader's own matplotlib settings, backend and open figures
stay as they are, and nothing needs a display. matplotlib is imported on first use, not with the package.
"""

from __future__ import annotations

import contextlib
import os
import pathlib

INK, MUTED, FAINT, MASKED = "#1f2328", "#59636e", "#d1d9e0", "#dcdfe3"
# Okabe & Ito's colour-blind-safe hues, the light ones darkened so that thin lines and text on white stay readable.
PALETTE = ("#0072b2", "#d55e00", "#00856a", "#a8497f", "#9a6b00", "#3c9ad1", "#5b4bb5", "#59636e")
PROBABILITY, DIFFERENCE = "viridis", "PuOr_r"
WIDTH = 7.2  # inches: about the text column of a README or a paper

_RC = {
    "text.usetex": False,
    "text.parse_math": False,  # a token "$x_1$" is text
    "text.color": INK,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextlib.contextmanager
def drawing(families=()):
    """Inside, artists are made in the house style; `families` are fonts to fall back on. The caller's are kept."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        matplotlib.rcParams["font.family"] = [*_RC["font.family"], *families]
        yield


def new_figure(width, height, layout="constrained"):
    """An empty figure of this size in inches that draws itself with Agg and shows as PNG in a notebook."""
    from ._figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout=layout)


def save(figure, path):
    """Write the figure at 150 dpi, trimmed, to `path` if one is given: whole or not at all. Returns the figure.

    The suffix (.png, .svg, .pdf) chooses the format; missing folders are made. Raises ValueError for another suffix.
    """
    if path is None:
        return figure
    path = pathlib.Path(path)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in ("png", "svg", "pdf"):
        raise ValueError(f"a figure is saved as .png, .svg or .pdf, got the path {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        figure.savefig(partial, format=suffix, dpi=150, bbox_inches="tight", pad_inches=0.12)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return figure
