"""Detections in the forms that other tools read: COCO's results, tables, and `supervision`.

COCO's results list: https://cocodataset.org/#format-results; `COCO.loadRes` of pycocotools takes it.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from detectors.atomic import write_atomically

if TYPE_CHECKING:
    from supervision import Detections

Format = Literal["coco", "supervision", "csv"]
SUFFIXES: dict[Format, str] = {"coco": ".json", "supervision": ".json", "csv": ".csv"}


@dataclass(frozen=True)
class Found:
    """Detections of one image or frame: `boxes` `(n, 4)` absolute xyxy, `labels` from 1 and `scores`, each `(n)`."""

    image_id: int
    file_name: str
    detections: Mapping[str, Tensor]


def coco_results(image_id: int, detections: Mapping[str, Tensor], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections as entries of COCO's results: `image_id`, `category_id`, `bbox` as xywh in pixels, `score`.

    Args:
        image_id: of the image, in its source.
        detections: `boxes` `(n, 4)` absolute xyxy, `scores` `(n)` and `labels` `(n)` from 1.
        category_ids: label l is category `category_ids[l - 1]`.

    >>> import torch
    >>> found = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 8.0]]), "scores": torch.ones(1), "labels": torch.tensor([2])}
    >>> coco_results(7, found, [10, 30])
    [{'image_id': 7, 'category_id': 30, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 1.0}]
    """
    boxes = detections["boxes"].double().cpu().clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detections["scores"].tolist(), detections["labels"].tolist())
    return [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, score, label in rows
    ]


def as_supervision(detections: Mapping[str, Tensor], class_names: Sequence[str] | None = None) -> "Detections":
    """Detections as `supervision.Detections`; its class ids count from 0. Needs the package `supervision`.

    Args:
        detections: what a detector gives for one image.
        class_names: names of the labels from 1 on, for `data["class_name"]`.
    """
    import numpy as np
    import supervision

    labels = detections["labels"].cpu().numpy()
    data = {} if class_names is None else {"class_name": np.array([class_names[label - 1] for label in labels], str)}
    return supervision.Detections(
        xyxy=detections["boxes"].float().cpu().numpy().reshape(-1, 4),
        confidence=detections["scores"].float().cpu().numpy(),
        class_id=labels - 1,
        data=data,
    )


def write_results(
    path: Path, found: Sequence[Found], format: Format, class_names: Sequence[str], category_ids: Sequence[int]
) -> None:
    """Write the detections of many images to one file.

    * `coco`: COCO's results list, by the ids of images and categories.
    * `csv`: a row per detection: file, ids, class name, score and the corners in pixels.
    * `supervision`: JSON with the fields of supervision's `JSONSink`, and the file's name.

    Raises:
        OSError: if the file cannot be written.
    """
    if format == "coco":
        entries = [entry for one in found for entry in coco_results(one.image_id, one.detections, category_ids)]
        text = json.dumps(entries)
    elif format == "supervision":
        text = json.dumps([row for one in found for row in _supervision_rows(one, class_names)], ensure_ascii=False)
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file_name", "image_id", "category_id", "class_name", "score", "x1", "y1", "x2", "y2"))
        for one in found:
            for box, score, label in _rows(one):
                name, category = class_names[label - 1], category_ids[label - 1]
                writer.writerow((one.file_name, one.image_id, category, name, score, *box))
        text = stream.getvalue()
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _supervision_rows(found: Found, class_names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            **dict(zip(("x_min", "y_min", "x_max", "y_max"), box)),
            "class_id": label - 1,
            "confidence": score,
            "tracker_id": "",
            "class_name": class_names[label - 1],
            "file_name": found.file_name,
        }
        for box, score, label in _rows(found)
    ]


def _rows(found: Found) -> list[tuple[list[float], float, int]]:
    columns = (found.detections[name].tolist() for name in ("boxes", "scores", "labels"))
    return list(zip(*columns))
