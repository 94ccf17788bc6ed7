"""`python -m benchmarks nms`: soft and hard suppression over images, classes and boxes, against plain versions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.results import Results
from benchmarks.timing import measure
from detectors.ops.nms import batched_soft_nms, plain_greedy_nms

IOU_THRESHOLD, MIN_SCORE, KEPT = 0.3, 0.001, 200
BASELINE = "linear, loop over classes"

Shape = tuple[int, int, int]  # images, classes, boxes per class

SHAPES: dict[str, tuple[Shape, ...]] = {
    "smoke": ((1, 4, 50),),
    "cpu": ((1, 20, 400), (1, 80, 100), (1, 80, 400), (1, 81, 1000), (4, 80, 400)),
    "gpu": ((1, 80, 400), (1, 80, 1000), (8, 80, 400), (32, 80, 400), (32, 20, 400)),
}
SECONDS = {"smoke": 0.1, "cpu": 4.0, "gpu": 1.0}


def random_candidates(shape: Shape, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes `(N, C, M, 4)` in clusters on 320x320 pixels and scores `(N, C, M)` above 0.05, as detectors give them."""
    generator = torch.Generator().manual_seed(seed)
    images, classes, count = shape
    objects = max(1, count // 20)
    centers = torch.rand(images, classes, objects, 2, generator=generator) * 280 + 20
    sides = torch.exp(torch.rand(images, classes, objects, 2, generator=generator) * 2.5 + 2.5)  # 12 to 150 pixels
    which = torch.randint(objects, (images, classes, count, 1), generator=generator).expand(-1, -1, -1, 2)
    side = sides.gather(2, which)
    center = centers.gather(2, which) + torch.randn(side.shape, generator=generator) * side * 0.15
    half = side * torch.exp(torch.randn(side.shape, generator=generator) * 0.15) / 2
    boxes = torch.cat([center - half, center + half], dim=-1)
    scores = 0.05 + 0.95 * torch.rand(images, classes, count, generator=generator) ** 2
    return boxes.to(device), scores.to(device)


def loop_over_classes(boxes: Tensor, scores: Tensor) -> list[Tensor]:
    """Linear soft-NMS as it is commonly written: a loop over classes around a loop over picks."""
    kept = []
    for class_boxes, class_scores in zip(boxes.flatten(0, 1), scores.flatten(0, 1)):
        candidates, left, picked = class_boxes, class_scores, []
        while len(left):
            best = int(left.argmax())
            picked.append(left[best])
            overlap = box_iou(candidates[best : best + 1], candidates)[0]
            decayed = torch.where(overlap > IOU_THRESHOLD, left * (1 - overlap), left)
            decayed[best] = 0
            stay = decayed >= MIN_SCORE
            candidates, left = candidates[stay], decayed[stay]
        kept.append(torch.stack(picked))
    return kept


def all_rows_at_once(boxes: Tensor, scores: Tensor, picks: int) -> tuple[Tensor, Tensor]:
    """Linear soft-NMS in plain torch, batched: every pick of every class of every image is one round of operators."""
    return plain_greedy_nms(
        boxes.flatten(0, 1), scores.flatten(0, 1), "linear", IOU_THRESHOLD, 0.5, MIN_SCORE, max_picks=picks
    )


def torchvision_hard(boxes: Tensor, scores: Tensor) -> list[Tensor]:
    """torchvision's hard NMS, which takes one image at a time."""
    classes = torch.arange(scores.shape[1], device=scores.device).repeat_interleave(scores.shape[2])
    return [
        batched_nms(image_boxes.flatten(0, 1), image_scores.flatten(), classes, 0.45)[:KEPT]
        for image_boxes, image_scores in zip(boxes, scores)
    ]


def ours(boxes: Tensor, scores: Tensor, method: str, kept: int) -> Any:
    """The library's suppression, which keeps the best `kept` boxes of an image."""
    threshold = 0.45 if method == "hard" else IOU_THRESHOLD
    return batched_soft_nms(
        boxes,
        scores,
        method=method,
        iou_threshold=threshold,
        min_score=MIN_SCORE,
        max_per_class=min(kept, boxes.shape[2]),
        max_per_image=kept,
    )


def subjects(shape: Shape) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Candidates of the measurement, the baseline first and again last."""
    every = shape[1] * shape[2]
    return {
        BASELINE: loop_over_classes,
        "linear, plain torch on all rows, best 200": partial(all_rows_at_once, picks=min(KEPT, shape[2])),
        "hard, torchvision batched_nms": torchvision_hard,
        "linear, ours, best 200": partial(ours, method="linear", kept=KEPT),
        "linear, ours, every box": partial(ours, method="linear", kept=every),
        "gaussian, ours, best 200": partial(ours, method="gaussian", kept=KEPT),
        "hard, ours, best 200": partial(ours, method="hard", kept=KEPT),
        f"{BASELINE} again": loop_over_classes,
    }


@dataclass(kw_only=True)
class Nms(Command):
    """Soft-NMS and hard NMS over images, classes and boxes."""

    def run(self) -> int:
        device = self.open_device()
        settings = {"iou_threshold": IOU_THRESHOLD, "min_score": MIN_SCORE, "kept": KEPT, "budget": self.budget}
        results = Results(self.output, "nms", device, settings)
        take_measurements(results, list(self._measurements(device)), "nms")
        _print_table(results)
        return 0

    def _measurements(self, device: torch.device) -> Iterator[Measurement]:
        for shape in SHAPES[self.budget]:
            for name, function in subjects(shape).items():
                columns = dict(zip(("images", "classes", "boxes"), shape)) | {"subject": name}
                key = "x".join(map(str, shape)) + f"/{name}"
                yield Measurement(key, columns, partial(self._take, shape, function, device))

    def _take(self, shape: Shape, function: Callable[..., Any], device: torch.device) -> Mapping[str, Any]:
        inputs = [random_candidates(shape, device, seed) for seed in range(3)]
        first = measure(function, inputs, device=device, repeats=1, warmup=1).median_ms
        repeats = int(min(50, max(3, SECONDS[self.budget] * 1e3 / first)))
        return measure(function, inputs, device=device, repeats=repeats, warmup=0).as_row()


def speedups(rows: list[dict[str, Any]]) -> dict[str, float]:
    """For the key of every row: how many times faster it is than the baseline on the same boxes."""
    base = {row["key"].split("/")[0]: row["median_ms"] for row in rows if row["subject"] == BASELINE}
    timed = [row for row in rows if "median_ms" in row and row["key"].split("/")[0] in base]
    return {row["key"]: base[row["key"].split("/")[0]] / row["median_ms"] for row in timed}


def _print_table(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Suppression: times, and how many times faster than the loop")
    for name in ("images x classes x boxes", "subject", "median ms", "times faster"):
        table.add_column(name, justify="left" if name == "subject" else "right")
    faster = speedups(results.rows)
    for row in results.rows:
        if row["key"] in faster:
            shape = f"{row['images']} x {row['classes']} x {row['boxes']}"
            table.add_row(shape, row["subject"], f"{row['median_ms']:.2f}", f"{faster[row['key']]:.1f}")
    Console().print(table)
