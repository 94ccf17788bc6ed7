"""Pages on necks: costs, and accuracy in trained detectors."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import plots
from benchmarks.activations import PICTURE
from benchmarks.necks import AGAIN, Mode, ratios
from benchmarks.tables import Row, grouped, number, percent, spread, table, timing
from benchmarks.training import FIGURES, PUBLISHED


class Source(NamedTuple):
    """A results file: its rows and settings, where pages are written, its device's folder and the way there."""

    rows: list[Row]
    settings: Mapping[str, Any]
    output: Path
    slug: str
    files: str

    def plot(self, name: str) -> tuple[Path, str]:
        """Where to put a plot, and the line that shows it."""
        path = Path("plots") / f"{name}-{self.slug}.svg"
        return self.output / path, f"![{name.replace('-', ' ')}]({path.as_posix()})"


def neck_title(name: str) -> str:
    """A neck's name as tables show it."""
    return name.rpartition(":")[2] or name


# FFMv2 belongs with FFMv1, as does the 1x1 block before the first TUM.
_MLFPN_PARTS = {"ffm": ("ffm", "reduce", "fuse"), "TUMs": ("tums",), "SFAM": ("sfam",)}


def necks(source: Source) -> list[str]:
    """Costs by backbone and size, latencies by mode, memory."""
    baseline = source.settings["baseline"]
    timed = [row for row in source.rows if row["kind"] == "time"]
    lines = [*_costs([row for row in source.rows if row["kind"] == "costs"]), "### Latency", ""]
    ratio = ratios(source.rows, baseline)
    lines += [f"Median [quartiles] in milliseconds, and the ratio to {baseline}.", ""]
    for mode, rows in _by_mode(timed).items():
        lines += [f"**{mode_title(mode)}**", ""]
        lines += _neck_table(rows, lambda row: timing(row, ratio.get(row["key"])))
    batches = {mode: rows for mode, rows in _by_mode(timed).items() if mode.batch > 1 and not mode.backward}
    if batches:
        lines += ["### Images a second", ""]
        for mode, rows in batches.items():
            lines += [f"**{mode_title(mode)}**", ""]
            lines += _neck_table(rows, lambda row: number(row["images_per_s"]))
    lines += ["### Peak memory", ""]
    if not any("peak_mib" in row for row in timed):
        lines += ["Only CUDA says how much memory a call takes; on the CPU it was not measured.", ""]
    for mode, rows in _by_mode([row for row in timed if "peak_mib" in row]).items():
        lines += [f"**{mode_title(mode)}**: MiB beyond weights and inputs", ""]
        lines += _neck_table(rows, lambda row: number(row["peak_mib"]))
    return lines + _neck_plots(source, timed, ratio)


def mode_title(mode: Mode) -> str:
    """A mode in words."""
    words = ["backbone and neck" if mode.part == "pyramid" else "neck alone", f"batch {mode.batch}"]
    words += ["forward and backward" if mode.backward else "forward", mode.precision]
    words += [word for word, on in (("channels last", mode.layout != "contiguous"), ("compiled", mode.compiled)) if on]
    return ", ".join(words)


def _mode(row: Row) -> Mode:
    return Mode(**{name: row[name] for name in Mode.__dataclass_fields__})


