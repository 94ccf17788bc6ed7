"""Pages on speed: whole detectors, their parts against the machine's peaks, and suppression."""

from benchmarks import nms as suppression
from benchmarks import plots
from benchmarks.loader import RECIPES
from benchmarks.pages import Source
from benchmarks.tables import grouped, number, table, timing


def speed(source: Source) -> list[str]:
    """Latency of every detector, and where the time goes."""
    timed = [dict(row) for row in source.rows if row["kind"] == "speed" and "error" not in row]
    models = list(dict.fromkeys(row["model"] for row in timed))
    timed.sort(key=lambda row: (models.index(row["model"]), row["load"] == "full"))  # some were measured again
    body = [
        [
            *(row["model"], str(row["size"]), row["load"].split()[0]),
            row["way"] if row["batch"] == 1 else f"{row['way']}, batch {row['batch']}",
            timing(row),
            number(row["images_per_second"]),
            number(row["detections"]),
            f"{row['times_faster']:.2f}" if "times_faster" in row else "",
            number(row["network_ms"]) if "network_ms" in row else "",
            f"{row['network_times_faster']:.2f}" if "network_times_faster" in row else "",
        ]
        for row in timed
    ]
    head = ["detector", "size", "threshold", "way", "ms [quartiles]", "images/s", "detections"]
    lines = [*table([*head, "times faster than eager", "network alone, ms", "times faster"], body, left=4)]
    full = [row for row in timed if row["load"] == "full" and row["batch"] == 1]
    if full:
        models = list(dict.fromkeys(row["model"] for row in full))
        series: dict[str, list[tuple[float, float, float] | None]] = {}
        for row in full:
            values = series.setdefault(row["way"], [None] * len(models))
            values[models.index(row["model"])] = (row["median_ms"], row["lower_ms"], row["upper_ms"])
        file, line = source.plot("speed")
        plots.points(file, models, series, "ms per image, batch 1")
        lines += [line, ""]
    for part in source.rows:
        if part["kind"] == "roofline" and "error" not in part:
            lines += _roofline(dict(part))
    return lines


def _roofline(row: dict[str, object]) -> list[str]:
    peaks, parts = row["peaks"], row["parts"]
    assert isinstance(peaks, dict)  # as the benchmark writes them
    assert isinstance(parts, list)
    measured = ", ".join(f"{name} {number(value)}" for name, value in peaks.items() if isinstance(value, int | float))
    lines = [f"### {row['model']}, {row['precision']}, batch {row['batch']}: parts against measured peaks", ""]
    lines += [f"Peaks of this machine: {measured}. GFLOP are those done: Winograd's convolutions do fewer.", ""]
    body = [
        [
            part["part"],
            *(number(part[name]) for name in ("gflop", "gbyte")),
            timing(part),
            number(part["floor_ms"]),
            part["bound"],
            *(f"{100 * part[name]:.0f} %" for name in ("share_of_peak_flops", "share_of_floor")),
        ]
        for part in parts
    ]
    head = ["part", "GFLOP", "GB", "ms [quartiles]", "floor ms", "bound by", "of peak FLOPs", "of floor"]
    return [*lines, *table(head, body)]


def nms(source: Source) -> list[str]:
    """Times by shape and method."""
    rows = [dict(row) for row in source.rows if "error" not in row]
    faster = suppression.speedups(rows)
    body = [
        [
            f"{row['images']} x {row['classes']} x {row['boxes']}",
            row["subject"],
            timing(row),
            f"{faster[row['key']]:.1f}" if row["key"] in faster else "",
        ]
        for row in rows
    ]
    lines = table(["images x classes x boxes", "method", "ms [quartiles]", "times faster"], body, left=2)
    shapes = list(dict.fromkeys(f"{row['images']} x {row['classes']} x {row['boxes']}" for row in rows))
    series: dict[str, list[tuple[float, float, float] | None]] = {}
    for row in rows:
        values = series.setdefault(row["subject"], [None] * len(shapes))
        place = shapes.index(f"{row['images']} x {row['classes']} x {row['boxes']}")
        values[place] = (row["median_ms"], row["lower_ms"], row["upper_ms"])
    if not series:
        return lines
    file, line = source.plot("nms")
    plots.points(file, shapes, series, "ms")
    return [*lines, line, ""]


def loader(source: Source) -> list[str]:
    """Images per second by count of loader processes and by work, and what reading annotations costs."""
    body = []
    loaded = [row for row in source.rows if "workers" in row]
    for workers, rows in grouped(loaded, "workers").items():
        rates = {row["work"]: row["images_per_second"] for row in rows}
        body.append([str(workers), *(number(rates.get(name)) for name in RECIPES)])
    lines = table(["loader processes", *RECIPES], body)
    read = [
        [
            row["reading"],
            f"{row['images']:,}",
            f"{row['seconds']:.1f}",
            f"{row['parser_seconds']:.1f}",
            f"{row['mebibytes']:.0f}",
            f"{row['peak_mebibytes']:.0f}",
        ]
        for row in source.rows
        if "reading" in row
    ]
    if read:
        header = ["annotations read", "images", "seconds", "parser alone, seconds", "MiB added", "MiB in all"]
        lines = [*lines, "", *table(header, read)]
    return lines
