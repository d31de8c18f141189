"""Figures by their structure: what is drawn, how it is labelled, and what a wrong input is told."""

import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest

from minitransformer import visualization as vis
from minitransformer.visualization import fonts, style


def random_attention(*shape, causal=True):
    scores = np.random.default_rng(3).normal(size=shape)
    if causal:
        scores = np.where(np.tri(*shape[-2:], shape[-1] - shape[-2], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def tick_texts(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_heatmap_draws_the_array_and_names_both_axes(tmp_path):
    attention = random_attention(3, 3)
    figure = vis.heatmap(attention, ["a", "$x_1$", "\\frac{"], title="$t_0$", path=tmp_path / "new" / "head.png")
    axes = figure.axes[0]
    drawn = axes.images[0].get_array()
    assert np.array_equal(drawn.data, attention)
    assert np.array_equal(drawn.mask, ~np.tri(3, dtype=bool))  # the causal mask is grey, not zero
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("query (looks)", "key (looked at)")
    assert tick_texts(axes.yaxis) == tick_texts(axes.xaxis) == ["a", "$x_1$", "\\frac{"]
    assert not any(text.get_parse_math() for text in [*axes.get_xticklabels(), axes.title])
    assert [text.get_text() for text in axes.texts] == [
        f"{attention[i, j]:.2f}" for i in range(3) for j in range(i + 1)
    ]
    assert figure.axes[1].get_ylabel() == "attention probability"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["head.png"]  # and no half-written file beside it
    assert (tmp_path / "new" / "head.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_rollout_heatmap_draws_the_last_layers_rollout():
    attention = random_attention(3, 2, 4, 4)
    figure = vis.rollout_heatmap(attention, list("abcd"), title="through all layers")
    drawn = figure.axes[0].images[0].get_array()
    assert np.array_equal(drawn.data, vis.rollout(attention)[-1]) and drawn.mask[0, 1]
    assert figure.axes[1].get_ylabel().startswith("share of the input")
    with pytest.raises(ValueError, match=r"rollout_heatmap: .*needs the axes \(layer, head, query, key\)"):
        vis.rollout_heatmap(attention[0])
    with pytest.raises(ValueError, match=r"rollout: attention must have shape \(layer, head, T, T\)"):
        vis.rollout_heatmap(random_attention(1, 1, 2, 4))


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "head.png"
    figure = vis.heatmap(np.eye(2), path=path)
    before = path.read_bytes()

    def full_disk(partial, **_):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space left"):
        style.save(figure, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_cross_attention_and_differences():
    attention = random_attention(2, 5, causal=False)
    axes = vis.heatmap(attention, ["a", "b"], list("vwxyz"), scale="sqrt", vmax=1).axes[0]
    assert tick_texts(axes.xaxis) == list("vwxyz") and tick_texts(axes.yaxis) == ["a", "b"]
    assert not axes.images[0].get_array().mask.any() and axes.images[0].get_clim() == (0, 1)
    difference = attention - attention[::-1]
    image = vis.heatmap(difference, normalised=False, annotate=False).axes[0].images[0]
    assert image.get_clim() == (-np.abs(difference).max(), np.abs(difference).max())
    assert image.get_cmap().name != vis.heatmap(attention, annotate=False).axes[0].images[0].get_cmap().name


def test_long_axes_are_labelled_at_every_nth_position():
    axes = vis.heatmap(random_attention(90, 90), [f"t{i}" for i in range(90)]).axes[0]
    texts = tick_texts(axes.yaxis)
    assert 20 <= len(texts) <= 60 and texts[0] == "t0  0" and texts[1] == f"t{90 // len(texts)}  {90 // len(texts)}"


def test_head_grid_lays_layers_down_and_heads_across():
    attention = random_attention(2, 3, 4, 4)
    figure = vis.head_grid(attention, list("abcd"), title="All heads", highlight=[(1, 2)])
    thumbnails = figure.axes[:6]
    assert len(figure.axes) == 7  # and one shared colour bar
    for axes, (layer, head) in zip(thumbnails, np.ndindex(2, 3), strict=True):
        assert np.array_equal(axes.images[0].get_array().data, attention[layer, head])
        assert axes.images[0].get_clim() == (0, 1)
        assert axes.spines["left"].get_visible() == ((layer, head) == (1, 2))
    assert [axes.get_title(loc="center") for axes in thumbnails[:3]] == ["head 0", "head 1", "head 2"]
    assert [axes.get_ylabel() for axes in thumbnails[::3]] == ["layer 0", "layer 1"]
    assert tick_texts(thumbnails[0].yaxis) == list("abcd") == tick_texts(thumbnails[5].xaxis)
    assert {text.get_text() for text in figure.texts} == {"key (looked at)", "query (looks)", "All heads"}


def test_head_grid_thins_out_tokens_that_do_not_fit():
    tokens = [f"t{i}" for i in range(60)]
    thumbnails = vis.head_grid(random_attention(1, 2, 60, 60), tokens).axes[:2]
    for axis in (thumbnails[0].yaxis, thumbnails[1].xaxis):
        at = axis.get_ticklocs()
        assert tick_texts(axis) == [tokens[int(i)] for i in at] and 8 <= len(at) <= 30
        assert len(set(np.diff(at))) == 1 and at[0] == 0
    assert tick_texts(vis.head_grid(random_attention(1, 2, 60, 60)).axes[0].yaxis) == ["0", "59"]


SUM = random_attention(2, 3, 4, 4)
NAN, PADDED, NEGATIVE = SUM[0, 0].copy(), SUM[0, 0].copy(), SUM[0, 0].copy()
NAN[2, 1], PADDED[3], NEGATIVE[2, :2] = np.nan, 0, (-0.5, 1.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: vis.heatmap(SUM), ValueError, r"2 leading axes \(batch\?\) too many .* attention\[0, 0\]"),
        (lambda: vis.head_grid(SUM[None]), ValueError, r"a leading axis \(batch\?\) too many for \(layer, head"),
        (lambda: vis.head_grid(SUM[0]), ValueError, r"needs the axes \(layer, head, query, key\)"),
        (lambda: vis.heatmap(NAN), ValueError, "nan at query 2, key 1"),
        (lambda: vis.heatmap(PADDED), ValueError, "query 3 sums to 0: a padded or fully masked query"),
        (lambda: vis.heatmap(NEGATIVE), ValueError, "-0.5 at query 2, key 0; probabilities are not negative"),
        (lambda: vis.heatmap(SUM[0, 0] * 2), ValueError, r"sum to 1 over the key axis, but query 0 sums to 2"),
        (lambda: vis.heatmap(SUM[0, 0].T), ValueError, "the query axis does sum to 1: swap the last two axes"),
        (lambda: vis.head_grid(SUM * 2), ValueError, "layer 0, head 0, query 0 sums to 2"),
        (lambda: vis.heatmap(SUM[0, 0], ["a"]), ValueError, "query axis has length 4 but there are 1 query labels"),
        (lambda: vis.heatmap(SUM[0, 0], "abcd"), TypeError, "query_labels must be a sequence"),
        (lambda: vis.heatmap(SUM[0, 0], None, list("abc")), ValueError, "key axis has length 4 but there are 3"),
        (lambda: vis.heatmap(np.ones((0, 4))), ValueError, "the query axis of attention is empty"),
        (lambda: vis.heatmap([[1.0], [0.5, 0.5]]), TypeError, "one real array"),
        (lambda: vis.heatmap(np.array([["1"]])), TypeError, "one real array"),
        (lambda: vis.heatmap(np.ones((1, 1), complex)), TypeError, "one real array"),
        (lambda: vis.heatmap(SUM[0, 0], scale="cubic"), ValueError, "scale must be"),
        (lambda: vis.heatmap(SUM[0, 0], visible=np.ones(4)), ValueError, r"visible must have shape .* = \(4, 4\)"),
        (lambda: vis.heatmap(SUM[0, 0], path="head.bmp"), ValueError, "saved as .png, .svg or .pdf"),
        (lambda: vis.head_grid(SUM, highlight=[(2, 0)]), ValueError, r"highlight names \(layer, head\) \(2, 0\)"),
        (lambda: vis.loss_curve([0, 1], [1.0]), ValueError, "train has 1 values but there are 2 points"),
        (lambda: vis.loss_curve([], []), ValueError, "non-empty"),
        (lambda: vis.lines([1, 2], {}, xlabel="x", ylabel="y"), ValueError, "1 to 8 labelled series, got 0"),
        (lambda: vis.lines([0, 1], {"a": [1, 2]}, xlabel="x", ylabel="y", logx=True), ValueError, "x holds 0"),
        (lambda: vis.bars(["a"], [1, 2], xlabel="x"), ValueError, "2 values but 1 labels"),
        (lambda: vis.bars(["a"], [np.nan], xlabel="x"), ValueError, "value of 'a' is not finite"),
        (lambda: vis.bars(["a"], [1], xlabel="x", highlight=["b"]), ValueError, "highlight names 'b'"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_line_that_names_the_axis(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_half_precision_rows_are_accepted():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        assert vis.heatmap(SUM[0, 0].astype(dtype), annotate=False).axes[0].images[0].get_array().dtype == np.float32


def test_loss_curve_labels_ends_and_baseline():
    steps = np.arange(100)
    train = 4 * np.exp(-steps / 30)
    figure = vis.loss_curve(steps, train, [4.2, 0.5], validation_steps=[0, 99], vocabulary=65, title="Loss")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "guessing uniformly: ln 65 = 4.17" in texts and "validation 0.50" in texts
    assert any(text.startswith("train 0.1") for text in texts)
    raw, smooth = figure.axes[0].lines[:2]
    assert np.array_equal(raw.get_ydata(), train)
    assert np.abs(smooth.get_ydata()[10:-10] - train[10:-10]).max() < 0.01  # centred, so it does not lag
    train[60:] = np.nan
    assert "loss is nan from step 60" in [t.get_text() for t in vis.loss_curve(steps, train).axes[0].texts]


def test_lines_and_bars_carry_labels_units_and_values(tmp_path):
    x = 2.0 ** np.arange(4, 8)
    figure = vis.lines(x, {"naive": x**2, "fused": x}, xlabel="T (tokens)", ylabel="memory (KiB)", logx=True, logy=True)
    axes = figure.axes[0]
    assert [np.array_equal(line.get_ydata(), y) for line, y in zip(axes.lines, (x**2, x), strict=True)] == [True, True]
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "naive": axes.lines[0].get_color(),
        "fused": axes.lines[1].get_color(),
    }
    assert tick_texts(axes.xaxis) == ["16", "32", "64", "128"] and axes.get_ylabel() == "memory (KiB)"
    figure = vis.bars(["NumPy", "C++"], [1234.5, 0.0321], xlabel="time (ms)", log=True, path=tmp_path / "bars.svg")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1234.5, 0.0321]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1,234", "0.0321"]
    assert tick_texts(figure.axes[0].yaxis) == ["NumPy", "C++"]
    assert "<svg" in (tmp_path / "bars.svg").read_text(encoding="utf-8")


def test_end_labels_do_not_touch():
    figure = vis.lines([0, 1], {"a": [0, 1.0], "b": [0, 1.001], "c": [0, 0.999]}, xlabel="x", ylabel="y")
    heights = sorted(text.xy[1] for text in figure.axes[0].texts)
    assert min(np.diff(heights)) > 0.05


def test_characters_without_a_font_become_escapes_and_a_warning_says_so_once(monkeypatch):
    monkeypatch.setattr(fonts, "_found", {"你": None, "é": "DejaVu Sans"})
    monkeypatch.setattr(fonts, "_warned", set())
    with pytest.warns(UserWarning, match=r"no installed font draws '你': shown as escapes like \\u4f60"):
        assert fonts.drawable_labels(["你é"], 24) == (["\\u4f60é"], [])
    with pytest.warns() as caught:
        fonts.drawable_labels(["你"], 24)
        warnings.warn("sentinel", stacklevel=1)
    assert [str(w.message) for w in caught] == ["sentinel"]


def test_fonts_are_found_for_what_the_first_one_lacks(monkeypatch):
    monkeypatch.setattr(fonts, "_found", {})
    monkeypatch.setattr(
        fonts, "_installed", lambda: [("DejaVu Sans", "base"), ("A CJK face", "cjk"), ("Another", "cjk")]
    )
    monkeypatch.setattr(fonts, "_characters", {"base": {"é"}, "cjk": {"é", "你"}}.get)
    assert fonts.drawable_labels(["你é"], 24) == (["你é"], ["A CJK face"])
    axes = vis.heatmap(np.eye(2), ["你", "b"], visible=np.ones((2, 2))).axes[0]
    assert axes.get_yticklabels()[0].get_fontfamily() == ["DejaVu Sans", "A CJK face"]


def test_the_readers_own_settings_are_untouched():
    before = dict(matplotlib.rcParams)
    vis.heatmap(np.eye(2))
    assert dict(matplotlib.rcParams) == before


def test_import_is_light_and_needs_no_other_part():
    code = (
        "import sys, minitransformer.visualization.heatmaps, minitransformer.visualization.charts;"
        "assert 'matplotlib' not in sys.modules, 'matplotlib is imported with the package'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
