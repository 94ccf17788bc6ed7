"""The drawings are those that `docs/drawings/draw.py` makes of today's modules."""

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "drawings"


@pytest.fixture(scope="module")
def drawings() -> dict[str, str]:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.drawings()
    finally:
        sys.path.remove(str(FOLDER))


def test_they_are_up_to_date(drawings: dict[str, str]) -> None:
    stale = [name for name, text in drawings.items() if (FOLDER.parent / "images" / name).read_text("utf-8") != text]
    assert not stale, f"run python docs/drawings/draw.py: {stale}"


def test_shapes_are_shown_in_both_schemes(drawings: dict[str, str]) -> None:
    for scheme in ("light", "dark"):
        assert "1024 × 40 × 40" in drawings[f"mlfpn-paper-{scheme}.svg"]  # noqa: RUF001
        assert "2048 × 40 × 40" in drawings[f"mlfpn-released-{scheme}.svg"]  # noqa: RUF001
        assert "384 × 40 × 40" in drawings[f"tum-released-{scheme}.svg"]  # noqa: RUF001
        assert "384 × 128 × 128" in drawings[f"simple-{scheme}.svg"]  # noqa: RUF001


def test_they_are_whole_documents(drawings: dict[str, str]) -> None:
    light, dark = ({name for name in drawings if name.endswith(f"-{scheme}.svg")} for scheme in ("light", "dark"))
    assert {name.replace("-light.", "-dark.") for name in light} == dark
    assert {"mlfpn-paper-light.svg", "csppafpn-light.svg", "hybrid-encoder-light.svg", "repgfpn-light.svg"} <= light
    for name, text in drawings.items():
        root = ElementTree.fromstring(text)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for label in root.iter("{http://www.w3.org/2000/svg}text"):
            assert 0 <= float(label.attrib["x"]) <= width, (name, label.text)
            assert 0 <= float(label.attrib["y"]) <= height, (name, label.text)
