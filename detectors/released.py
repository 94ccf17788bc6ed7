"""Checkpoints of the code that M2Det's authors released in 2019, as detectors of this library.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`,
https://arxiv.org/abs/1811.04533. Their network differs from the paper's: `MLFPN(design="released")`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detectors.errors import InputError, checked_settings
from detectors.models.m2det import M2Det
from detectors.models.zoo import create_detector

Weights = Mapping[str, Tensor]

_BOXES_PER_LOCATION = 6
_PIXEL_MEAN = (123.0, 117.0, 104.0)  # red, green, blue of the mean that their code takes off BGR images in 0..255


class Layout(NamedTuple):
    """Settings of a checkpoint's network, inferred from its keys and shapes."""

    levels: int
    scales: int
    planes: int
    classes: int
    base: tuple[int, int]
    smooth: bool
    sfam_width: int | None


def load_released_checkpoint(
    path_or_state_dict: str | os.PathLike[str] | Weights,
    *,
    image_size: int | tuple[int, int] | None = None,
    require_backbone: bool = True,
) -> M2Det:
    """Build the detector of an authors' checkpoint on VGG-16 and load its weights.

    Any number of levels, scales, planes and classes loads, with SFAM or without. What the authors' code does around the
    network comes along: images are stretched without anti-aliasing, their mean (123, 117, 104 of 255) is taken off, the
    first convolution is turned from BGR to RGB, scores above 0.1 go through linear soft-NMS at 0.3 in which boxes are
    one pixel wider, at most 50 detections per class are kept, and boxes may leave the image.

    Args:
        path_or_state_dict: a `.pth` file, or the state dict in it. Files are read with `weights_only=True`, so none can
            run code. A prefix `module.` and missing `num_batches_tracked` are understood.
        image_size: the side, or (height, width), in pixels to which images are stretched (the checkpoint does not say
            it: 320, 512 or 800); None takes images as they are, of one size in a batch, and lets the anchors
            follow.
        require_backbone: refuse weights without `base.*`; with `False` the backbone then keeps its random weights.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: for anything but a path or a mapping.
        ValueError: for a damaged file, one with more than tensors in it, or weights of another network.

    >>> from detectors import load_released_checkpoint
    >>> load_released_checkpoint({"conv1.weight": torch.zeros(1)})
    Traceback (most recent call last):
    detectors.errors.InputError: this is not a checkpoint of the authors' M2Det on VGG-16: it lacks ...
    """
    weights = read_state_dict(path_or_state_dict)
    layout = read_layout(weights)
    translated = translate(weights, layout)
    has_backbone = any(name.startswith("base.") for name in weights)
    if require_backbone and not has_backbone:
        raise InputError("the checkpoint has no backbone (base.*): pass require_backbone=False to load the rest")
    with checked_settings():  # of the image size
        model = create_detector(
            "m2det",
            layout.classes,
            backbone="vgg16_reduced",
            image_size=image_size,
            antialias=False,
            image_mean=[value / 255 for value in _PIXEL_MEAN],
            image_std=[1 / 255] * 3,
            class_names=coco_names() if layout.classes == 81 else None,
            neck_kwargs={
                "design": "released",
                "num_levels": layout.levels,
                "num_scales": layout.scales,
                "channels": layout.planes,
                "base_channels": layout.base,
                "smooth": layout.smooth,
                "sfam": layout.sfam_width is not None,
                "rd_ratio": 1 if layout.sfam_width is None else layout.sfam_width / (layout.planes * layout.levels),
            },
            postprocess_kwargs={
                "score_threshold": 0.1,
                "iou_threshold": 0.3,
                "candidates_per_class": 1000,  # theirs has no limit; above 0.1 this one is hardly met
                "max_per_class": 50,
                "max_per_image": 50 * (layout.classes - 1),
                "extra_pixel": True,
                "clip": False,
            },
        )
    assert isinstance(model, M2Det)
    _load(model, translated, has_backbone)
    return model.eval()


def read_state_dict(source: Any) -> dict[str, Tensor]:
    """A state dict from a file that is read with `weights_only=True`, or as it is; without the prefix `module.`.

    In a training checkpoint it is what stands under `state_dict`.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: for anything but a path or a mapping.
        ValueError: for a damaged file, or one with more than tensors in it.
    """
    weights = source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and torch's own errors; whatever it is, nothing was run
            # Not torch's own words: they advise to load the file after all.
            called = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it calls for {called[1]}" if called else type(error).__name__
            raise InputError(
                f"{path} is refused: it is damaged, no checkpoint, or a pickle of more than tensors, which could run "
                f"code ({reason})"
            ) from error
    elif not isinstance(source, Mapping):
        raise TypeError(f"expected a path or a state dict, got a {type(source).__name__}")
    if isinstance(weights, Mapping):
        weights = weights.get("state_dict", weights)
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        shown = "the mapping" if isinstance(source, Mapping) else source
        raise InputError(f"{shown} is not a state dict: names to tensors")
    return {name.removeprefix("module."): value for name, value in weights.items()}


