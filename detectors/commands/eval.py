"""`python -m detectors eval`: COCO's figures of a checkpoint on a data set."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detectors.commands.options import DetectorOptions
from detectors.errors import InputError

if TYPE_CHECKING:
    from detectors.data import DetectionDataset
    from detectors.models.detector import Detector
    from detectors.models.ssd import SSD
    from detectors.training.evaluation import CocoResult, Detection


@dataclass(kw_only=True)
class Eval(DetectorOptions):
    """Evaluate a checkpoint on a split of a data folder: COCO's twelve figures, and AP by class.

    With --engine, --network or --precision the deployed detector is evaluated.
    """

    data: Path
    """Folder in COCO, Pascal VOC or YOLO layout."""
    split: str | None = None
    """Split to evaluate on. If not given, `test`, or else `val`, or else what the checkpoint's run held out."""
    json: Path | None = None
    """Write the figures to this file."""
    detections: Path | None = None
    """Write the detections to this file as COCO's results list, with the ids of the data: COCO.loadRes takes it."""
    min_score: float = 0.0
    """Write detections of at least this score. The figures count all."""
    pictures: Path | None = None
    """Write pr.png and detections.png to this folder."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; detected if not given."""
    batch_size: int = 16
    """Images per batch."""
    max_detections: int | None = None
    """Detections per image that count for AP, and that the detector gives at least. If not given, 100 count, as in
    COCO, and the detector gives its own number. Raise it for data with more objects per image."""
    workers: int = 0
    """Processes that load images; 0 loads in this one."""

    val_fraction: float | None = None
    """Evaluate on the part of the split that training held out with this --val-fraction and --split-seed; known from
    the checkpoint's run where the split is not given either."""
    split_seed: int = 0
    """Seed of the choice of that part."""
    merge_classes: bool = False
    """Make categories of one name one class instead of refusing them."""

    def run(self) -> int:
        from detectors.commands.progress import progress_bar
        from detectors.training.evaluation import CocoResult, allow_detections, detect, detection_limit_warning

        self._check()
        trained = self.open().eval()
        dataset, split = self._open_data(trained)
        counted = allow_detections(trained, self.max_detections)
        warning = detection_limit_warning(split, dataset, counted, trained.postprocess)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        plain = (self.engine, self.network, self.precision) == ("torch", None, "fp32")
        detector = trained if plain else self.deploy(trained)
        began = time.perf_counter()
        with progress_bar(len(dataset)) as advance:
            detections = detect(detector, dataset, batch_size=self.batch_size, workers=self.workers, progress=advance)
        speed = len(dataset) / (time.perf_counter() - began)
        result = CocoResult(dataset, detections, max_detections=counted)
        show(result.report(), f"{split}: {len(dataset)} images, {speed:.1f} images/s")
        self._write(detector, dataset, split, result, detections)
        return 0

    def _check(self) -> None:
        for name, value in (("batch-size", self.batch_size), ("max-detections", self.max_detections)):
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1: got {value}")
        if self.workers < 0:
            raise InputError(f"--workers must be at least 0: got {self.workers}")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"--min-score must lie between 0 and 1: got {self.min_score}")
        for name, file in (("json", self.json), ("detections", self.detections)):
            if file is not None and file.is_dir():
                raise InputError(f"--{name} is a file to write: {file} is a folder")

    def _open_data(self, detector: "SSD") -> "tuple[DetectionDataset, str]":
        """The images to evaluate on, and the name of their split."""
        from detectors.data import evaluation_transforms, find_splits, hold_out, load_dataset
        from detectors.data.images import as_channels
        from detectors.data.problems import errors, grouped

        splits = find_splits(self.data, self.format)
        split = self.split or next((name for name in ("test", "val") if name in splits), splits[0])
        dataset = load_dataset(
            self.data,
            split,
            format=self.format,
            transforms=evaluation_transforms(),
            class_names=detector.class_names,
            merge_classes=self.merge_classes,
            channels=as_channels(len(detector.image_mean)),
        )
        if self.val_fraction is not None:
            dataset = hold_out(dataset, self.val_fraction, self.split_seed)[1]
        elif self.split is None and split not in ("test", "val"):
            part = held_out(self.checkpoint, dataset)
            if part is not None:
                dataset, split = part, f"held out of {split}"
        if len(dataset.class_names) != detector.num_classes - 1:
            in_data, in_detector = len(dataset.class_names), detector.num_classes - 1
            raise InputError(f"{self.data} has {in_data} classes, but {self.checkpoint} has {in_detector}")
        for group in grouped(errors(dataset.problems)):
            for line in group.lines():
                print(f"warning: {split}: {line}", file=sys.stderr)
        return dataset, split

    def _write(
        self,
        detector: "Detector",
        dataset: "DetectionDataset",
        split: str,
        result: "CocoResult",
        detections: "list[Detection]",
    ) -> None:
        """The files that the options ask for."""
        from detectors.training.pictures import draw_comparison, draw_precision
        from detectors.training.run_log import write_json

        if self.detections is not None:
            self.detections.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.detections, [entry for entry in detections if entry["score"] >= self.min_score])
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, {**result.report(), "split": split, "images": len(dataset)})
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            draw_precision(result, self.pictures / "pr.png")
            draw_comparison(detector, dataset, self.pictures / "detections.png")


def held_out(checkpoint: str, dataset: "DetectionDataset") -> "DetectionDataset | None":
    """The part of a split that the run of a checkpoint held out; None if it held out no part of this split.

    Raises:
        ValueError: the run held out a part, and the split has only some of its images.
    """
    import json

    from detectors.training.run_log import HELD_OUT

    path = Path(checkpoint)  # a run's folder, or best/ or last/ in it, or a file there
    files = (folder / HELD_OUT for folder in (path, *path.parents[:2]))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    names = set(json.loads(file.read_text(encoding="utf-8")))
    chosen = [index for index, record in enumerate(dataset.records) if record.file_name in names]
    if chosen and len(chosen) < len(names):
        raise InputError(
            f"the run held out {len(names)} images ({file}), but the data has only {len(chosen)} of them: name what to "
            "evaluate on by --split, with --val-fraction for a part of it"
        )
    return dataset.subset(chosen) if chosen else None


def show(report: dict[str, Any], title: str) -> None:
    """Print the figures as a table, classes below them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # class names may look like rich's markup

    from detectors.training.evaluation import figure_text

    table = Table(title=Text(title))
    for name in ("", "AP", "AP50", "AP75", "APs", "APm", "APl"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("all", *(figure_text(report[name]) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")))
    for name, figures in report["classes"].items():
        table.add_row(Text(name), figure_text(figures["AP"]), figure_text(figures["AP50"]), "", "", "", "")
    Console().print(table)
