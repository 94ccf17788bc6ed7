"""What a run starts from: its data sets, its detector and its processes, made as the configuration says."""

import hashlib
import logging
from typing import Any

import torch

from detectors.data import DetectionDataset, evaluation_transforms, find_splits, load_dataset, training_transforms
from detectors.data.dataset import Transforms
from detectors.data.records import Problem
from detectors.models.ssd import SSD
from detectors.models.zoo import create_detector
from detectors.training.backbone_weights import load_backbone_weights, package_for
from detectors.training.config import TrainConfig

LOGGER = logging.getLogger("detectors.training")


def open_datasets(config: TrainConfig) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The split to learn from and the one to evaluate on, if the folder has one; both without transforms of size.

    Raises:
        FileNotFoundError, ValueError: for data that cannot be used, or with `strict` any problem; says what and where.
    """
    assert config.data is not None  # by TrainConfig.check
    splits = find_splits(config.data, config.format)
    train = load_dataset(config.data, config.train_split, format=config.format, seed=config.seed)
    candidates = [config.val_split] if config.val_split else [name for name in ("val", "test") if name in splits]
    val = None
    if candidates:
        val = load_dataset(
            config.data,
            candidates[0],
            format=config.format,
            transforms=evaluation_transforms(),
            class_names=train.class_names,
        )
    if not any(len(record.labels) for record in train.records):
        raise ValueError(f"split '{config.train_split}' of {config.data} has images but not one usable box")
    for name, dataset in ((config.train_split, train), (candidates[0] if candidates else "", val)):
        if dataset is not None:
            report_problems(name, dataset.problems, strict=config.strict)
            boxes = sum(len(record.labels) for record in dataset.records)
            LOGGER.info("%s: %d images, %d boxes, %d classes", name, len(dataset), boxes, len(dataset.class_names))
    if val is None:
        LOGGER.warning("no split to evaluate on (%s has only %s): best is last", config.data, ", ".join(splits))
    return train, val


def report_problems(split: str, problems: list[Problem], *, strict: bool, shown: int = 5) -> None:
    """Say what was dropped or changed, and where.

    Raises:
        ValueError: with `strict`, if there is anything.
    """
    if not problems:
        return
    first = "; ".join(f"{problem.where}: {problem.reason}" for problem in problems[:shown])
    rest = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
    if strict:
        raise ValueError(f"split '{split}' has {len(problems)} problems and --strict refuses them: {first}{rest}")
    LOGGER.warning("%s: %d problems, dropped or clipped (see `check`): %s%s", split, len(problems), first, rest)


def augmentation(config: TrainConfig, image_size: tuple[int, int]) -> Transforms:
    """The training recipe with its switches."""
    on = config.augment
    return training_transforms(
        image_size,
        photometric=on and config.photometric,
        zoom_out=on and config.zoom_out,
        iou_crop=on and config.iou_crop,
        flip=on and config.flip,
    )


def fingerprint(dataset: DetectionDataset | None) -> dict[str, Any] | None:
    """What tells one data set from another: sizes, classes and a digest of all records."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record.image_id} {record.file_name} {record.height} {record.width}".encode())
        digest.update(record.boxes.tobytes() + record.labels.tobytes())
    return {
        "images": len(dataset),
        "boxes": sum(len(record.labels) for record in dataset.records),
        "classes": dataset.class_names,
        "digest": digest.hexdigest(),
    }


def build_detector(config: TrainConfig, class_names: list[str]) -> SSD:
    """The detector, with its backbone's ImageNet weights where they are to be had."""
    assert config.model is not None  # by TrainConfig.check
    torch.manual_seed(config.seed)
    model = create_detector(
        config.model,
        len(class_names) + 1,
        pretrained_backbone=config.pretrained,
        class_names=class_names,
        **config.detector_settings(),
    )
    backbone = str(model.config["backbone"]) if model.config else ""
    source = config.backbone_weights
    if source == "auto":
        source = package_for(backbone) or "none"
        if source == "none" and not config.pretrained:
            LOGGER.warning("backbone %s starts from random weights: see --backbone-weights and --pretrained", backbone)
    if source != "none" and not config.pretrained:
        unused = load_backbone_weights(model.pyramid.backbone.body, source)
        LOGGER.info("backbone %s starts from %s (%d keys without use)", backbone, source, len(unused))
    if config.batch_norm == "sync":
        if not torch.cuda.is_available() or config.device == "cpu":
            raise ValueError("--batch-norm sync needs CUDA: on the CPU use frozen, or batch")
        from timm.layers import convert_sync_batchnorm

        model = convert_sync_batchnorm(model)
    return model


def resolve_device(config: TrainConfig) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: for `cuda` where there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but torch sees no CUDA GPU here: use --device cpu")
    return torch.device("cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda")


def resolve_precision(config: TrainConfig, device: torch.device) -> str:
    """fp32, bf16 or fp16.

    Raises:
        ValueError: for fp16 on the CPU.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs CUDA: on the CPU use bf16 or fp32")
    if config.precision is not None:
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
