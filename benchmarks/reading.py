"""Time and memory of reading annotations of many synthetic images, compared with the bare parser of the format.

The parsers are `json`, `xml.etree` and `str.split`. Seconds are those of the processor in a process of its own. Memory
is what reading adds to the largest size of that process, and that size, most of which is torch's where it is built for
CUDA. Pictures are empty files: nothing is decoded.
"""

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from detectors.data.images import Probe
from detectors.data.loading import DataFolder, without_collection
from detectors.data.repair import make_records

FORMATS = ("coco", "voc", "yolo")
HEIGHT, WIDTH, BOXES, CLASSES = 480, 640, 7, 80

Box = tuple[int, float, float, float, float]


def reading_cost(folder: Path, format: str, images: int) -> Mapping[str, Any]:
    """Make a folder of `images` images in a format, and measure reading it to records beside its parser alone."""
    WRITERS[format](folder, images)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        pool.apply(PARSERS[format], (folder,))  # files are in the system's memory for both
        return pool.apply(_measure, (folder, format))


def _measure(folder: Path, format: str) -> Mapping[str, Any]:
    before = _peak_kibibytes()
    began = time.process_time()
    raw = DataFolder(folder).read("train")
    with without_collection():
        records, problems = make_records(raw, [Probe(HEIGHT, WIDTH)] * len(raw.images))
    seconds = time.process_time() - began
    peak = _peak_kibibytes()
    boxes = sum(len(record.labels) for record in records)
    if problems:
        raise RuntimeError(f"made-up data of {format} has problems, such as {problems[0]}")
    del raw, records
    memory = {"mebibytes": (peak - before) / 1024, "peak_mebibytes": peak / 1024}
    began = time.process_time()
    PARSERS[format](folder)
    alone = time.process_time() - began
    return {"boxes": boxes, "seconds": seconds, "parser_seconds": alone, **memory}


def _peak_kibibytes() -> int:
    """The largest size of this process so far; `ru_maxrss` would count the parent's, which a child inherits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmHWM: memory is measured on Linux only")


def _boxes(images: int) -> Iterator[tuple[str, list[Box]]]:
    """Names of pictures, and boxes as (class, x, y, width, height) in pixels."""
    draw = random.Random(0)
    for number in range(images):
        boxes: list[Box] = []
        for _ in range(BOXES):
            x, y = draw.uniform(0, WIDTH - 101), draw.uniform(0, HEIGHT - 101)
            boxes.append((draw.randrange(CLASSES), x, y, draw.uniform(5, 100), draw.uniform(5, 100)))
        yield f"{number:08d}", boxes


def _write_coco(folder: Path, images: int) -> None:
    (folder / "images").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, boxes) in enumerate(_boxes(images), start=1):
        (folder / "images" / f"{name}.jpg").touch()
        entries.append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH, "license": 3})
        for kind, *box in boxes:
            bbox = [round(value, 2) for value in box]
            shape = {"bbox": bbox, "area": round(bbox[2] * bbox[3], 4), "iscrowd": 0, "segmentation": []}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1, **shape})
    categories = [{"id": kind + 1, "name": f"class {kind}"} for kind in range(CLASSES)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")


def _write_voc(folder: Path, images: int) -> None:
    for inner in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / inner).mkdir(parents=True)
    names = []
    for name, boxes in _boxes(images):
        names.append(name)
        (folder / "JPEGImages" / f"{name}.jpg").touch()
        objects = "".join(
            f"<object><name>class {kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x + 1:.0f}</xmin><ymin>{y + 1:.0f}</ymin><xmax>{x + width:.0f}</xmax>"
            f"<ymax>{y + height:.0f}</ymax></bndbox></object>"
            for kind, x, y, width, height in boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names), encoding="utf-8")


def _write_yolo(folder: Path, images: int) -> None:
    for inner in ("images/train", "labels/train"):
        (folder / inner).mkdir(parents=True)
    names = ", ".join(f"class {kind}" for kind in range(CLASSES))
    (folder / "data.yaml").write_text(f"train: images/train\nnames: [{names}]\n", encoding="utf-8")
    for name, boxes in _boxes(images):
        (folder / "images" / "train" / f"{name}.jpg").touch()
        lines = (
            f"{kind} {(x + width / 2) / WIDTH:.6f} {(y + height / 2) / HEIGHT:.6f} {width / WIDTH:.6f} "
            f"{height / HEIGHT:.6f}\n"
            for kind, x, y, width, height in boxes
        )
        (folder / "labels" / "train" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def _parse_coco(folder: Path) -> None:
    json.loads((folder / "train.json").read_bytes())


def _parse_voc(folder: Path) -> None:
    for entry in os.scandir(folder / "Annotations"):
        ElementTree.parse(entry.path)


def _parse_yolo(folder: Path) -> None:
    for entry in os.scandir(folder / "labels" / "train"):
        with open(entry.path, encoding="utf-8") as file:
            for line in file:
                line.split()


WRITERS: dict[str, Callable[[Path, int], None]] = {"coco": _write_coco, "voc": _write_voc, "yolo": _write_yolo}
PARSERS: dict[str, Callable[[Path], None]] = {"coco": _parse_coco, "voc": _parse_voc, "yolo": _parse_yolo}
