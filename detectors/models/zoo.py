"""Detectors by name: `create_detector`, after the manner of `timm.create_model`."""

import difflib
import json
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import freeze_batch_norm_2d
from torch import nn

from detectors.errors import InputError, SettingsError
from detectors.models.anchors import AnchorGenerator, AspectRatios, DefaultBoxes, MapSteps
from detectors.models.inputs import as_size
from detectors.models.loss import DetectionLoss, FocalLoss, MultiBoxLoss
from detectors.models.m2det import M2Det
from detectors.models.postprocess import PostProcess
from detectors.models.settings import as_json, has_json
from detectors.models.ssd import SSD
from detectors.ops.box_coder import BoxCoder
from pyramids import MLFPN, attach
from pyramids.pyramid import NeckLike
from pyramids.registry import neck_class

# The paper's M2Det is MLFPN at its defaults: 8 levels, 6 scales, 256 channels.
_THIN = {"num_levels": 4, "channels": 64, "base_channels": (64, 128)}
_VGG: dict[str, Any] = {"backbone": "vgg16_reduced"}

_PRESETS: dict[str, dict[str, Any]] = {
    "ssd": {"neck": "ssd_extras", "image_size": 320},
    "m2det": {"neck": "mlfpn", "image_size": 320},
    "m2det_320_vgg16": {**_VGG, "neck": "mlfpn", "image_size": 320},
    "m2det_512_vgg16": {**_VGG, "neck": "mlfpn", "image_size": 512},
    "m2det_800_vgg16": {**_VGG, "neck": "mlfpn", "image_size": 800},
    "m2det_320_resnet101": {"backbone": "resnet101", "neck": "mlfpn", "image_size": 320},
    "m2det_512_resnet101": {"backbone": "resnet101", "neck": "mlfpn", "image_size": 512},
    "m2det_320_efficientnet_lite0": {
        "backbone": "tf_efficientnet_lite0",
        "neck": "mlfpn",
        "neck_kwargs": _THIN,
        "image_size": 320,
    },
    # SSD300 and SSD512 on COCO (SSD, section 3.3, and its released configurations): four anchors on the first and
    # the last two maps, six on the others.
    "ssd_300_vgg16": {
        **_VGG,
        "neck": "ssd_extras",
        "image_size": 300,
        "anchor_sizes": (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        "aspect_ratios": ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        "anchor_steps": (8, 16, 32, 64, 100, 300),
        "anchor_clip": "sizes",
    },
    "ssd_512_vgg16": {
        **_VGG,
        "neck": "ssd_extras",
        "neck_kwargs": {"layout": "ssd512"},
        "image_size": 512,
        "anchor_sizes": (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
        "aspect_ratios": ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        "anchor_steps": (8, 16, 32, 64, 128, 256, 512),
        "anchor_clip": "sizes",
    },
    # The baselines of M2Det's ablation (Table 2).
    "ssd_320_vgg16": {**_VGG, "neck": "ssd_extras", "image_size": 320},
    "dssd_320_vgg16": {**_VGG, "neck": "deconv", "image_size": 320},
    "ssd_320_efficientnet_lite0": {"backbone": "tf_efficientnet_lite0", "neck": "ssd_extras", "image_size": 320},
}
LOSSES: dict[str, type[DetectionLoss]] = {"multibox": MultiBoxLoss, "focal": FocalLoss}


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
        raise InputError(f"no detector is named {name!r}{hint} (known: {', '.join(list_detectors())})")
    return dict(_PRESETS[name])


def create_detector(
    name: str,
    num_classes: int = 81,
    *,
    pretrained_backbone: bool = False,
    backbone_kwargs: Mapping[str, Any] | None = None,
    neck_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    loss_kwargs: Mapping[str, Any] | None = None,
    postprocess_kwargs: Mapping[str, Any] | None = None,
    **detector_settings: Any,
) -> SSD:
    """Build a detector by name.

    Args:
        name: one of `list_detectors()`; `"ssd"` and `"m2det"` take any `backbone=`, and `"ssd"` any `neck=`.
        num_classes: number of classes, the background counted (COCO 81, VOC 21).
        pretrained_backbone: load the backbone's ImageNet weights the timm way.
        backbone_kwargs: further arguments of `timm.create_model`, such as `drop_path_rate`.
        neck_kwargs: arguments of the neck's class, such as `num_levels`; they replace the preset's one by one, or all
            of them where `neck` is another than the preset's. For a list of necks, the arguments of each.
        loss_kwargs: arguments of the loss's class, such as `iou_threshold`, `min_negatives` or `alpha`.
        postprocess_kwargs: arguments of `PostProcess`, such as `nms` or `score_threshold`.
        **detector_settings: settings that replace the preset's:

            * `backbone`, `neck` (or a list of necks), `strides` and `output_stride`, as `pyramids.attach` takes them;
            * `image_size`, `image_mean`, `image_std`, `antialias`, `class_names`, `category_ids` and `head`, as
              `SSD` takes them;
            * `anchor_sizes`, `aspect_ratios`, `anchor_steps` and `anchor_clip` of `DefaultBoxes`, or `anchors`, a
              generator;
            * `loss`: "multibox", "focal" or a `DetectionLoss`;
            * `box_variances`: those of the `BoxCoder`;
            * `frozen_batch_norm`: keep the statistics and weights of batch norms in training.

    Raises:
        ValueError: for an unknown name, backbone, neck or loss; suggests the nearest.
        TypeError: for an unknown setting, for a setting of a part that is passed as a module, and for an M2Det on
            another neck.

    >>> from detectors import create_detector
    >>> small = {"num_levels": 2, "channels": 32}
    >>> model = create_detector("m2det", 4, backbone="resnet18", image_size=320, neck_kwargs=small)
    >>> model.pyramid.neck.num_levels
    2
    """
    parts = {
        "backbone_kwargs": backbone_kwargs or {},
        "neck_kwargs": neck_kwargs or {},
        "loss_kwargs": loss_kwargs or {},
        "postprocess_kwargs": postprocess_kwargs or {},
    }
    settings = preset(name)
    for part, args in parts.items():
        kind = part.removesuffix("_kwargs")
        replaced = kind in detector_settings and detector_settings[kind] != settings.get(kind)
        if isinstance(args, Mapping):
            settings[part] = dict(args) if replaced else {**settings.get(part, {}), **args}
        elif part == "neck_kwargs" and isinstance(args, (list, tuple)) and all(isinstance(x, Mapping) for x in args):
            settings[part] = [dict(each) for each in args]
        else:
            raise SettingsError(f"{part} is a mapping of arguments: got {args!r}")
    settings |= detector_settings
    _check_unused(detector_settings, parts)
    unknown = sorted(settings.keys() - _SETTINGS - parts.keys())
    if unknown:
        raise SettingsError(
            f"{unknown} are not settings of a detector: expected any of {sorted(_SETTINGS)}; arguments of a part "
            f"belong in {', '.join(parts)} (on the command line neck.NAME=VALUE)"
        )
    if settings.get("backbone") is None:
        raise InputError(f"{name!r} takes any backbone: name one, as in create_detector({name!r}, backbone='resnet50')")
    model = _build(name, num_classes, pretrained_backbone, **settings)
    generic = "m2det" if isinstance(model, M2Det) else "ssd"
    config = {"name": generic, "num_classes": model.num_classes, **settings, "class_names": model.class_names}
    plain = {key: value for key, value in config.items() if has_json(value)}
    model.config = json.loads(as_json(plain))
    model.opaque_settings = tuple(key for key in config if key not in plain)  # modules, classes and functions
    return model


_SETTINGS = {
    *("backbone", "neck", "strides", "output_stride", "image_size", "image_mean", "image_std", "antialias"),
    *("class_names", "category_ids", "head", "anchors", "anchor_sizes", "aspect_ratios", "anchor_steps", "anchor_clip"),
    *("loss", "box_variances", "frozen_batch_norm"),
}


_ANCHOR_SETTINGS = ("anchor_sizes", "aspect_ratios", "anchor_steps", "anchor_clip")


def _check_unused(settings: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse settings of a part that is passed as a module and has its own.

    Raises:
        TypeError: names them.
    """
    passed = {name for name, value in settings.items() if value is not None}
    if "anchors" in passed and (unused := sorted(passed.intersection(_ANCHOR_SETTINGS))):
        raise SettingsError(f"the anchors are built already and take no settings: got {unused}")
    if isinstance(settings.get("loss"), DetectionLoss):
        unused = [*sorted(parts["loss_kwargs"]), *sorted(passed & {"box_variances"})]
        if unused:
            raise SettingsError(f"the loss is built already and takes no arguments: got {unused}")
    if "box_variances" in passed and "box_coder" in parts["loss_kwargs"]:
        raise SettingsError("box_variances are those of the loss's box coder: give them or loss_kwargs' box_coder")


def _build(
    name: str,
    num_classes: int,
    pretrained: bool,
    *,
    backbone: str | nn.Module,
    neck: NeckLike | Sequence[NeckLike],
    backbone_kwargs: Mapping[str, Any],
    neck_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    loss_kwargs: Mapping[str, Any],
    postprocess_kwargs: Mapping[str, Any],
    strides: Sequence[int] | None = None,
    output_stride: int | None = None,
    image_size: int | tuple[int, int] | None = 320,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    antialias: bool = True,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    category_ids: Sequence[int] | None = None,
    head: nn.Module | None = None,
    anchors: AnchorGenerator | None = None,
    anchor_sizes: Sequence[float] | None = None,
    aspect_ratios: AspectRatios = (2.0, 3.0),
    anchor_steps: MapSteps | None = None,
    anchor_clip: bool | Literal["sizes"] = True,
    loss: str | DetectionLoss = "multibox",
    box_variances: tuple[float, float] = (0.1, 0.2),
    frozen_batch_norm: bool = False,
) -> SSD:
    detector_class = M2Det if _is_mlfpn(neck) else SSD
    if name.startswith("m2det") and detector_class is not M2Det:
        raise SettingsError(f"{name!r} needs an MLFPN: got neck={neck!r}; create_detector('ssd', ...) takes any neck")
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise InputError(f"loss is one of {sorted(LOSSES)} or a DetectionLoss: got {loss!r}")
        loss = LOSSES[loss](**{"box_coder": BoxCoder(box_variances), **loss_kwargs})
    elif not isinstance(loss, DetectionLoss):
        raise SettingsError(f"loss is one of {sorted(LOSSES)} or a DetectionLoss: got {loss!r}")
    if anchors is None:
        anchors = DefaultBoxes(anchor_sizes, aspect_ratios=aspect_ratios, steps=anchor_steps, clip=anchor_clip)
    size = as_size(image_size)
    channels = backbone_kwargs.get("in_chans", 3)
    if isinstance(channels, bool) or not isinstance(channels, Integral) or channels < 1:
        raise SettingsError(f"in_chans of the backbone is a number of channels from 1 on: got {channels!r}")
    pyramid = attach(
        backbone,
        neck,
        pretrained=pretrained,
        image_size=size,
        strides=strides,
        output_stride=output_stride,
        backbone_kwargs=backbone_kwargs,
        neck_kwargs=neck_kwargs,
    )
    # Images are normalized as the backbone's weights want it, unless the caller says otherwise.
    cfg = timm.get_pretrained_cfg(backbone) if isinstance(backbone, str) and image_mean is None else None
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if cfg is None else (cfg.mean, cfg.std)
    if channels != 3:  # timm sums or repeats the weights of RGB; their mean statistics fit each channel best
        mean, std = ([sum(values) / len(values)] * int(channels) for values in (mean, std))
    model = detector_class(
        pyramid,
        num_classes,
        image_size=size,
        anchors=anchors,
        head=head,
        loss=loss,
        postprocess=PostProcess(**{"box_coder": loss.box_coder, **postprocess_kwargs}),
        image_mean=mean if image_mean is None else image_mean,
        image_std=std if image_std is None else image_std,
        antialias=antialias,
        class_names=class_names,
        category_ids=category_ids,
    )
    return freeze_batch_norm(model) if frozen_batch_norm else model


def _is_mlfpn(neck: Any) -> bool:
    kind = neck_class(neck) if isinstance(neck, str) else neck if isinstance(neck, type) else type(neck)
    return issubclass(kind, MLFPN)


def freeze_batch_norm(model: SSD) -> SSD:
    """Replace every batch norm of a detector by its frozen form, which keeps its statistics and weights in training."""
    frozen: nn.Module = freeze_batch_norm_2d(model)
    assert isinstance(frozen, SSD)  # a detector is not itself a batch norm
    return frozen
