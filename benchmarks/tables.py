"""Numbers and tables in Markdown."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """A Markdown table as lines, with an empty one after it; the first `left` columns are aligned left.

    >>> table(["neck", "ms"], [["fpn", "1.0"]])
    ['| neck | ms |', '|---|---:|', '| fpn | 1.0 |', '']
    """
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join("---" if i < left else "---:" for i in range(len(head))) + "|",
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def number(value: float | None, digits: int = 3) -> str:
    """A value to this many significant digits, without an exponent.

    >>> [number(x) for x in (1234.5, 12.345, 0.01234, None)]
    ['1234', '12.3', '0.0123', '']
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    magnitude = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if magnitude:
        return f"{value:.{max(digits - magnitude, 0)}f}"
    return f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A share in 0..1 in percent; COCO's -1 for what has no objects, and None, are empty.

    >>> [percent(x) for x in (0.8234, -1.0, None)]
    ['82.3', '', '']
    """
    return "" if value is None or value < 0 else f"{100 * value:.1f}"


def spread(values: Sequence[float]) -> str:
    """Mean of APs in 0..1 over seeds in points, with their standard deviation where there are two or more.

    >>> spread([0.5, 0.52]), spread([0.5])
    ('51.0 ± 1.4', '50.0')
    """
    valid = [100 * value for value in values if value >= 0]
    if not valid:
        return ""
    mean = f"{statistics.mean(valid):.1f}"
    return f"{mean} ± {statistics.stdev(valid):.1f}" if len(valid) > 1 else mean


def timing(row: Row, ratio: float | None = None) -> str:
    """Median and quartiles in milliseconds, and a ratio."""
    text = f"{number(row['median_ms'])} [{number(row['lower_ms'])}, {number(row['upper_ms'])}]"
    return text if ratio is None else f"{text} x{ratio:.2f}"


def grouped(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    """Rows that have a result, by the value of a column, in order of appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault(row[name], []).append(row)
    return groups


def failures(rows: Sequence[Row]) -> list[str]:
    """A section of what could not be measured, and why; nothing if all could."""
    failed = [row for row in rows if "error" in row]
    if not failed:
        return []
    return ["### Without a result", "", *table(["cell", "why"], [[row["key"], row["error"]] for row in failed], left=2)]
