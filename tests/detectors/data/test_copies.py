"""Copies of a picture within a split: a note, and an error where their boxes differ."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from exports import save_labels, save_pictures, save_xmls, voc_xml, write_list
from test_silent_losses import refused
from test_unread_pictures import noted


def write(folder: Path, layout: str, equal: bool) -> None:
    """A picture `a` and a place for its copy `copy`, with both of its boxes or one of them."""
    save_pictures(folder)
    if layout == "voc":
        save_xmls(folder)
        text = voc_xml("a")
        own = text if equal else f"{text.partition('</object>')[0]}</object></annotation>"
        (folder / "a.xml").write_text(own)
        (folder / "copy.xml").write_text(text.replace("a.png", "copy.png"))
    else:
        save_labels(folder)
        write_list(folder / "classes.txt", ["cat", "dog", "owl"])
        lines = (folder / "a.txt").read_text().splitlines()
        write_list(folder / "a.txt", lines if equal else lines[:1])
        write_list(folder / "copy.txt", lines[::-1] if equal else lines[1:])


@pytest.mark.parametrize("layout", ["voc", "yolo"])
@pytest.mark.parametrize("how", [shutil.copy, os.symlink, os.link])
@pytest.mark.parametrize("equal", [True, False])
def test_copies_within_a_split(layout: str, how: object, equal: bool, tmp_path: Path) -> None:
    write(tmp_path, layout, equal)
    assert callable(how)
    how(tmp_path / "a.png", tmp_path / "copy.png")
    if equal:
        noted(tmp_path, "train: 1 pictures are copies of others in this split: copy.png of a.png")
    else:
        refused(tmp_path, "train: 1 pictures are copies with other boxes: copy.png of a.png")
