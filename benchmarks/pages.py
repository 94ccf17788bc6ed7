"""Pages on necks: their costs, and the activations of MLFPN's levels."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import plots
from benchmarks.activations import PICTURE
from benchmarks.necks import AGAIN, Mode, ratios
from benchmarks.tables import Row, number, table, timing


class Source(NamedTuple):
    """A results file: its rows and settings, where pages are written, its device's folder and the way there."""

    rows: list[Row]
    settings: Mapping[str, Any]
    output: Path
    slug: str
    files: str

    def plot(self, name: str) -> tuple[Path, str]:
        """The path of a plot, and the line that shows it."""
        path = Path("plots") / f"{name}-{self.slug}.svg"
        return self.output / path, f"![{name.replace('-', ' ')}]({path.as_posix()})"


def device(content: Mapping[str, Any]) -> str:
    """The device of a results file, with the processor's instruction set where the file has it."""
    environment = content["environment"]
    known = f", {environment['instructions']}" if "instructions" in environment else ""
    return f"{environment['device'].replace(', 1 threads', ', 1 thread')}{known}"


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
        lines += ["### Images per second", ""]
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
    lines += ["Millions of parameters, and GFLOPs per image with a multiply-add as two.", ""]
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
    plots.points(file, [f"{b} {s}" for b, s in places], series, "ms, batch 1, forward, fp32")
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
        column = columns.setdefault(device(content), {})
        for row in _by_mode(r for r in content["rows"] if r["kind"] == "time").get(Mode(1), []):
            if row["key"] in ratio and AGAIN not in row["neck"].split():
                column.setdefault(row["neck"], []).append(ratio[row["key"]])
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    body = [
        [neck_title(n), *(f"{statistics.median(c[n]):.2f}" if n in c else "" for c in columns.values())] for n in names
    ]
    text = "Latency of the neck alone at batch 1, fp32, over that of the baseline: median over backbones and sizes."
    return [text, "", *table(["neck", *columns], body)]


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
