"""Annotations of Pascal VOC as tools vary them: every box is read, and what cannot be read is named."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import save_pictures
from findings import TRUTH, boxes_of, refused
from voc_exports import labelimg_voc, lower_case_voc, voc_xml

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


@pytest.mark.parametrize(
    ("declaration", "encoding", "reason"),
    [
        ("", "gbk", "it declares no encoding and is not UTF-8"),
        ('<?xml version="1.0"?>\n', "cp1252", "it declares no encoding and is not UTF-8"),
        ('<?xml version="1.0" encoding="foo"?>\n', "utf-8", "unknown encoding: foo"),
    ],
)
@pytest.mark.parametrize("count", [2, 60])
def test_a_folder_none_of_whose_files_can_be_read(
    declaration: str, encoding: str, reason: str, count: int, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "JPEGImages")
    (tmp_path / "Annotations").mkdir()
    name = "café" if encoding == "cp1252" else "中国"
    for number in range(count):
        (tmp_path / f"JPEGImages/{number}.png").write_bytes((tmp_path / "JPEGImages/a.png").read_bytes())
        text = voc_xml("a", declaration=declaration).replace("cat", name)
        (tmp_path / f"Annotations/{number}.xml").write_bytes(text.encode(encoding))
    refused(tmp_path, f"0.xml is not valid XML: {reason}")


@pytest.mark.parametrize("folder", ["AAA", "JPEGImages/meta", "z"])
def test_other_xml_does_not_hide_annotations(folder: str, tmp_path: Path) -> None:
    lower_case_voc(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    for number in range(60):
        (tmp_path / folder / f"{number}.xml").write_text("<meta><annotation/></meta>")
    report = check_dataset(tmp_path)
    assert report.ok
    assert boxes_of(report.datasets["train"]) == TRUTH


@pytest.mark.parametrize("suffix", [".png.aux.xml", ".png.AUX.XML", ".aux.xml"])
def test_geographic_data_are_no_annotations(suffix: str, tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    for name in TRUTH:
        (tmp_path / f"{name}{suffix}").write_text("<PAMDataset><Metadata/></PAMDataset>")
    report = check_dataset(tmp_path)
    assert not report.problems
    assert boxes_of(report.datasets["train"]) == TRUTH
