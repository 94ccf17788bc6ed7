"""Named detectors: `create_detector` as `timm.create_model` reads."""

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import timm
from timm.layers import freeze_batch_norm_2d
from torch import nn

from detectors.models.inputs import as_size
from detectors.models.loss import DetectionLoss, FocalLoss, MultiBoxLoss
from detectors.models.m2det import M2Det
from detectors.models.postprocess import PostProcess
from detectors.models.ssd import SSD
from pyramids import MLFPN, Neck, attach
from pyramids.registry import neck_class

# The paper's M2Det is MLFPN at its defaults: 8 levels, 6 scales, 256 channels.
_THIN = {"num_levels": 4, "channels": 64, "base_channels": (64, 128)}

_PRESETS: dict[str, dict[str, Any]] = {
    "ssd": {"neck": "ssd_extras", "image_size": 320},
    "m2det": {"neck": "mlfpn", "image_size": 320},
    "m2det_320_vgg16": {"backbone": "vgg16_reduced", "neck": "mlfpn", "image_size": 320},
    "m2det_512_vgg16": {"backbone": "vgg16_reduced", "neck": "mlfpn", "image_size": 512},
    "m2det_800_vgg16": {"backbone": "vgg16_reduced", "neck": "mlfpn", "image_size": 800},
    "m2det_320_resnet101": {"backbone": "resnet101", "neck": "mlfpn", "image_size": 320},
    "m2det_512_resnet101": {"backbone": "resnet101", "neck": "mlfpn", "image_size": 512},
    "m2det_320_efficientnet_lite0": {
        "backbone": "tf_efficientnet_lite0",
        "neck": "mlfpn",
        "image_size": 320,
        **_THIN,
    },
    # Size patterns of SSD300 and SSD512 on COCO (SSD, section 3.3, and its released configurations).
    "ssd_300_vgg16": {
        "backbone": "vgg16_reduced",
        "neck": "ssd_extras",
        "image_size": 300,
        "anchor_sizes": (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    },
    "ssd_512_vgg16": {
        "backbone": "vgg16_reduced",
        "neck": "ssd_extras",
        "layout": "ssd512",
        "image_size": 512,
        "anchor_sizes": (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
    },
    # The baselines of M2Det's ablation (Table 2).
    "ssd_320_vgg16": {"backbone": "vgg16_reduced", "neck": "ssd_extras", "image_size": 320},
    "dssd_320_vgg16": {"backbone": "vgg16_reduced", "neck": "deconv", "image_size": 320},
    "ssd_320_efficientnet_lite0": {"backbone": "tf_efficientnet_lite0", "neck": "ssd_extras", "image_size": 320},
}
_LOSSES: dict[str, type[DetectionLoss]] = {"multibox": MultiBoxLoss, "focal": FocalLoss}


def list_detectors() -> list[str]:
    """Names that `create_detector` knows: `ssd` and `m2det` for any backbone, and the presets.

    >>> from detectors import list_detectors
    >>> "m2det_320_vgg16" in list_detectors()
    True
    """
    return sorted(_PRESETS)


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        ValueError: for an unknown name; suggests the nearest.
    """
    if name not in _PRESETS:
        near = difflib.get_close_matches(name.lower(), _PRESETS, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"no detector is named {name!r}{hint} (known: {', '.join(list_detectors())})")
    return dict(_PRESETS[name])


def _arguments(function: Any) -> set[str]:
    """Names of a class's arguments, less those that are not a user's to set here."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = {p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds}
    return names - {"pyramid", "num_classes", "in_channels", "in_strides"}


def create_detector(name: str, num_classes: int = 81, *, pretrained_backbone: bool = False, **overrides: Any) -> SSD:
    """Build a detector by name.

    Args:
        name: one of `list_detectors()`; `"ssd"` and `"m2det"` take any `backbone=`, and `"ssd"` any `neck=`.
        num_classes: number of classes, the background counted (COCO 81, VOC 21).
        pretrained_backbone: load the backbone's ImageNet weights the timm way.
        **overrides: settings that replace the preset's: `backbone`, `neck`, `strides`, `image_size`, `loss` ("multibox"
            or "focal"), `frozen_batch_norm`, and every keyword of `SSD`, of `PostProcess` and of the neck's class.

    Raises:
        ValueError: for an unknown name, backbone, neck or loss; suggests the nearest.
        TypeError: for a setting that nothing takes; lists those that are taken. For an M2Det on another neck.

    >>> from detectors import create_detector
    >>> model = create_detector("m2det", backbone="resnet18", num_classes=4, num_levels=2, channels=32, image_size=320)
    >>> model.anchors.boxes_per_cell
    6
    """
    settings = {**preset(name), **overrides}
    if settings.get("backbone") is None:
        raise ValueError(f"{name!r} takes any backbone: name one, as in create_detector({name!r}, backbone='resnet50')")
    model = _build(name, num_classes, pretrained_backbone, settings)
    generic = "m2det" if isinstance(model, M2Det) else "ssd"
    config = {"name": generic, "num_classes": num_classes, **settings}
    try:
        model.config = json.loads(json.dumps(config))
    except TypeError:  # a module, class or function among the settings: there is no JSON for it, and no saving
        model.config = None
    return model


def _build(name: str, num_classes: int, pretrained: bool, settings: Mapping[str, Any]) -> SSD:
    rest = dict(settings)
    backbone, neck = rest.pop("backbone"), rest.pop("neck")
    neck_type = neck_class(neck) if isinstance(neck, str) else neck if isinstance(neck, type) else type(neck)
    kind = M2Det if issubclass(neck_type, MLFPN) else SSD
    if name.startswith("m2det") and kind is not M2Det:
        raise TypeError(f"{name!r} stands on an MLFPN: got neck={neck!r}; create_detector('ssd', ...) takes any neck")
    frozen = rest.pop("frozen_batch_norm", False)
    loss = rest.pop("loss", "multibox")
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise ValueError(f"loss is one of {sorted(_LOSSES)}: got {loss!r}")
        loss = _LOSSES[loss]()

    def take(names: set[str]) -> dict[str, Any]:
        return {key: rest.pop(key) for key in sorted(names & set(rest))}

    detector_args = take(_arguments(SSD) - {"loss", "postprocess"})
    postprocess_args = take(_arguments(PostProcess) - {"box_coder"})
    attach_args = take({"strides", "output_stride"})
    neck_args = take(_arguments(neck_type)) if not isinstance(neck, Neck) else {}
    if rest:
        known = _arguments(SSD) | _arguments(PostProcess) | _arguments(neck_type)
        known |= {"backbone", "neck", "strides", "output_stride", "frozen_batch_norm"}
        raise TypeError(f"{name!r} on a {neck_type.__name__} takes no {sorted(rest)}: expected any of {sorted(known)}")

    size = as_size(detector_args.setdefault("image_size", 320))
    pyramid = attach(backbone, neck, pretrained=pretrained, image_size=size, **attach_args, **neck_args)
    if isinstance(backbone, str) and "image_mean" not in detector_args:
        cfg = timm.get_pretrained_cfg(backbone)
        if cfg is not None:
            detector_args = {"image_mean": cfg.mean, "image_std": cfg.std, **detector_args}
    postprocess = PostProcess(box_coder=loss.box_coder, **postprocess_args)
    model = kind(pyramid, num_classes, loss=loss, postprocess=postprocess, **detector_args)
    return freeze_batch_norm(model) if frozen else model


def freeze_batch_norm(model: SSD) -> SSD:
    """Replace every batch norm of a detector by its frozen form, which keeps its statistics and weights in training."""
    frozen: nn.Module = freeze_batch_norm_2d(model)
    assert isinstance(frozen, SSD)  # a detector is no batch norm itself
    return frozen
