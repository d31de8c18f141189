"""The graph view: where boxes stand, which way arrows go, and what a wrong input is told."""

import numpy as np
import pytest

from minitransformer import visualization as vis

DIAMOND = [("x", "a"), ("x", "a"), ("c", "b"), ("a", "b"), ("a", "y"), ("b", "y")]


def drawn(figure):
    """{first text: its place}, and (start, end, rad) of each arrow."""
    axes = figure.axes[0]
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
    places = {text.get_text(): tuple(text.get_position()) for text in axes.texts if text.get_text()}
    return places, [(text.xyann, text.xy, text.arrow_patch.get_connectionstyle().rad) for text in arrows]


def test_readers_stand_to_the_right_and_every_edge_is_an_arrow(tmp_path):
    figure = vis.graph(dict(zip("xcaby", "xcaby")), DIAMOND, title="a diamond", path=tmp_path / "graph.png")
    places, arrows = drawn(figure)
    assert [(tuple(start), tuple(end)) for start, end, _ in arrows] == [(places[a], places[b]) for a, b in DIAMOND]
    assert all(start[0] < end[0] for start, end, _ in arrows)
    assert places["a"][0] == places["c"][0] and places["c"][1] > places["a"][1]  # c only just before b reads it
    rads = [rad for *_, rad in arrows]
    assert rads[0] == -rads[1] != 0  # two arrows between the same boxes do not cover each other
    assert rads[4] > 0 and rads[2] == rads[3] == rads[5] == 0  # a -> y has b in its way: it passes below
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_a_node_and_labels_of_edges_are_text_as_it_is():
    figure = vis.graph({"x": ("$x_1$ = 2", "dx = 96", "#0"), "y": "y"}, [("x", "y", "← 48")])
    texts = {text.get_text(): text for text in figure.axes[0].texts if text.get_text()}
    assert list(texts) == ["$x_1$ = 2", "dx = 96", "#0", "y", "← 48"]
    assert not any(text.get_parse_math() for text in texts.values())
    middle = (np.array(texts["$x_1$ = 2"].get_position())[0] + texts["y"].get_position()[0]) / 2
    assert texts["← 48"].get_position()[0] == pytest.approx(middle)
    corners = np.array([patch.get_window_extent().get_points() for patch in figure.axes[0].patches])
    assert corners[0, 1, 0] < corners[1, 0, 0]  # boxes do not overlap


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        ({}, [], "no node"),
        ({"x": "x"}, [("x", "z")], "names 'z', the nodes are 'x'"),
        ({"x": "x", "y": "y"}, [("x", "y"), ("y", "x")], "cycle"),
        ({"x": ("1", "2", "3", "4")}, [], "4 lines"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(nodes, edges, said):
    with pytest.raises(ValueError, match=said) as caught:
        vis.graph(nodes, edges)
    assert str(caught.value).startswith("graph: ") and "\n" not in str(caught.value)
