"""Pages on trained detectors: accuracy, and what decides whether a neck learns."""

import shlex
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import plots
from benchmarks.pages import Source
from benchmarks.real import TITLES
from benchmarks.tables import Row, grouped, number, percent, spread, table
from benchmarks.training import FIGURES, PUBLISHED


def gradients(source: Source) -> list[str]:
    """Relative update per step, maps and gradients of each neck, by level and scale."""
    rows = [row for row in source.rows if "error" not in row]
    if not rows:
        return []
    body = []
    for row in rows:
        cells = [row["title"], f"{100 * row['relative_update']:.1f} %"]
        for stage in ("before", "after"):
            levels = sorted({x["level"] for x in row[stage]})
            finest = [next(x for x in row[stage] if x["level"] == n and x["scale"] == 1) for n in levels]
            growth = (finest[0]["gradient"] / finest[-1]["gradient"]) ** (1 / max(len(levels) - 1, 1))
            sizes = [x["rms"] for x in row[stage]]
            cells += [f"{min(sizes):.2f} to {max(sizes):.2f}", f"{growth:.2f}" if len(levels) > 1 else ""]
        body.append(cells)
    head = ["neck", "update per step", "maps, at first", "gradients per level", "maps, after", "gradients per level"]
    lines = table(head, body)
    words_of = {"gradient": "Norms of the gradients to maps", "rms": "Root mean squares of maps"}
    for quantity, title in (("gradient", "gradients"), ("rms", "maps")):
        maps = {}
        for row in rows:
            for stage, words in (("before", "at first"), ("after", "after")):
                grid = np.full([max(x[name] for x in row[stage]) for name in ("level", "scale")], np.nan)
                for x in row[stage]:
                    grid[x["level"] - 1, x["scale"] - 1] = x[quantity]
                maps[f"{row['title']}, {words}"] = grid
        lines += _by_level(source, f"{words_of[quantity]} of MLFPN", f"{title}-by-level", maps)
        lines += _by_neck(source, f"{words_of[quantity]} of the other necks", f"{title}-by-neck", rows, quantity)
    return lines


