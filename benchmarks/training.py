"""`python -m benchmarks training`: COCO figures of trained runs on pictures that they have not seen, and their cost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.loader import synthetic_folder
from benchmarks.results import Results, command_line
from detectors.data import DetectionDataset, evaluation_transforms, load_dataset
from detectors.errors import InputError
from detectors.models.ssd import SSD

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Published:
    """A figure that others published for a data set, in 0..1; None where they give none."""

    model: str
    measured_on: str
    ap50: float | None
    ap: float | None
    source: str


_RF100 = "roboflow/roboflow-100-benchmark, results.csv"
_KOVACS = "gabor-kovacs/object_detection_experiments, README"
_ODINW = "open-mmlab/mmdetection, configs/odinw/README.md"

PUBLISHED = {
    "bccd": (
        Published("YOLOv5s, from COCO, 640 px", "RF100 test, 36 images", 0.912, None, _RF100),
        Published("YOLOv7, from COCO, 640 px", "RF100 test, 36 images", 0.922, None, _RF100),
        Published("YOLOv8, from COCO, 640 px", "RF100 test, 36 images", 0.927, None, _RF100),
        Published(
            "YOLOv7, from COCO, 416 px, 50 epochs",
            "Roboflow val, 73 images",
            0.906,
            0.610,
            "AqsaRasheed/Complete-Blood-Count-CBC-, README",
        ),
        Published("Grounding DINO-B, a large mix", "ODinW val", None, 0.584, _ODINW),
    ),
    "aquarium": (
        Published("YOLOv5s, from COCO, 640 px", "test", 0.790, None, _RF100),
        Published("YOLOv7, from COCO, 640 px", "test", 0.822, None, _RF100),
        Published("YOLOv8, from COCO, 640 px", "test", 0.781, None, _RF100),
        Published("RT-DETR-l, from COCO, 47 epochs", "val, 127 images", 0.777, 0.512, _KOVACS),
        Published("YOLO11l, from COCO, 46 epochs", "val, 127 images", 0.746, 0.459, _KOVACS),
        Published("YOLOv3, from COCO, 48 epochs", "val, 127 images", 0.727, 0.438, _KOVACS),
        Published("Grounding DINO-B, a large mix", "ODinW val", None, 0.445, _ODINW),
    ),
}
"""By the name of the data folder. Splits and picture sizes differ from ours, so these are close, not equal."""


@dataclass(kw_only=True)
class Training(Command):
    """COCO figures of a trained run on a held-out split, with its command, its time and a picture."""

    run_folder: Path | None = None
    """Folder that `python -m detectors train` wrote; with `--budget smoke` a tiny run is made if not given."""
    data: Path | None = None
    """The data folder that it was trained on."""
    split: str = "test"
    """Split to measure on."""

    def run(self) -> int:
        device = self.open_device()
        if self.run_folder is None or self.data is None:
            if self.budget != "smoke" or self.run_folder is not None or self.data is not None:
                raise InputError("--run-folder and --data are required: a trained run and the data folder it was for")
            return self._smoke()
        history = run_history(self.run_folder)
        detector = _open(self.run_folder)
        dataset = load_dataset(
            self.data, self.split, transforms=evaluation_transforms(), class_names=detector.class_names
        )
        name = self.data.resolve().name
        columns = {"data": name, "split": self.split, "images": len(dataset), **history}
        picture = f"training-{name}-{self.run_folder.resolve().name}.jpg"

        results = Results(self.output, "training", device, {})

        def measure() -> Mapping[str, Any]:
            return {**self._measure(detector.to(device).eval(), dataset, picture), "picture": picture}

        take_measurements(
            results, [Measurement(f"{name}/{self.run_folder.resolve().name}", columns, measure)], "training", bar=False
        )
        return 0

    def _measure(self, detector: SSD, dataset: DetectionDataset, picture: str) -> Mapping[str, Any]:
        from detectors.training.evaluation import CocoResult, detect
        from detectors.training.pictures import draw_comparison

        report = CocoResult(dataset, detect(detector, dataset)).report()
        draw_comparison(detector, dataset, self.output / picture, rows=3)
        return {**{name: report[name] for name in FIGURES}, "classes": report["classes"]}

    def _smoke(self) -> int:
        from detectors.training import TrainConfig, train

        with synthetic_folder(8) as folder:
            (folder / "test.json").write_bytes((folder / "train.json").read_bytes())
            run = folder / "run"
            tiny = ["neck.num_levels=1", "neck.num_scales=3", "neck.channels=16", "neck.base_channels=[16,32]"]
            config = TrainConfig(
                model="m2det",
                data=folder,
                output=run,
                backbone="resnet10t",
                backbone_weights="none",
                image_size=64,
                epochs=1,
                batch_size=4,
                settings=tiny,
                workers=0,
            )
            train(config)
            return Training(output=self.output, device=self.device, run_folder=run, data=folder).run()


def run_history(folder: Path) -> dict[str, Any]:
    """History of a run: its command, machine, epochs, images, minutes of training, and share of them waiting for data.

    Raises:
        FileNotFoundError, ValueError: for a folder that is not a finished run.
    """
    try:
        config = json.loads((folder / "config.json").read_text())["train"]
        environment = json.loads((folder / "environment.json").read_text())
        speeds = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} is not the folder of a training run: {error.filename} is missing") from error
    if not speeds:
        raise InputError(f"{folder} holds a run that has not trained an epoch")
    # After a resume a step may have two lines: the last one counts.
    at = {line["step"]: line for line in speeds}
    per_step = config["batch_size"]
    seconds, waited, before = 0.0, 0.0, 0
    for step, line in sorted(at.items()):
        taken = (step - before) * per_step / line["images_per_second"]
        seconds += taken
        waited += taken * line["waiting_for_data"]
        before = step
    command = command_line("detectors", environment["command"][1:])
    threads = environment["threads"]
    machine = environment["gpus"][0] if environment["gpus"] else f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    return {
        "model": config["model"],
        "command": command,
        "trained_on": machine,
        "epochs": config["epochs"],
        "views": before * per_step,
        "train_minutes": round(seconds / 60, 2),
        "images_per_second": round(before * per_step / seconds, 2),
        "waiting_for_data": round(waited / seconds, 4),
    }


def _open(folder: Path) -> SSD:
    from detectors.saving import load

    torch.manual_seed(0)
    return load(folder)
