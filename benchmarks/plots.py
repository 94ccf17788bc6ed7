"""Plots of results as SVG files that are the same, byte for byte, for the same results."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLORS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")
MARKERS = "osD^v<>PX*"


@contextmanager
def figure(file: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib figure, saved when the block ends: SVG with text as text, without a date, or PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "feature-pyramids", "svg.fonttype": "none", "font.size": 9, "axes.grid.axis": "both"}
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Creator": None} if file.suffix == ".svg" else {"Software": None}
        drawn.savefig(file, metadata=metadata, dpi=110, facecolor="white")


def bars(file: Path, values: Mapping[str, tuple[float, float, float]], label: str) -> None:
    """Horizontal bars, the first on top, of (value, lower, upper) by name."""
    with figure(file, (6.8, 0.27 * len(values) + 0.9)) as drawn:
        axes = drawn.subplots()
        lengths, lower, upper = np.array(list(values.values())).T
        errors = np.abs([lengths - lower, upper - lengths])
        axes.barh(range(len(values)), lengths, xerr=errors, capsize=2, color=COLORS[0], error_kw={"lw": 0.8})
        axes.set_yticks(range(len(values)), list(values))
        axes.invert_yaxis()
        axes.set(xlabel=label)
        axes.grid(axis="x", alpha=0.3)


def _style(index: int) -> tuple[str, str]:
    """Marker and color of a series; no pair comes twice among the first hundred."""
    return MARKERS[(index + index // len(COLORS)) % len(MARKERS)], COLORS[index % len(COLORS)]


def points(
    file: Path,
    groups: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float] | None]],
    label: str,
) -> None:
    """Groups of points on a logarithmic axis, one per series: (value, lower, upper), or None where there is none."""
    with figure(file, (max(6.0, 1.1 * len(groups) + 2), 3.6)) as drawn:
        axes = drawn.subplots()
        width = 0.8 / max(len(series), 1)
        for i, (name, values) in enumerate(series.items()):
            present = [(g, value) for g, value in enumerate(values) if value is not None]
            places = [g + (i - (len(series) - 1) / 2) * width for g, _ in present]
            heights = [value[0] for _, value in present]
            errors = np.abs(np.array([[v[0] - v[1] for _, v in present], [v[2] - v[0] for _, v in present]]))
            marker, color = _style(i)
            axes.errorbar(places, heights, errors, fmt=marker, ms=4, capsize=2, color=color, label=name, lw=0.8)
        turned = {"rotation": 20, "ha": "right"} if len(groups) > 1 else {}
        axes.set_xticks(range(len(groups)), groups, **turned)
        axes.set(ylabel=label, yscale="log")
        axes.grid(axis="y", alpha=0.3)
        if len(series) > 1:
            for columns in (4, 3, 2, 1):  # as many as fit
                legend = drawn.legend(loc="outside upper center", fontsize=8, ncols=columns)
                if columns == 1 or legend.get_window_extent().width < drawn.bbox.width:
                    break
                legend.remove()


def scatter(file: Path, points: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str]) -> None:
    """Points of several names in one logarithmic plane."""
    with figure(file, (6.4, 4.2)) as drawn:
        axes = drawn.subplots()
        for i, (name, places) in enumerate(points.items()):
            marker, color = _style(i)
            axes.plot(*zip(*places), marker, color=color, label=name, alpha=0.85)
        axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)


def curves(file: Path, series: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str]) -> None:
    """Lines of several names over a logarithmic axis."""
    with figure(file, (6.4, 4.2)) as drawn:
        axes = drawn.subplots()
        for i, (name, points) in enumerate(series.items()):
            marker, color = _style(i)
            axes.plot(*zip(*points), marker + "-", color=color, label=name, lw=1.2, ms=4)
        ticks = sorted({x for points in series.values() for x, _ in points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
        axes.minorticks_off()
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)


def heat_maps(
    file: Path,
    maps: Mapping[str, NDArray[np.float64]],
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    *,
    format: str = "{:.0f}",
    log: bool = False,
) -> None:
    """Small heat maps with one color scale, linear or logarithmic, values written in; NaN stays empty."""
    across = min(len(maps), 4)
    down = -(-len(maps) // across)
    colors = {name: np.log10(m) if log else m for name, m in maps.items()}
    values = np.concatenate([m.ravel() for m in colors.values()])
    low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if np.isfinite(values).any() else (0.0, 1.0)
    size = (0.62 * len(columns) * across + 1.6, (0.42 * len(rows) + 0.8) * down + 0.3)
    with figure(file, (max(size[0], 4.5), size[1])) as drawn:
        grid = drawn.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(maps) :]:
            axes.axis("off")
        for i, (axes, (name, values)) in enumerate(zip(grid.flat, maps.items())):
            axes.imshow(colors[name], vmin=low, vmax=high, cmap="viridis", aspect="auto")
            for (y, x), value in np.ndenumerate(values):
                if np.isfinite(value):
                    light = colors[name][y, x] <= (low + high) / 2
                    text = format.format(value)
                    axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if light else "black")
            axes.set_title(name, fontsize=8)
            axes.set_xticks(range(len(columns)), columns, fontsize=7)
            axes.set_yticks(range(len(rows)), rows if i % across == 0 else [""] * len(rows), fontsize=7)
            if i // across == down - 1:
                axes.set_xlabel(labels[0], fontsize=8)
            if i % across == 0:
                axes.set_ylabel(labels[1], fontsize=8)
