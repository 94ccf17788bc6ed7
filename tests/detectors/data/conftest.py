"""Small data folders in all three layouts, made from one description."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLASSES = ("cat", "dog", "owl")

# For each image its (width, height) and boxes as (class index, x1, y1, x2, y2).
Description = Mapping[str, tuple[tuple[int, int], list[tuple[int, float, float, float, float]]]]

ANIMALS: Description = {
    "a": ((40, 30), [(0, 1, 2, 11, 12), (2, 20, 5, 40, 30)]),
    "b": ((32, 48), [(1, 0, 0, 32, 48)]),
    "c": ((24, 24), []),
}


def write_images(folder: Path, description: Description) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (size, _)) in enumerate(description.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def coco_content(description: Description) -> dict[str, Any]:
    """Category ids 3, 7 and 8: with gaps, and not in the order of the list."""
    images, annotations = [], []
    for image_id, (name, (size, boxes)) in enumerate(description.items(), start=1):
        images.append({"id": image_id, "file_name": f"{name}.png", "width": size[0], "height": size[1]})
        for kind, x1, y1, x2, y2 in boxes:
            annotation = {"image_id": image_id, "category_id": (3, 7, 8)[kind], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append({"id": len(annotations) + 1, **annotation})
    categories = [{"id": number, "name": name} for number, name in ((8, "owl"), (3, "cat"), (7, "dog"))]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path, description: Description = ANIMALS, split: str = "train") -> Path:
    write_images(folder / "images", description)
    (folder / f"{split}.json").write_text(json.dumps(coco_content(description)))
    return folder


def write_voc(folder: Path, description: Description = ANIMALS, split: str = "train") -> Path:
    write_images(folder / "JPEGImages", description)
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(description) + "\n")
    for name, (size, boxes) in description.items():
        objects = "".join(
            f"<object><name>{CLASSES[kind]}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, x1, y1, x2, y2 in boxes
        )
        shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{shape}{objects}</annotation>")
    return folder


def write_yolo(folder: Path, description: Description = ANIMALS, split: str = "train") -> Path:
    write_images(folder / "images" / split, description)
    (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text("names:\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES)))
    for name, ((width, height), boxes) in description.items():
        lines = [
            f"{kind} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}"
            for kind, x1, y1, x2, y2 in boxes
        ]
        (folder / "labels" / split / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
    return folder


@pytest.fixture
def coco_folder(tmp_path: Path) -> Callable[..., Path]:
    """`coco_folder(change)`: the three animals as COCO, after `change(content)` of the JSON content."""

    def build(change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
        write_images(tmp_path / "images", ANIMALS)
        content = coco_content(ANIMALS)
        change(content)
        (tmp_path / "train.json").write_text(json.dumps(content))
        return tmp_path

    return build


@pytest.fixture(scope="session")
def writers() -> dict[str, Callable[..., Path]]:
    """`writers[format](folder, description=ANIMALS, split="train")` writes a data folder."""
    return {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}
