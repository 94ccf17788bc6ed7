"""The detector that a run starts from: new on ImageNet weights, or trained before."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from detectors.data import DetectionDataset
from detectors.data.images import Channels, as_channels
from detectors.errors import InputError, checked_settings
from detectors.models.ssd import SSD
from detectors.models.zoo import create_detector, preset
from detectors.saving import describe, load
from detectors.training.backbone_weights import load_backbone_weights, package_for
from detectors.training.config import TrainConfig
from detectors.training.run_log import LOGGER
from pyramids.weightless import weightless


def new_detector(config: TrainConfig, data: DetectionDataset) -> tuple[SSD, TrainConfig]:
    """The detector of a new run for the classes of its data, and the configuration with the weights that it got.

    Raises:
        FileNotFoundError, ValueError: for weights that are not there or do not fit.
    """
    torch.manual_seed(config.seed)
    if config.weights is not None:
        model = fine_tuned(config.weights, data, config.detector_settings())
        return model, _with_batch_norm(config, model)
    assert config.model is not None  # by TrainConfig.check
    # Said even where it is not given, so that a run from another's config.json, which says it, saves the same bytes.
    settings = {"frozen_batch_norm": False, **config.detector_settings()}
    with checked_settings(config.settings):
        model = create_detector(
            config.model,
            num_classes=len(data.class_names) + 1,
            pretrained_backbone=config.pretrained,
            class_names=data.class_names,
            category_ids=data.category_ids,
            **settings,
        )
    config = _with_batch_norm(config, model)
    backbone = str(model.config["backbone"]) if model.config else ""
    source = config.backbone_weights
    if source == "auto":
        source = (None if config.pretrained else package_for(backbone)) or "none"
        if source == "none" and not config.pretrained:
            LOGGER.warning("backbone %s starts from random weights: see --backbone-weights and --pretrained", backbone)
    if source != "none":
        unused = load_backbone_weights(model.pyramid.backbone.body, source)
        LOGGER.info("backbone %s starts from %s (%d unused keys)", backbone, source, len(unused))
    return model, dataclasses.replace(config, backbone_weights=source)


def _with_batch_norm(config: TrainConfig, model: SSD) -> TrainConfig:
    """The configuration with the batch norms that the new detector has."""
    if config.batch_norm is not None:
        return config
    frozen = bool(model.config and model.config.get("frozen_batch_norm"))
    if frozen and config.weights is not None and "frozen_batch_norm" not in config.detector_settings():
        LOGGER.info("batch norms stay frozen, as in %s: --batch-norm batch makes them learn", config.weights)
    return dataclasses.replace(config, batch_norm="frozen" if frozen else "batch")


def planned_channels(config: TrainConfig) -> Channels:
    """The number of channels that the detector of a new run takes, before its data is read.

    The detector is built without weights for this, so that a bad name, setting or size is found here.

    Raises:
        FileNotFoundError, ValueError: for one of these; says what to type.
    """
    settings = config.detector_settings()
    if config.weights is not None:
        return as_channels(len(load(config.weights).image_mean))
    assert config.model is not None  # by TrainConfig.check
    if {**preset(config.model), **settings}.get("backbone") is None:
        raise InputError(f"--model {config.model} takes any backbone: name one, such as --backbone resnet50")
    with torch.random.fork_rng(devices=[]), weightless():
        try:
            with checked_settings(config.settings):
                model = create_detector(config.model, 2, **settings)
        except InputError as error:
            side = _sufficient_size(config.model, settings)
            raise InputError(f"{error}{side and f'; --image-size {side} would do'}") from error
    return as_channels(len(model.image_mean))


def channels_of(run: str) -> Channels:
    """The number of channels that the detector of a run takes, by the text of its configuration."""
    return as_channels(len(json.loads(run)["detector"].get("image_mean") or "RGB"))


def _sufficient_size(name: str, settings: Mapping[str, Any]) -> str:
    """The smallest of some common image sizes at which a detector can be built, if larger than the refused one."""
    size = settings.get("image_size")
    for side in (64, 96, 128, 160, 192, 224, 256, 320, 512):
        if isinstance(size, int) and side > size:
            with contextlib.suppress(ValueError, TypeError):
                create_detector(name, 2, **{**settings, "image_size": side})
                return str(side)
    return ""


def fine_tuned(source: str, data: DetectionDataset, settings: Mapping[str, Any]) -> SSD:
    """A trained detector for the classes of another data set, some of its settings replaced.

    Where its classes are not those of the data, in the same order, its class predictors start over.

    Raises:
        FileNotFoundError, ValueError: for a detector that cannot be loaded, or settings that its weights do not fit.
    """
    trained = load(source)
    of_data: dict[str, Any] = {
        "num_classes": len(data.class_names) + 1,
        "class_names": data.class_names,
        "category_ids": data.category_ids,
    }
    described = {key: value for key, value in describe(trained).items() if key not in of_data}
    with checked_settings(settings):
        model = create_detector(**of_data, **_merged(described, settings))
    kept = dict(trained.state_dict())
    names = trained.class_names or [str(label) for label in range(1, trained.num_classes)]
    same = data.class_names == names or (trained.class_names is None and trained.num_classes == model.num_classes)
    if not same:
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("head.classes.")}
    expected = model.state_dict()
    kept = _without_counters(kept, expected)
    learned = _without_counters(expected, kept)
    differing = [name for name in kept if name not in expected or kept[name].shape != expected[name].shape]
    differing += [name for name in learned if name not in kept and (same or not name.startswith("head.classes."))]
    if differing:
        raise InputError(
            f"{source} does not fit the detector with these settings: {len(differing)} of {len(expected)} weights "
            f"differ, such as {sorted(differing)[:3]}; leave out the settings that change its layers"
        )
    model.load_state_dict({**expected, **kept})
    if same:
        LOGGER.info("starts from %s: all weights are kept", source)
    else:
        LOGGER.info(
            "starts from %s: all weights are kept but those of the class predictors, which had %d classes (%s) and "
            "start over for %d (%s)",
            *(source, len(names), _some(names), len(data.class_names), _some(data.class_names)),
        )
    return model


def _without_counters(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the counters of steps that the other detector's batch norms lack, as frozen ones do."""
    return {
        name: tensor for name, tensor in state.items() if name in other or not name.endswith(".num_batches_tracked")
    }


def synchronized(model: SSD, config: TrainConfig) -> SSD:
    """The detector, with batch norms over all processes if `config` asks for them."""
    if config.batch_norm != "sync":
        return model
    if not torch.cuda.is_available() or config.device == "cpu":
        raise InputError("--batch-norm sync needs CUDA: on the CPU use frozen, or batch")
    from timm.layers import convert_sync_batchnorm

    converted: SSD = convert_sync_batchnorm(model)
    return converted


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings, nested ones merged too; the second takes precedence."""
    merged = dict(first)
    for key, value in second.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