def read_layout(weights: Weights) -> Layout:
    """Settings of the network to which a state dict of the authors' code belongs.

    Raises:
        ValueError: if it belongs to none.
    """
    needed = ["reduce.conv.weight", "up_reduce.conv.weight", "leach.0.conv.weight", "unet1.toplayer.0.conv.weight"]
    needed += ["unet1.layers.0.conv.weight", "Norm.weight", "loc.0.weight", "conf.0.weight"]
    missing = [name for name in needed if name not in weights]
    if missing:
        raise InputError(f"this is not a checkpoint of the authors' M2Det on VGG-16: it lacks {', '.join(missing)}")
    flat = [name for name in needed if name != "Norm.weight" and weights[name].dim() != 4]
    if flat:
        raise InputError(f"{flat[0]} has shape {tuple(weights[flat[0]].shape)}: expected a convolution")
    shallow, deep = weights["reduce.conv.weight"], weights["up_reduce.conv.weight"]
    if (shallow.shape[1], deep.shape[1]) != (512, 1024):
        raise InputError(
            f"only checkpoints on VGG-16, with maps of 512 and 1024 channels, can be loaded: this one has "
            f"{shallow.shape[1]} and {deep.shape[1]}"
        )
    if weights["loc.0.weight"].shape[0] != 4 * _BOXES_PER_LOCATION:
        raise InputError(
            f"expected {_BOXES_PER_LOCATION} boxes per location, {4 * _BOXES_PER_LOCATION} channels in loc.0.weight"
        )
    squeeze = weights.get("sfam_module.fc1.0.weight")
    return Layout(
        levels=_count(weights, r"unet(\d+)\."),
        scales=_count(weights, r"unet1\.layers\.(\d+)\.") + 1,
        planes=weights["unet1.toplayer.0.conv.weight"].shape[0],
        classes=weights["conf.0.weight"].shape[0] // _BOXES_PER_LOCATION,
        base=(shallow.shape[0], deep.shape[0]),
        smooth=any(name.startswith("unet1.smooth.") for name in weights),
        sfam_width=None if squeeze is None else squeeze.shape[0],
    )


def _count(weights: Weights, pattern: str) -> int:
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def translate(weights: Weights, layout: Layout) -> dict[str, Tensor]:
    """The weights by this library's names, each once where the authors' code repeats it.

    Raises:
        ValueError: for a name that is not the authors', or repeated weights that differ.
    """
    translated: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, value in weights.items():
        new = _rename(name, layout.scales)
        if new is None:
            raise InputError(f"this is not a checkpoint of the authors' M2Det on VGG-16: {name} is not part of it")
        if new not in translated:
            # The first convolution saw blue, green and red, in this order.
            first = name == "base.0.weight" and value.dim() == 4
            translated[new], origin[new] = value.flip(1) if first else value, name
        elif not torch.equal(translated[new], value):
            raise InputError(f"{name} differs from {origin[new]}, but the authors' code ties them")
    return translated


def _rename(name: str, scales: int) -> str | None:
    """Their name to ours. Their lists of laterals, smoothings and TUM levels differ from ours in order or start."""
    steps = scales - 1
    if match := re.fullmatch(r"unet(\d+)\.(layers|latlayer|toplayer|smooth)\.(\d+)\.(.+)", name):
        level, index = int(match[1]) - 1, int(match[3])
        backwards = steps - 1 - index  # from small to large there, from large to small here
        part = {
            "layers": f"encoder.{index}",
            "latlayer": f"lateral.{backwards}",
            "smooth": f"smooth.{backwards}",
            "toplayer": "top",
        }[match[2]]
        return f"pyramid.neck.tums.{level}.{part}.{match[4]}"
    if match := re.fullmatch(r"base\.(\d+)\.(weight|bias)", name):
        return f"pyramid.backbone.body.features_{match[1]}.{match[2]}"
    if match := re.fullmatch(r"sfam_module\.(fc[12])\.\d+\.(weight|bias)", name):
        return f"pyramid.neck.sfam.excite.0.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"leach\.\d+\.(.+)", name):
        return f"pyramid.neck.reduce.{match[1]}"
    if match := re.fullmatch(r"(loc|conf)\.(\d+)\.(weight|bias)", name):
        return f"head.{'boxes' if match[1] == 'loc' else 'classes'}.{match[2]}.{match[3]}"
    plain = {"reduce": "pyramid.neck.ffm.shallow", "up_reduce": "pyramid.neck.ffm.deep", "Norm": "pyramid.neck.norm"}
    prefix, _, rest = name.partition(".")
    return f"{plain[prefix]}.{rest}" if prefix in plain and rest else None


def _load(model: M2Det, translated: dict[str, Tensor], has_backbone: bool) -> None:
    expected = model.state_dict()
    for name, value in expected.items():
        # Old checkpoints lack the counters, which matter to no result.
        counter = name.endswith("num_batches_tracked")
        if counter or (not has_backbone and name.startswith("pyramid.backbone.")):
            translated.setdefault(name, value)
    missing = sorted(expected.keys() - translated.keys())
    unexpected = sorted(translated.keys() - expected.keys())
    if missing or unexpected:
        raise InputError(f"the checkpoint is not complete: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, value in expected.items():
        if translated[name].shape != value.shape:
            raise InputError(
                f"the checkpoint's shapes do not fit each other: {name} has {tuple(translated[name].shape)} where "
                f"{tuple(value.shape)} follows from the rest"
            )
    model.load_state_dict(translated)


def coco_names() -> list[str]:
    """The names of COCO's 80 classes in the order of their ids."""
    from torchvision.models.detection import SSD300_VGG16_Weights

    names: list[str] = SSD300_VGG16_Weights.COCO_V1.meta["categories"]
    return [name for name in names if name not in ("__background__", "N/A")]