def _by_mode(rows: Iterable[Row]) -> dict[Mode, list[Row]]:
    groups: dict[Mode, list[Row]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault(_mode(row), []).append(row)
    return groups


def _neck_table(rows: Sequence[Row], text: Any) -> list[str]:
    places = list(dict.fromkeys((row["backbone"], row["size"]) for row in rows))
    cells = {(row["neck"], row["backbone"], row["size"]): text(row) for row in rows}
    names = list(dict.fromkeys(row["neck"] for row in rows))
    head = ["neck", *(f"{backbone} {size}" for backbone, size in places)]
    return table(head, [[neck_title(name), *(cells.get((name, *place), "") for place in places)] for name in names])


def _costs(rows: Sequence[Row]) -> list[str]:
    lines = ["### Parameters and operations", ""]
    lines += ["Millions of parameters, and GFLOPs an image with a multiply-add as two.", ""]
    body = []
    for row in rows:
        if "error" in row:
            continue
        body.append(
            [
                *(row["backbone"], str(row["size"]), neck_title(row["neck"])),
                *(number(row[name]) for name in ("neck_mparams", "neck_gflops", "backbone_mparams", "backbone_gflops")),
                str(len(row["maps"])),
            ]
        )
    head = ["backbone", "size", "neck", "neck M", "neck GFLOPs", "backbone M", "backbone GFLOPs", "maps"]
    lines += table(head, body, left=3)
    parts = []
    for row in rows:
        if row["neck"] == "mlfpn" and "error" not in row:
            cells = []
            for names in _MLFPN_PARTS.values():
                cells += [number(sum(row[k].get(n, 0.0) for n in names)) for k in ("part_mparams", "part_gflops")]
            parts.append([row["backbone"], str(row["size"]), *cells])
    if parts:
        head = ["MLFPN on", "size", *(f"{part} {unit}" for part in _MLFPN_PARTS for unit in ("M", "GFLOPs"))]
        lines += table(head, parts, left=2)
    return lines


def _neck_plots(source: Source, timed: Sequence[Row], ratio: Mapping[str, float]) -> list[str]:
    rows = [row for row in _by_mode(timed).get(Mode(1), []) if row["key"] in ratio]
    if not rows:
        return []
    places = list(dict.fromkeys((row["backbone"], row["size"]) for row in rows))
    series: dict[str, list[tuple[float, float, float] | None]] = {}
    for row in rows:
        values = series.setdefault(neck_title(row["neck"]), [None] * len(places))
        values[places.index((row["backbone"], row["size"]))] = (row["median_ms"], row["lower_ms"], row["upper_ms"])
    file, line = source.plot("neck-latency")
    plots.bars(file, [f"{b} {s}" for b, s in places], series, "ms, batch 1, forward, fp32", log=True)
    costs = {(r["neck"], r["backbone"], r["size"]): r for r in source.rows if r["kind"] == "costs" and "error" not in r}
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        cost = costs.get((row["neck"], row["backbone"], row["size"]))
        if cost is not None:
            points.setdefault(neck_title(row["neck"]), []).append((cost["neck_gflops"], row["median_ms"]))
    lines = ["### Plots", "", line, ""]
    if points:
        file, line = source.plot("neck-operations")
        plots.scatter(file, points, ("GFLOPs of the neck", "ms, batch 1, forward, fp32"))
        lines += [line, ""]
    return lines


def necks_together(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The median over backbones and sizes of every neck's ratio at batch 1, by device."""
    columns: dict[str, dict[str, list[float]]] = {}
    for content in contents.values():
        ratio = ratios(content["rows"], content["settings"]["baseline"])
        column = columns.setdefault(content["environment"]["device"], {})
        for row in _by_mode(r for r in content["rows"] if r["kind"] == "time").get(Mode(1), []):
            if row["key"] in ratio and AGAIN not in row["neck"].split():
                column.setdefault(row["neck"], []).append(ratio[row["key"]])
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    body = [
        [neck_title(n), *(f"{statistics.median(c[n]):.2f}" if n in c else "" for c in columns.values())] for n in names
    ]
    text = "Latency of the neck alone at batch 1, fp32, over that of the baseline: median over backbones and sizes."
    return [text, "", *table(["neck", *columns], body)]


def ablation(source: Source) -> list[str]:
    """AP of every row over seeds, the step from the first row, and the paper's."""
    # The paper's rows first; a row that failed at first and was run again stands last in the file.
    groups = grouped(sorted(source.rows, key=lambda row: "paper_ap" not in row), "row")
    if not groups:
        return []
    first = next(iter(groups.values()))
    base, paper_base = statistics.mean(row["AP"] for row in first), first[0].get("paper_ap")
    body = []
    for rows in groups.values():
        paper = rows[0].get("paper_ap")
        step = 100 * (statistics.mean(row["AP"] for row in rows) - base)
        body.append(
            [
                rows[0]["title"],
                spread([row["AP"] for row in rows]),
                "" if rows is first else f"{step:+.1f}",
                "" if paper is None else f"{paper:.1f}",
                "" if paper is None or rows is first or paper_base is None else f"{paper - paper_base:+.1f}",
                *(spread([row[name] for row in rows]) for name in ("AP50", "APs", "APm", "APl")),
                *(number(rows[0][name]) for name in ("mparams", "gflops")),
                str(len(rows)),
            ]
        )
    head = ["row", "AP", "step", "paper's AP", "paper's step", "AP50", "S", "M", "L", "M parameters", "GFLOPs"]
    lines = table([*head, "seeds"], body)
    file, line = source.plot("ablation")
    values = [[100 * row["AP"] for row in rows] for rows in groups.values()]
    plots.bars(
        file,
        [rows[0]["title"] for rows in groups.values()],
        {"AP": [(statistics.mean(v), min(v), max(v)) for v in values]},
        "AP (lines: lowest to highest seed)",
    )
    return [*lines, line, ""]


def ablation_together(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """AP of every row by device and data."""
    columns = {
        f"{content['settings']['data']}, {content['environment']['device']}": grouped(content["rows"], "row")
        for content in contents.values()
    }
    titles = {key: rows[0]["title"] for groups in columns.values() for key, rows in groups.items()}
    body = [
        [title, *(spread([row["AP"] for row in groups.get(key, [])]) for groups in columns.values())]
        for key, title in titles.items()
    ]
    return table(["AP", *columns], body)


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
    """AP by complexity, and heat maps of complexity over scale for every row."""
    groups = grouped(source.rows, "row")
    if not groups:
        return []
    any_row = next(iter(groups.values()))[0]
    kinds = list(dict.fromkeys(cell["complexity"] for cell in any_row["cells"]))
    scales = list(dict.fromkeys(tuple(cell["scale"]) for cell in any_row["cells"]))
    maps, body = {}, []
    for rows in groups.values():
        grid = np.full((len(kinds), len(scales)), np.nan)
        for k, kind in enumerate(kinds):
            for i, scale in enumerate(scales):
                cells = [c for row in rows for c in row["cells"]]
                found = [
                    c["ap"] for c in cells if c["complexity"] == kind and tuple(c["scale"]) == scale and c["ap"] >= 0
                ]
                if found:
                    grid[k, i] = 100 * statistics.mean(found)
        maps[rows[0]["title"]] = grid
        body.append([rows[0]["title"], *("" if np.isnan(x) else f"{x:.1f}" for x in grid.ravel())])
    names = [f"{low:g}-{high:g}" for low, high in scales]
    objects = [str(cell["objects"]) for cell in any_row["cells"]]
    body.append(["objects", *objects])
    lines = ["AP in points, mean over seeds; scales in pixels.", ""]
    lines += table(["row", *(f"{kind} {name}" for kind in kinds for name in names)], body)
    file, line = source.plot("complexity")
    plots.heat_maps(file, maps, kinds, names, ("scale, pixels", "complexity"))
    return [*lines, line, ""]


def training(source: Source) -> list[str]:
    """Figures of every run beside published ones, its command, its time and its picture."""
    lines: list[str] = []
    for name, rows in grouped(source.rows, "data").items():
        lines += [f"### {name}", ""]
        body = [
            [
                row["model"],
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
                    other.measured_on,
                    *(percent(figures.get(f)) for f in FIGURES),
                    f"published: {other.source}",
                ]
            )
        lines += table(["model", "measured on", "AP", "AP50", "AP75", "S", "M", "L", "source"], body, left=2)
        for row in rows:
            lines += [
                f"`{row['command']}`: {row['epochs']} epochs, {row['views']:,} images seen, on {row['trained_on']}; "
                f"{number(row['train_minutes'])} minutes of training at {number(row['images_per_second'])} images a "
                f"second, {percent(row['waiting_for_data'])} % of it waiting for data.",
                "",
            ]
            classes = row["classes"].items()
            lines += table(["class", "AP", "AP50"], [[n, percent(c["AP"]), percent(c["AP50"])] for n, c in classes])
            lines += [f"![Found to the left, the truth to the right]({source.files}/{row['picture']})", ""]
    return lines


def activations(source: Source) -> list[str]:
    """The picture, and each level's peak and attention by scale."""
    rows = [row for row in source.rows if "error" not in row]
    if not rows:
        return []
    scales = sorted({row["scale"] for row in rows})
    levels = sorted({row["level"] for row in rows})
    at = {(row["level"], row["scale"]): row for row in rows}
    sizes = {row["scale"]: "x".join(map(str, row["size"])) for row in rows}
    head = ["level", *(f"scale {scale} ({sizes[scale]})" for scale in scales)]
    lines = [f"![activations]({source.files}/{PICTURE})", "", "Largest term of a foreground logit:", ""]
    lines += table(head, [[str(n), *(number(at[n, scale]["peak"]) for scale in scales)] for n in levels])
    if "attention" in rows[0]:
        lines += ["SFAM's attention, mean over a level's channels:", ""]
        lines += table(head, [[str(n), *(f"{at[n, scale]['attention']:.2f}" for scale in scales)] for n in levels])
    return lines
