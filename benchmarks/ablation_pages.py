"""The page of the ablation: AP of every row, curves of AP over pictures, and what the search found."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks import plots
from benchmarks.ablation import PAPER_AP
from benchmarks.pages import Source
from benchmarks.tables import Row, grouped, number, percent, spread, table
from detectors.data.synthetic_objects import CLASS_NAMES
from detectors.training.evaluation import COMPLEXITIES


def ablation(source: Source) -> list[str]:
    """AP of every row over seeds, the step from the first row, and the paper's; curves; what the search found."""
    # The paper's rows first and in its order; the file has them in that of their measurement.
    places = {key: place for place, key in enumerate(PAPER_AP)}
    rows = sorted(source.rows, key=lambda row: places.get(row["row"], len(places)))
    kinds = {
        kind: grouped([row for row in rows if _kind(row) == kind], "row") for kind in ("result", "curve", "search")
    }
    lines = _ablation_table(source, kinds["result"]) + _by_complexity(kinds["result"]) if kinds["result"] else []
    if kinds["curve"]:
        lines += _curves(source, kinds["result"], kinds["curve"])
    return lines + (_search(kinds["search"]) if kinds["search"] else [])


def _kind(row: Row) -> str:
    first = row["key"].partition("/")[0]
    return first if first in ("search", "curve") else "result"


def _ablation_table(source: Source, groups: Mapping[str, list[Row]]) -> list[str]:
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
    head = ["row", "AP", "step", "paper's AP", "paper's step", "AP50", "S", "M", "L", "M par.", "GFLOPs"]
    lines = table([*head, "seeds"], body)
    file, line = source.plot("ablation")
    values = {rows[0]["title"]: [100 * row["AP"] for row in rows] for rows in groups.values()}
    spans = {title: (statistics.mean(v), min(v), max(v)) for title, v in values.items()}
    plots.bars(file, spans, "AP (lines: lowest to highest seed)")
    return [*lines, line, ""]


def _by_complexity(groups: Mapping[str, list[Row]]) -> list[str]:
    """AP by how complex classes look, of the embedded data's classes; nothing for other data."""
    kinds = {kind: CLASS_NAMES[3 * i : 3 * i + 3] for i, kind in enumerate(COMPLEXITIES)}
    body = []
    for rows in groups.values():
        if any(not set(CLASS_NAMES) <= set(row.get("classes", ())) for row in rows):
            return []
        points = [
            [statistics.mean(row["classes"][name]["AP"] for name in names) for row in rows] for names in kinds.values()
        ]
        body.append([rows[0]["title"], *(spread(values) for values in points)])
    text = "Classes in three groups, the mean AP of each: " + "; ".join(
        f"{kind}: {', '.join(names)}" for kind, names in kinds.items()
    )
    text += ". A composite's class lies in the arrangement of its parts."
    return ["### AP by complexity of appearance", "", text, "", *table(["row", *kinds], body)]


def _curves(source: Source, results: Mapping[str, list[Row]], curves: Mapping[str, list[Row]]) -> list[str]:
    """AP over the number of training pictures, each a training of its own from seed 0."""
    series = {}
    for key, rows in curves.items():
        first_seed = [row for row in [*rows, *results.get(key, [])] if row["seed"] == 0]
        series[rows[0]["title"]] = {row["images"]: 100 * row["AP"] for row in first_seed}
    counts = sorted({images for values in series.values() for images in values})
    body = [[title, *(f"{values[n]:.1f}" if n in values else "" for n in counts)] for title, values in series.items()]
    lines = [
        "### AP over pictures seen",
        "",
        "Each figure is a training of its own, from seed 0, with its own schedule.",
    ]
    lines += ["", *table(["row", *(f"{n:,}" for n in counts)], body)]
    file, line = source.plot("ablation-curves")
    plots.curves(file, {name: sorted(v.items()) for name, v in series.items()}, ("pictures seen", "AP"))
    return [*lines, line, ""]


def _search(groups: Mapping[str, list[Row]]) -> list[str]:
    """AP of every trial of the search, and the chosen setting."""
    body = []
    for rows in groups.values():
        best = max(rows, key=lambda row: row["AP"])
        trials = "; ".join(f"{_setting(row)}: {percent(row['AP'])}" for row in rows)
        body.append([rows[0]["title"], _setting(best), trials])
    text = "Learning rate, then the factor on the neck's initial weights before norms, on shorter "
    text += "runs from a seed of their own. AP of each trial:"
    return ["### The search", "", text, "", *table(["row", "chosen", "trials"], body, left=3)]


def _setting(row: Row) -> str:
    return f"{row['lr']:g} x{row['scale']:g}"


def ablation_together(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """AP of every row by device and data."""
    columns = {
        f"{content['settings']['data']}, {content['environment']['device']}": grouped(
            [row for row in content["rows"] if _kind(row) == "result"], "row"
        )
        for content in contents.values()
    }
    titles = {key: rows[0]["title"] for groups in columns.values() for key, rows in groups.items()}
    body = [
        [title, *(spread([row["AP"] for row in groups.get(key, [])]) for groups in columns.values())]
        for key, title in titles.items()
    ]
    return table(["AP", *columns], body)
