"""Figures in prose: each stands in a page that `python -m benchmarks report` wrote from results files."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FIGURE = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
# A level, a version or a setting is no measurement.
GIVEN = {"0.50", "0.95", "0.5", "1.0"}


def measured() -> str:
    pages = (page for page in (DOCS / "results").glob("*.md") if page.name != "conclusion.md")
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def at_a_glance() -> str:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    return readme.split("## Results at a glance")[1].split("\n## ")[0].replace("timm 1.0.31", "timm")


@pytest.mark.parametrize("place", ["conclusion", "README"])
def test_figures_in_prose_stand_in_a_results_page(place):
    page = DOCS / "results" / "conclusion.md"
    text = page.read_text(encoding="utf-8") if place == "conclusion" else at_a_glance()
    figures = set(FIGURE.findall(text)) - GIVEN
    assert figures, f"no figures in {place}"
    found = set(FIGURE.findall(measured()))
    assert figures <= found, f"{place} states {sorted(figures - found)}, which no results page has"
