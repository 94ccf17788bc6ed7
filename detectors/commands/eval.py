"""`python -m detectors eval`: COCO's figures of a checkpoint on a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass
class Eval:
    """Evaluate a checkpoint on a split of a data folder: COCO's twelve figures, and AP by class."""

    data: Path
    """Folder in COCO, Pascal VOC or YOLO layout."""
    checkpoint: Path
    """A run's folder (its best checkpoint), a saved detector, or a .pth checkpoint of M2Det's authors."""
    split: str | None = None
    """Split to evaluate on; `test`, or else `val`, if not given."""
    json: Path | None = None
    """Write the figures to this file."""
    pictures: Path | None = None
    """Write pr.png and detections.png to this folder."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; found by its shape if not given."""
    image_size: int = 512
    """Side to which images are stretched for the authors' checkpoints; others know theirs."""
    batch_size: int = 16
    """Images at once."""
    workers: int = 0
    """Processes that load images; 0 loads in this one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU if there is one."""

    def run(self) -> int:
        from detectors.commands.predict import choose_device
        from detectors.data import evaluation_transforms, find_splits, load_dataset
        from detectors.saving import load
        from detectors.training.evaluation import CocoResult, detect
        from detectors.training.pictures import draw_comparison, draw_precision
        from detectors.training.run_log import write_json

        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1: got {self.batch_size}")
        splits = find_splits(self.data, self.format)
        split = self.split or next((name for name in ("test", "val") if name in splits), splits[0])
        device = choose_device(self.device)
        detector = load(self.checkpoint, image_size=self.image_size).to(device).eval()
        dataset = load_dataset(
            self.data,
            split,
            format=self.format,
            transforms=evaluation_transforms(),
            class_names=detector.class_names,
        )
        if len(dataset.class_names) != detector.num_classes - 1:
            found, known = len(dataset.class_names), detector.num_classes - 1
            raise ValueError(f"{self.data} has {found} classes, but {self.checkpoint} knows {known}")
        result = CocoResult(dataset, detect(detector, dataset, batch_size=self.batch_size, workers=self.workers))
        report = result.report()
        show(report, f"{split}: {len(dataset)} images")
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, {**report, "split": split, "images": len(dataset)})
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            draw_precision(result, self.pictures / "pr.png")
            draw_comparison(detector, dataset, self.pictures / "detections.png")
        return 0


def show(report: dict[str, Any], title: str) -> None:
    """Print the figures as a table, classes below them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in ("", "AP", "AP50", "AP75", "APs", "APm", "APl"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("all", *(_figure(report[name]) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")))
    for name, figures in report["classes"].items():
        table.add_row(name, _figure(figures["AP"]), _figure(figures["AP50"]), "", "", "", "")
    Console().print(table)


def _figure(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"