def _by_level(source: Source, words: str, name: str, grids: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """A heat map of level over scale for each neck of several levels."""
    deep = {title: grid for title, grid in grids.items() if len(grid) > 1}
    if not deep:
        return []
    file, line = source.plot(name)
    largest = max(deep.values(), key=len)
    levels, scales = ([str(i + 1) for i in range(n)] for n in largest.shape)
    plots.heat_maps(file, deep, levels, scales, ("scale", "level"), format="{:.2g}", log=True)
    return [f"{words} by level and scale:", "", line, ""]


def _by_neck(source: Source, words: str, name: str, rows: Sequence[Row], quantity: str) -> list[str]:
    """A heat map of neck over scale, at initialization and after the steps, for necks of one level."""
    flat = [row for row in rows if all(x["level"] == 1 for x in row["before"])]
    if not flat:
        return []
    file, line = source.plot(name)
    scales = max(x["scale"] for row in flat for x in row["before"])
    grids = {}
    for stage, title in (("before", "at first"), ("after", "after")):
        grid = grids[title] = np.full((len(flat), scales), np.nan)
        for place, row in enumerate(flat):
            for x in row[stage]:
                grid[place, x["scale"] - 1] = x[quantity]
    columns = [str(i + 1) for i in range(scales)]
    plots.heat_maps(file, grids, [row["title"] for row in flat], columns, ("scale", ""), format="{:.2g}", log=True)
    return [f"{words} by scale:", "", line, ""]


def allocator(source: Source) -> list[str]:
    """Images per second and peak memory with freed memory kept and without."""
    rows = [row for row in source.rows if "error" not in row]
    body = [
        [
            str(row["batch"]),
            *(number(row[name]) for name in ("images_per_s", "kept_images_per_s")),
            f"{row['times_faster']:.2f}",
            *(number(row[name]) for name in ("peak_mib", "kept_peak_mib")),
        ]
        for row in rows
    ]
    head = ["batch", "images per second", "with memory kept", "times faster", "peak MiB", "with memory kept"]
    return table(head, body) if body else []


def variants(source: Source) -> list[str]:
    """AP and parameters by levels and channels."""
    groups = grouped(source.rows, "row")
    if not groups:
        return []
    body = []
    for rows in groups.values():
        row = rows[0]
        difference = 100 * (row["full_mparams"] / row["paper_mparams"] - 1)
        body.append(
            [
                *(str(row[name]) for name in ("levels", "channels")),
                *(f"{row[name]:.1f}" for name in ("paper_mparams", "full_mparams")),
                f"{difference:+.1f} %",
                *(str(row["trained_channels"]), number(row["mparams"]), number(row["gflops"])),
                *(spread([row[name] for row in rows]) for name in ("AP", "AP50")),
                str(len(rows)),
            ]
        )
    head = ["levels", "channels", "paper's M", "our M", "difference", "trained channels", "trained M", "GFLOPs"]
    lines = table([*head, "AP", "AP50", "seeds"], body, left=0)
    firsts = [rows[0] for rows in groups.values()]
    levels, channels = (sorted({row[name] for row in firsts}) for name in ("levels", "channels"))
    grid = np.full((len(levels), len(channels)), np.nan)
    for rows in groups.values():
        place = levels.index(rows[0]["levels"]), channels.index(rows[0]["channels"])
        grid[place] = 100 * statistics.mean(row["AP"] for row in rows)
    file, line = source.plot("variants")
    plots.heat_maps(
        file, {"AP": grid}, [*map(str, levels)], [*map(str, channels)], ("channels", "levels"), format="{:.1f}"
    )
    return [*lines, line, ""]


def complexity(source: Source) -> list[str]:
    """AP by scale for each complexity, and heat maps of complexity over scale for every row."""
    rows_of = grouped(source.rows, "row")
    if not rows_of:
        return []
    first = next(iter(rows_of.values()))[0]["groups"]
    kinds = list(dict.fromkeys(group["complexity"] for group in first))
    scales = list(dict.fromkeys(tuple(group["scale"]) for group in first))
    names = [f"{low:g} to {high:g}" for low, high in scales]
    grids = {rows[0]["title"]: np.stack([_grid(row, kinds, scales) for row in rows]) for rows in rows_of.values()}
    lines = ["AP in points, mean and deviation over seeds; scales in pixels.", ""]
    for k, kind in enumerate(kinds):
        body = [
            [title, *(spread(list(values)) for values in (grid[:, k].mean(1), *grid[:, k].T))]
            for title, grid in grids.items()
        ]
        objects = [group["objects"] for group in first if group["complexity"] == kind]
        body.append(["objects", *(str(count) for count in (sum(objects), *objects))])
        lines += [f"### {kind.capitalize()}", "", *table(["row", "mean", *names], body)]
    file, line = source.plot("complexity")
    maps = {title: 100 * grid.mean(0) for title, grid in grids.items()}
    plots.heat_maps(file, maps, kinds, names, ("scale, pixels", "complexity"))
    return [*lines, line, ""]


def _grid(row: Row, kinds: Sequence[str], scales: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """AP of one training by kind and scale; NaN where there are no objects."""
    ap = {(group["complexity"], tuple(group["scale"])): group["ap"] for group in row["groups"] if group["ap"] >= 0}
    return np.array([[ap.get((kind, scale), np.nan) for scale in scales] for kind in kinds])


_FIGURE_NAMES = ("AP", "AP50", "AP75", "S", "M", "L")


def _options(command: str) -> str:
    """The options of a `train` command beside its model, its data and its output.

    >>> _options("python -m detectors train --data bccd --model=m2det --epochs 8 --no-flip --output runs/x")
    '--epochs 8 --no-flip'
    """
    words, shown = iter(shlex.split(command)[4:]), []
    for word in words:
        name, with_value, _ = word.partition("=")
        if name not in ("--data", "--model", "--output"):
            shown.append(word)
        elif not with_value:
            next(words, None)
    return shlex.join(shown)


def training(source: Source) -> list[str]:
    """Figures of every run beside published ones, its command, its time and its picture."""
    lines: list[str] = []
    for name, rows in grouped(source.rows, "data").items():
        lines += [f"### {name}", ""]
        body = [
            [
                row["model"],
                f"`{options}`" if (options := _options(row["command"])) else "",
                f"{row['split']}, {row['images']} images",
                *(percent(row[figure]) for figure in FIGURES),
                "here",
            ]
            for row in rows
        ]
        for other in PUBLISHED.get(name, ()):
            figures = {"AP": other.ap, "AP50": other.ap50}
            body.append(
                [
                    other.model,
                    "",
                    other.measured_on,
                    *(percent(figures.get(f)) for f in FIGURES),
                    f"published: {other.source}",
                ]
            )
        lines += table(["model", "options", "measured on", *_FIGURE_NAMES, "source"], body, left=3)
        for row in rows:
            lines += [
                f"`{row['command']}`: {row['epochs']} epochs, {row['views']:,} images seen, on {row['trained_on']}; "
                f"{number(row['train_minutes'])} minutes of training at {number(row['images_per_second'])} images "
                f"per second, {percent(row['waiting_for_data'])} % of it waiting for data.",
                "",
            ]
            classes = row["classes"].items()
            lines += table(["class", "AP", "AP50"], [[n, percent(c["AP"]), percent(c["AP50"])] for n, c in classes])
            lines += [f"![Found to the left, the truth to the right]({source.files}/{row['picture']})", ""]
    return lines


def real(source: Source) -> list[str]:
    """AP of every row over seeds by data folder and number of epochs, and what the first seed of each finds."""
    lines: list[str] = []
    tables = [
        (f"{name}, {epochs} epochs", same)
        for name, rows in grouped(source.rows, "data").items()
        for epochs, same in grouped(rows, "epochs").items()
    ]
    for name, rows in tables:
        body = [
            [
                TITLES[row],
                *(spread([seed[figure] for seed in seeds]) for figure in FIGURES),
                number(seeds[0]["mparams"]),
                number(statistics.mean(seed["train_seconds"] for seed in seeds) / 60),
                *(str(value) for value in (seeds[0]["batch_size"], len(seeds))),
            ]
            for row, seeds in grouped(rows, "row").items()
        ]
        head = ["row", *_FIGURE_NAMES, "M par.", "minutes", "batch", "seeds"]
        lines += [f"### {name}", "", *table(head, body)]
        for row, seeds in grouped(rows, "row").items():
            shown = f"![{TITLES[row]}: found to the left, the truth to the right]"
            lines += [f"**{TITLES[row]}**", "", f"{shown}({source.files}/{seeds[0]['picture']})", ""]
    return lines
