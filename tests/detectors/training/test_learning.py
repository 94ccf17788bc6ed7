"""A detector learns eight pictures by heart, from the command line to the figures."""

import json
from pathlib import Path

import pytest
from training_runs import TINY

from detectors.cli import main
from detectors.data import SyntheticScales, export_coco


@pytest.mark.usefixtures("drawn")
def test_eight_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    pictures = {name: SyntheticScales.easy(8, image_size=192) for name in ("train", "val")}
    export_coco(tmp_path / "data", pictures)
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    options = ["--backbone", "test_efficientnet", "--image-size", "96", "--lr", "4e-3"]
    options += ["--epochs", "30", "--batch-size", "4"]
    options += [
        "--settings",
        *TINY[:2],
        "neck.channels=32",
        "neck.base_channels=[32,64]",
        "anchor_sizes=[0.1,0.2,0.4,0.8]",
    ]
    options += ["--no-augment", "--eval-every", "30", "--workers", "0", "--ema", "0.9", "--device", "cpu"]
    assert main(["train", "--data", data, "--model", "m2det", "--output", run, *options]) == 0
    assert main(["eval", "--data", data, "--checkpoint", run, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl"} <= figures.keys()
    assert figures["AP50"] > 0.95
    made = {path.name for path in Path(run).iterdir()}
    assert made >= {"config.json", "environment.json", "metrics.jsonl", "train.log", "last", "best", "tensorboard"}
    assert made >= {"samples.png", "curves.png", "pr.png", "detections.png"}
