"""`python -m benchmarks real`: necks under one detector on a folder of real pictures, and torchvision's RetinaNet.

Every row is trained as by `python -m detectors train`, with its defaults for data of this size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.ablation import table_rows
from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.experiment import RECIPES, train_and_evaluate
from benchmarks.loader import synthetic_folder
from benchmarks.results import Results
from benchmarks.retinanet import build_retinanet, train_retinanet
from benchmarks.training import FIGURES
from detectors.data import DetectionDataset, evaluation_transforms, load_dataset
from detectors.errors import InputError
from detectors.models.settings import format_settings
from detectors.saving import load
from detectors.training import TrainConfig, evaluate
from detectors.training.backbone_weights import package_for
from detectors.training.pictures import draw_comparison

# The size of the small presets.
_SMALL = replace(RECIPES["cpu"], image_size=320, num_levels=4, num_scales=6, channels=64, epochs=24)
SIZES = {"smoke": RECIPES["smoke"], "cpu": _SMALL, "gpu": replace(_SMALL, epochs=60)}
TITLES = {
    "mlfpn": "M2Det (MLFPN)",
    "pafpn": "PAFPN",
    "fpn": "FPN",
    "ssd": "SSD",
    "retinanet": "torchvision's RetinaNet (FPN)",
    "mlfpn-silu": "M2Det (MLFPN) with SiLU",
    "mlfpn-wide": "M2Det (MLFPN), twice as wide inside",
    "pafpn-2": "PAFPN on two maps",
    "fpn-2": "FPN on two maps",
}
MAIN = ("mlfpn", "pafpn", "fpn", "ssd", "retinanet")
"""Rows that a run has if it names none."""
_RETINANET_CHANNELS = {"smoke": 16, "cpu": 96, "gpu": 256}


@dataclass(kw_only=True)
class Real(Command):
    """AP of MLFPN, PAFPN, FPN, SSD and torchvision's RetinaNet on a held-out split of real pictures, over seeds."""

    data: Path | None = None
    """Folder of annotated pictures with the splits `train` and `test`; `--budget smoke` makes one if none is given."""
    epochs: int | None = None
    """Passes over the data; the budget's if not given."""
    seeds: int | None = None
    """Trainings of each row, from seeds 0, 1, ...; the budget's if not given."""
    rows: tuple[str, ...] = MAIN
    """Only these rows; there are mlfpn-silu, mlfpn-wide, pafpn-2 and fpn-2 beside the ones by default."""

    def run(self) -> int:
        device = self.open_device()
        self.check_positive("epochs", "seeds")
        if unknown := sorted(set(self.rows) - set(TITLES)):
            raise InputError(f"no row is named {', '.join(unknown)}; known: {', '.join(TITLES)}")
        if self.data is None:
            if self.budget != "smoke":
                raise InputError("--data is required: a folder of annotated pictures with the splits train and test")
            with synthetic_folder(8) as folder:
                (folder / "test.json").write_bytes((folder / "train.json").read_bytes())
                replace(self, data=folder).compare("synthetic", device)
        else:
            self.compare(self.data.resolve().name, device)
        return 0

    def compare(self, name: str, device: torch.device) -> None:
        """Train and measure every row on the data, which the results call `name`."""
        images = [len(dataset) for dataset in self.datasets()]
        measurements = [
            self._measurement(row, name, seed, images, device)
            for seed in range(self.seeds or SIZES[self.budget].seeds)
            for row in self.rows
        ]
        take_measurements(Results(self.output, "real", device, {}, timed=False), measurements, "real", bar=False)

    def datasets(self) -> tuple[DetectionDataset, DetectionDataset]:
        """The data to train on and to test on."""
        assert self.data is not None  # by run
        train = load_dataset(self.data, "train")
        return train, load_dataset(self.data, "test", transforms=evaluation_transforms(), class_names=train.class_names)

    @property
    def _epochs(self) -> int:
        return self.epochs or SIZES[self.budget].epochs

    def config(self, row: str, folder: Path, seed: int, images: int) -> TrainConfig:
        """The options of one training; what is not set here is `train`'s default for so many images."""
        size = SIZES[self.budget]
        settings = {known.key: known.settings for known in table_rows(size)}
        config = TrainConfig(
            model="ssd",
            output=folder,
            epochs=self._epochs,
            image_size=size.image_size,
            backbone=size.backbone,
            backbone_weights=package_for(size.backbone) or "none",
            settings=format_settings(settings.get(row, {})),
            seed=seed,
            device=self.device,
            eval_every=self._epochs,
        )
        return config.resolved(images)[0]

    def _measurement(self, row: str, name: str, seed: int, images: list[int], device: torch.device) -> Measurement:
        key = f"{name}/{row}/epochs{self._epochs}/seed{seed}"
        run = Path("runs/real") / key
        config = self.config(row, self.output / run, seed, images[0])
        chosen = ("epochs", "batch_size", "lr", "image_size", "backbone", "backbone_weights")
        columns = {"row": row, "data": name, "images": images, "seed": seed, "run": run.as_posix()}
        columns |= {option: getattr(config, option) for option in chosen}
        measure = self._retinanet if row == "retinanet" else self._ours
        return Measurement(key, columns, partial(measure, config, f"real-{key.replace('/', '-')}.jpg", device))

    def _ours(self, config: TrainConfig, picture: str, device: torch.device) -> Mapping[str, Any]:
        train, test = self.datasets()
        train.seed = config.seed
        figures = train_and_evaluate(config, (train, test), device, scale=1.0)
        assert config.output is not None
        return {**figures, **self._drawn(load(config.output).to(device), test, picture)}

    def _retinanet(self, config: TrainConfig, picture: str, device: torch.device) -> Mapping[str, Any]:
        train, test = self.datasets()
        train.seed = config.seed
        torch.manual_seed(config.seed)
        model = build_retinanet(
            len(train.class_names) + 1,
            SIZES[self.budget].image_size,
            str(config.backbone),
            config.backbone_weights,
            _RETINANET_CHANNELS[self.budget],
        )
        model, seconds = train_retinanet(model.to(device), train, config)
        figures = evaluate(model, test, batch_size=config.eval_batch_size)
        chosen = {**{name: figures[name] for name in FIGURES}, "classes": figures["classes"]}
        size = sum(p.numel() for p in model.parameters()) / 1e6
        return {**chosen, "train_seconds": round(seconds, 1), "mparams": size, **self._drawn(model, test, picture)}

    def _drawn(self, model: nn.Module, test: DetectionDataset, picture: str) -> dict[str, str]:
        draw_comparison(model, test, self.output / picture, rows=3)
        return {"picture": picture}
