"""Settings of `create_detector` as text, as the command line and run folders hold them, and those of version 0.1.0.

A setting of a part has the part's name before a dot: `neck.num_levels=4` is `neck_kwargs={"num_levels": 4}`. Several
necks have a list of mappings: `neck=["fpn","bfp"]` and `neck_kwargs=[{"out_channels":64},{}]`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from detectors.errors import InputError

PARTS = ("backbone", "neck", "loss", "postprocess")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Arguments of `create_detector` from texts NAME=JSON or PART.NAME=JSON; a plain word needs no quotes.

    Raises:
        ValueError: for a text of another form, an unknown part, or a setting that is given twice.

    >>> parse_settings(["neck.num_levels=4", "postprocess.nms=hard", "anchor_sizes=[0.1,0.3,0.9]"])
    {'neck_kwargs': {'num_levels': 4}, 'postprocess_kwargs': {'nms': 'hard'}, 'anchor_sizes': [0.1, 0.3, 0.9]}
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        part, dot, key = name.rpartition(".")
        if not equals or not value or not key:
            raise InputError(f"a setting is NAME=JSON or PART.NAME=JSON, such as neck.num_levels=2: got {text!r}")
        if dot and part not in PARTS:
            raise InputError(f"{text!r} names no part of a detector: expected one of {', '.join(PARTS)} before the dot")
        target = settings.setdefault(f"{part}_kwargs", {}) if dot else settings
        if not isinstance(target, dict):
            raise InputError(f"{part}_kwargs has a list of mappings, so {name} cannot be set alone: put it in the list")
        if key in target:
            raise InputError(f"the setting {name} is given twice")
        try:
            target[key] = json.loads(value)
        except ValueError:
            if value[0] in '[{"':
                raise InputError(f"the value of {name} is not valid JSON: {value}") from None
            target[key] = value
    return settings


def format_settings(settings: Mapping[str, Any]) -> list[str]:
    """Settings as texts that `parse_settings` reads back.

    >>> format_settings({"neck": "fpn", "neck_kwargs": {"out_channels": 64}})
    ['neck="fpn"', 'neck.out_channels=64']
    """
    texts = []
    for name, value in settings.items():
        part = name.removesuffix("_kwargs")
        split = part != name and isinstance(value, Mapping)  # several necks have a list of mappings
        flat = {f"{part}.{key}": x for key, x in value.items()} if split else {name: value}
        texts += [f"{key}={json.dumps(x)}" for key, x in flat.items()]
    return texts


def as_json(value: Any) -> str:
    """A setting as JSON; NumPy's numbers and arrays count as Python's.

    Raises:
        TypeError: for what JSON does not have, such as a class or a module.

    >>> as_json({"score_threshold": np.float32(0.25)})
    '{"score_threshold": 0.25}'
    """
    return json.dumps(value, default=_plain)


def has_json(value: Any) -> bool:
    """Whether JSON can hold a setting.

    >>> has_json({"clip": True}), has_json(np.float32)
    (True, False)
    """
    try:
        as_json(value)
    except TypeError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"no JSON for a {type(value).__name__}")


_DETECTOR_0_1 = {
    *("name", "num_classes", "backbone", "neck", "strides", "output_stride", "image_size", "loss"),
    *("frozen_batch_norm", "anchor_sizes", "anchor_steps", "image_mean", "image_std", "antialias", "class_names"),
}
_POSTPROCESS_0_1 = {
    *("score_threshold", "nms", "iou_threshold", "sigma", "min_score", "candidates_per_class", "max_per_class"),
    *("max_per_image", "extra_pixel", "clip"),
}


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `create_detector` from a saved config; those of version 0.1.0 were one flat record."""
    if any(name.endswith("_kwargs") for name in config):
        return dict(config)
    upgraded = {name: value for name, value in config.items() if name in _DETECTOR_0_1}
    upgraded["postprocess_kwargs"] = {name: value for name, value in config.items() if name in _POSTPROCESS_0_1}
    neck = {name: value for name, value in config.items() if name not in _DETECTOR_0_1 | _POSTPROCESS_0_1}
    if "reduction" in neck:  # of SFAM
        neck["rd_ratio"] = 1 / neck.pop("reduction")
    if "extra_from_input" in neck:  # of FPN and PAFPN
        neck["extra_from"] = "input" if neck.pop("extra_from_input") else "output"
    upgraded["neck_kwargs"] = neck
    return upgraded
