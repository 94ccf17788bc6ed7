"""`python -m benchmarks loader`: images per second that reach training, and what reading annotations costs.

Each count of processes is measured with two amounts of work per image: decode and stretch, and SSD's whole recipe
(arXiv 1512.02325, section 2.2).
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.reading import FORMATS, reading_cost
from benchmarks.results import Results
from detectors.data import DetectionDataset, SyntheticScales, load_dataset, training_transforms
from detectors.training.data import StepBatches, training_loader

RECIPES: dict[str, dict[str, Any]] = {
    "decode and stretch": {"photometric": False, "zoom_out": False, "iou_crop": False, "flip": False},
    "recipe": {},
}


@dataclass(frozen=True)
class Plan:
    """Sizes of a budget: images per epoch, batch size, loader processes, images whose annotations are read."""

    images: int
    batch: int
    workers: tuple[int, ...]
    read: int


PLANS = {
    "smoke": Plan(16, 4, (0, 1), 50),
    "cpu": Plan(512, 16, (0, 1, 2), 100_000),
    "gpu": Plan(4096, 32, (0, 1, 2, 4, 8, 12, 16), 100_000),
}


@contextmanager
def synthetic_folder(images: int) -> Iterator[Path]:
    """A data folder in COCO layout of JPEG files of 512x512 pixels, about as costly to decode as COCO's."""
    folder = Path(tempfile.mkdtemp())
    try:
        dataset = SyntheticScales(images, image_size=512)
        content = dataset.coco_ground_truth()
        (folder / "images").mkdir()
        for index, entry in enumerate(content["images"]):
            entry["file_name"] = f"{index}.jpg"
            dataset.load_image(index).save(folder / "images" / entry["file_name"], quality=90)
        (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder)


def images_per_second(dataset: DetectionDataset, batch: int, workers: int, pin: bool) -> Mapping[str, float]:
    """Images per second over one epoch, after one that starts the processes and fills the page cache."""
    batches = StepBatches(len(dataset), batch, accumulate=1, rank=0, world=1)
    loader = training_loader(dataset, batches, workers, pin=pin)
    for _ in loader:
        pass
    batches.epoch = 1
    dataset.set_epoch(1)
    began = time.perf_counter()
    count = sum(len(part.image_ids) for part in loader)
    seconds = time.perf_counter() - began
    return {"images": count, "seconds": seconds, "images_per_second": count / seconds}


@dataclass(kw_only=True)
class Loader(Command):
    """Images per second that a training loader gives, by worker count, with and without SSD's recipe; and the seconds
    and the memory that reading the annotations of 100,000 images takes."""

    data: str = "synthetic"
    """Data folder whose training split is read; `synthetic` makes one for the time of the run."""
    image_size: int = 320
    """Side of the images that training gets, in pixels."""

    def run(self) -> int:
        device = self.open_device()
        plan = PLANS[self.budget]
        settings = {"data": self.data, "image_size": self.image_size, "images": plan.images, "batch": plan.batch}
        results = Results(self.output, "loader", device, settings)
        if self.data == "synthetic":
            with synthetic_folder(plan.images) as folder:
                self._measure(results, load_dataset(folder), plan, device.type == "cuda")
        else:
            self._measure(results, load_dataset(self.data), plan, device.type == "cuda")
        self._read(results, plan)
        _print_table(results)
        return 0

    def _read(self, results: Results, plan: Plan) -> None:
        with tempfile.TemporaryDirectory() as folder:
            measurements = []
            for name in FORMATS:
                take = partial(reading_cost, Path(folder) / name, name, plan.read)
                measurements.append(Measurement(f"read/{name}", {"reading": name, "images": plan.read}, take))
            take_measurements(results, measurements, "reading")

    def _measure(self, results: Results, dataset: DetectionDataset, plan: Plan, pin: bool) -> None:
        dataset.records = (dataset.records * (-(-plan.images // len(dataset))))[: plan.images]
        measurements = []
        for workers in plan.workers:
            for name in RECIPES:
                columns = {"workers": workers, "work": name}
                take = partial(self._take, dataset, name, plan.batch, workers, pin)
                measurements.append(Measurement(f"{workers}/{name}", columns, take))
        take_measurements(results, measurements, "loader")

    def _take(self, dataset: DetectionDataset, name: str, batch: int, workers: int, pin: bool) -> Mapping[str, Any]:
        dataset.transforms = training_transforms(self.image_size, **RECIPES[name])
        return images_per_second(dataset, batch, workers, pin)


def _print_table(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Loader: images per second")
    table.add_column("loader processes", justify="right")
    for name in RECIPES:
        table.add_column(name, justify="right")
    speeds = {row["key"]: row.get("images_per_second") for row in results.rows}
    for workers in sorted({row["workers"] for row in results.rows if "workers" in row}):
        rates = [speeds.get(f"{workers}/{name}") for name in RECIPES]
        table.add_row(str(workers), *("" if rate is None else f"{rate:.0f}" for rate in rates))
    Console().print(table)
    table = Table(title="Reading annotations")
    for name in ("format", "images", "seconds", "parser alone", "MiB added", "MiB in all"):
        table.add_column(name, justify="left" if name == "format" else "right")
    for row in results.rows:
        if "seconds" in row and "reading" in row:
            numbers = [f"{row['seconds']:.1f}", f"{row['parser_seconds']:.1f}"]
            numbers += [f"{row[name]:.0f}" for name in ("mebibytes", "peak_mebibytes")]
            table.add_row(row["reading"], f"{row['images']:,}", *numbers)
    Console().print(table)
