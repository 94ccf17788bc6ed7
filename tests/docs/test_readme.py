"""The README is true: its code runs, its commands parse, its links lead somewhere."""

import json
import re
from pathlib import Path

import pytest
from pages import ROOT, run_page

from benchmarks.timm_sweep import NECKS
from detectors.data import SyntheticScales, export_coco
from pyramids import registry

README = ROOT / "README.md"


@pytest.mark.docs
def test_the_code_and_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_necks", dict(registry._necks))
    splits = {name: SyntheticScales.easy(count, seed=count) for name, count in (("train", 4), ("val", 1), ("test", 2))}
    export_coco("pictures", splits)
    export_coco("photos", {"one": SyntheticScales.easy(1)})
    run_page(README)
    assert Path("runs/mine/test.json").is_file()
    assert list(Path("drawn").glob("*.png"))


@pytest.mark.parametrize("page", [README, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    local = [target.split("#")[0] for target in targets if not target.startswith(("http://", "https://", "#"))]
    assert not [target for target in local if not (ROOT / target).exists()]


def test_versions_in_the_comparison_are_those_installed() -> None:
    """Rows of libraries that this one builds on name a version that was really used."""
    import pyramids

    rows = dict(re.findall(r"^\| (this library|timm|torchvision) \| ([\w.]+)", README.read_text(), re.MULTILINE))
    assert rows["this library"] == pyramids.__version__
    assert set(rows) == {"this library", "timm", "torchvision"}


def test_the_figure_of_timm_architectures_is_that_of_the_sweep() -> None:
    results = json.loads((ROOT / "docs" / "results" / "timm.json").read_text(encoding="utf-8"))
    sizes = {neck: [row.get("size") for row in results["rows"] if row["neck"] == neck] for neck in NECKS}
    pattern = r"on all ([\d,]+) architectures of timm ([\d.]+\d): MLFPN on\s+([\d,]+) of them at 320x512"
    said = re.search(pattern, README.read_text(encoding="utf-8"))
    assert said is not None
    architectures, version, usual = (figure.replace(",", "") for figure in said.groups())
    assert version == results["timm"]
    assert {len(found) for found in sizes.values()} == {int(architectures)}
    assert all(size is not None for found in sizes.values() for size in found)
    assert sizes["mlfpn"].count([320, 512]) == int(usual)
