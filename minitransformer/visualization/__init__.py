"""Looking at models: attention maps, loss curves and charts, from plain NumPy arrays.

    heatmap(attention[0, 0], tokens)             # one head, (Tq, Tk)
    head_grid(attention, tokens)                 # every head, (L, H, Tq, Tk)
    rollout_heatmap(attention, tokens)           # through all layers
    explore(attention, tokens).save("heads.html")  # an interactive page that opens from disk
    loss_curve(steps, train, validation)         # lines(...), bars(...), ladder(...) for the rest
    graph({"x": "x = 2", "y": "y = 6"}, [("x", "y", "3")])  # boxes and arrows
    statistics(attention), rollout(attention)    # what heads do, as numbers

A leaf of the package: it imports nothing else of it, and matplotlib only when a figure is drawn.
"""

from .charts import bars, lines, loss_curve
from .explorer import AudioFrames, ImagePatches, LogitLens, Question, explore, stitch
from .graph import graph
from .head_statistics import jensen_shannon, relevance, rollout, statistics, value_weighted
from .heatmaps import head_grid, heatmap, rollout_heatmap
from .ladders import ladder
from .token_text import token_label

__all__ = [
    "AudioFrames",
    "ImagePatches",
    "LogitLens",
    "Question",
    "bars",
    "explore",
    "graph",
    "head_grid",
    "heatmap",
    "jensen_shannon",
    "ladder",
    "lines",
    "loss_curve",
    "relevance",
    "rollout",
    "rollout_heatmap",
    "statistics",
    "stitch",
    "token_label",
    "value_weighted",
]
