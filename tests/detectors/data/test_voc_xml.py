"""Annotations of Pascal VOC as tools vary them: every box is read, and what cannot be read is named."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from exports import labelimg_voc, voc_xml
from test_silent_losses import TRUTH, boxes_of, refused

from detectors.data import check_dataset

BOX = "<bndbox><xmin>{}</xmin><ymin>9</ymin><xmax>{}</xmax><ymax>24</ymax></bndbox>"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_further_boxes_of_an_object(count: int, tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    more = "".join(BOX.format(2 + n, 12 + n) for n in range(count))
    (tmp_path / "a.xml").write_text(voc_xml("a").replace("</bndbox>", f"</bndbox>{more}", 1))
    report = check_dataset(tmp_path)
    assert report.ok
    found = boxes_of(report.datasets["train"])
    assert found["a"] == [TRUTH["a"][0], *([1 + n, 8, 12 + n, 24] for n in range(count)), TRUTH["a"][1]]


@pytest.mark.parametrize("inner", ["<bndbox/>", BOX.format(5, 5), BOX.format("x", 5)])
def test_further_boxes_that_are_none_are_named(inner: str, tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    (tmp_path / "a.xml").write_text(voc_xml("a").replace("</bndbox>", f"</bndbox>{inner}", 1))
    report = refused(tmp_path, "a.png: object 1: bndbox")
    assert boxes_of(report.datasets["train"]) == TRUTH


@pytest.mark.parametrize("wrapper", ["objects", "annotations", "objects><group"])
def test_objects_in_an_element_of_their_own(wrapper: str, tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    ends = "".join(f"</{tag}>" for tag in reversed(wrapper.split("><")))
    text = voc_xml("a").replace("<object>", f"<{wrapper}><object>", 1)
    (tmp_path / "a.xml").write_text(text.replace("</annotation>", f"{ends}</annotation>"))
    report = check_dataset(tmp_path)
    assert report.ok
    assert boxes_of(report.datasets["train"]) == TRUTH


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_body_are_no_objects(parts: int, tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    inner = f"<part><name>head</name>{BOX.format(3, 9)}</part>" * parts
    (tmp_path / "a.xml").write_text(voc_xml("a").replace("</object>", f"{inner}</object>", 1))
    report = check_dataset(tmp_path)
    assert not report.problems
    assert boxes_of(report.datasets["train"]) == TRUTH
