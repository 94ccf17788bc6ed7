"""Plots: what is drawn lies inside the picture."""

from contextlib import contextmanager
from itertools import pairwise

import pytest

from benchmarks import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn."""
    figures = []
    plain = plots.figure

    @contextmanager
    def figure(*arguments):
        with plain(*arguments) as made:
            figures.append(made)
            yield made

    monkeypatch.setattr(plots, "figure", figure)
    return figures


@pytest.mark.parametrize("length", [3, 15, 25, 40])
def test_a_legend_lies_inside_its_picture(tmp_path, drawn, length):
    series = {f"{i} " + "m" * (length - 2): [(1.0, 0.9, 1.1)] * 5 for i in range(8)}
    plots.points(tmp_path / "plot.svg", ["group"] * 5, series, "ms")
    (legend,) = drawn[0].legends
    outer, inner = drawn[0].bbox, legend.get_window_extent()
    assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
    assert outer.y0 <= inner.y0 < inner.y1 <= outer.y1
    axes = drawn[0].axes[0].get_window_extent()
    assert axes.height > 0.25 * outer.height


def test_bars_are_named_and_start_at_the_top(tmp_path, drawn):
    plots.bars(tmp_path / "plot.svg", {f"row {i}": (50.0 + i, 49.0, 53.0 + i) for i in range(20)}, "AP")
    [axes] = drawn[0].axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [f"row {i}" for i in range(20)]
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert [bar.get_width() for bar in axes.patches] == [50.0 + i for i in range(20)]
    (lines,) = axes.collections
    assert [segment[:, 0].tolist() for segment in lines.get_segments()] == [[49.0, 53.0 + i] for i in range(20)]


def test_no_two_series_of_a_plot_look_alike():
    styles = [plots._style(index) for index in range(100)]
    assert len(set(styles)) == len(styles)
