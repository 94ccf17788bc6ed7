"""Plots: what is drawn lies inside the picture."""

from contextlib import contextmanager

import pytest

from benchmarks import plots


@pytest.mark.parametrize("length", [3, 15, 25, 40])
def test_a_legend_lies_inside_its_picture(tmp_path, monkeypatch, length):
    drawn = []
    plain = plots.figure

    @contextmanager
    def figure(*arguments):
        with plain(*arguments) as made:
            drawn.append(made)
            yield made

    monkeypatch.setattr(plots, "figure", figure)
    series = {f"{i} " + "m" * (length - 2): [(1.0, 0.9, 1.1)] * 5 for i in range(8)}
    plots.bars(tmp_path / "plot.svg", ["group"] * 5, series, "ms", log=True)
    (legend,) = drawn[0].legends
    outer, inner = drawn[0].bbox, legend.get_window_extent()
    assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
    assert outer.y0 <= inner.y0 < inner.y1 <= outer.y1
    axes = drawn[0].axes[0].get_window_extent()
    assert axes.height > 0.25 * outer.height
