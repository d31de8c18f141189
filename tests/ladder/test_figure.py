"""The ladder's figure."""

import pytest

from minitransformer.visualization import ladder


def test_a_ladder(tmp_path):
    peaks = {"peak, 1 thread": 100.0, "peak, 2 threads": 200.0}
    figure = ladder(["1 a", "2 b", "2 c"], [0.5, 0.4, 150.0], peaks, failed=[False, True, False], xlabel="GFLOP/s",
                    title="x_1 and $y$", path=tmp_path / "ladder.png")  # fmt: skip
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["0.500", "0.400   0.80×", "150   300×"]  # against the last that did not fail
    assert texts[3:] == ["peak, 1 thread: 100", "peak, 2 threads: 200"]
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([0.5, 0.4, 150])
    assert axes.get_xscale() == "log" and axes.get_xlim()[1] > 200
    assert (tmp_path / "ladder.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("values", "failed", "message"),
    [
        ([1.0], [False, False], "2 labels, 1 values and 2 marks"),
        ([1.0, 0.0], None, "only finite values above 0"),
        ([1.0, float("nan")], None, "only finite values above 0"),
    ],
)
def test_what_cannot_be_drawn(values, failed, message):
    with pytest.raises(ValueError, match=message):
        ladder(["a", "b"], values, {"peak": 2.0}, failed=failed, xlabel="GB/s")
