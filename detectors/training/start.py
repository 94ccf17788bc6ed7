"""The detector that a run starts from: new on ImageNet weights, or trained before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from detectors.data import DetectionDataset
from detectors.models.ssd import SSD
from detectors.models.zoo import create_detector
from detectors.saving import describe, load
from detectors.training.backbone_weights import load_backbone_weights, package_for
from detectors.training.config import TrainConfig
from detectors.training.run_log import LOGGER


def new_detector(config: TrainConfig, data: DetectionDataset) -> tuple[SSD, TrainConfig]:
    """The detector of a new run for the classes of its data, and the configuration with the weights that it got.

    Raises:
        FileNotFoundError, ValueError: for weights that are not there or do not fit.
    """
    torch.manual_seed(config.seed)
    if config.weights is not None:
        return fine_tuned(config.weights, data, config.detector_settings()), config
    assert config.model is not None  # by TrainConfig.check
    model = _create(
        name=config.model,
        num_classes=len(data.class_names) + 1,
        pretrained_backbone=config.pretrained,
        class_names=data.class_names,
        category_ids=data.category_ids,
        **config.detector_settings(),
    )
    backbone = str(model.config["backbone"]) if model.config else ""
    source = config.backbone_weights
    if source == "auto":
        source = (None if config.pretrained else package_for(backbone)) or "none"
        if source == "none" and not config.pretrained:
            LOGGER.warning("backbone %s starts from random weights: see --backbone-weights and --pretrained", backbone)
    if source != "none":
        unused = load_backbone_weights(model.pyramid.backbone.body, source)
        LOGGER.info("backbone %s starts from %s (%d keys without use)", backbone, source, len(unused))
    return model, dataclasses.replace(config, backbone_weights=source)


def fine_tuned(source: str, data: DetectionDataset, settings: Mapping[str, Any]) -> SSD:
    """A trained detector for the classes of another data set, some of its settings replaced.

    Where its classes are not those of the data, in the same order, its class predictors start anew.

    Raises:
        FileNotFoundError, ValueError: for a detector that cannot be loaded, or settings that its weights do not fit.
    """
    trained = load(source)
    ours: dict[str, Any] = {
        "num_classes": len(data.class_names) + 1,
        "class_names": data.class_names,
        "category_ids": data.category_ids,
    }
    described = {key: value for key, value in describe(trained).items() if key not in ours}
    model = _create(**ours, **_merged(described, settings))
    kept = dict(trained.state_dict())
    known = trained.class_names or [str(label) for label in range(1, trained.num_classes)]
    same = data.class_names == known or (trained.class_names is None and trained.num_classes == model.num_classes)
    if not same:
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("head.classes.")}
    own = model.state_dict()
    other = [name for name in kept if name not in own or kept[name].shape != own[name].shape]
    other += [name for name in own if name not in kept and (same or not name.startswith("head.classes."))]
    if other:
        raise ValueError(
            f"{source} does not fit the detector with these settings: {len(other)} of {len(own)} weights differ, such "
            f"as {sorted(other)[:3]}; leave out the settings that change its layers"
        )
    model.load_state_dict({**own, **kept})
    if same:
        LOGGER.info("starts from %s: all weights are kept", source)
    else:
        LOGGER.info(
            "starts from %s: all weights are kept but those of the class predictors, which knew %d classes (%s) and "
            "start anew for %d (%s)",
            *(source, len(known), _some(known), len(data.class_names), _some(data.class_names)),
        )
    return model


def _create(**settings: Any) -> SSD:
    """The detector of `create_detector`; a setting that a part does not take is the user's to correct."""
    try:
        return create_detector(**settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"--settings has one that its part does not take: {error}") from error


def synchronized(model: SSD, config: TrainConfig) -> SSD:
    """The detector with batch norms over all processes, if `config` says so."""
    if config.batch_norm != "sync":
        return model
    if not torch.cuda.is_available() or config.device == "cpu":
        raise ValueError("--batch-norm sync needs CUDA: on the CPU use frozen, or batch")
    from timm.layers import convert_sync_batchnorm

    converted: SSD = convert_sync_batchnorm(model)
    return converted


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the second counting more, through nested dicts."""
    merged = dict(first)
    for key, value in second.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
