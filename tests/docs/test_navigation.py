"""Every page of the site is in its navigation, and what the navigation names is there."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import PAGES

ROOT = Path(__file__).parents[2]


def paths_in(entries: Any) -> list[str]:
    """The pages that a part of `nav` names."""
    if isinstance(entries, str):
        return [entries]
    parts = entries.values() if isinstance(entries, dict) else entries
    return [path for part in parts for path in paths_in(part)]


def test_pages_and_navigation_are_the_same() -> None:
    yaml = pytest.importorskip("yaml", reason="the site is built with the extra `docs`")
    named = paths_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) == pages
    assert {f"results/{name}.md" for name in PAGES} <= pages
