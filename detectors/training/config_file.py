"""Options of a run's `config.json` beside those of the command line."""

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from detectors.errors import InputError
from detectors.models.anchors import DefaultBoxes
from detectors.models.inputs import as_size
from detectors.models.settings import as_json, parse_settings
from detectors.models.zoo import preset
from detectors.saving import load
from detectors.training.config import read_config
from detectors.training.run_log import CONFIG

_WITHOUT: dict[str, tuple[Any, ...]] = {
    "model": (None,),
    "backbone": (None,),
    "pretrained": (False,),
    "backbone_weights": ("auto", "none"),
}
"""Options that `weights` excludes, and their values that say nothing."""
_IDENTITY = ("backbone", "neck")
"""Settings by which a file tells one detector from another, whatever replaces them."""
_OF_PARTS = ("backbone_kwargs", "neck_kwargs")
_REPLACING = ("settings", "image_size")
"""Options that replace settings of a preset."""


def combined(file: Path, named: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file and of the command line, which takes precedence.

    Where `weights` are among them, what the file says of the start of its own run is left out, if the trained detector
    began so too.

    Raises:
        FileNotFoundError, ValueError: for a file or weights that cannot be read, or options that exclude each other;
            says which of them stand in the file.
    """
    said = read_config(file)
    options = {**said, **named}
    weights = options.get("weights")
    starts = [name for name, nothing in _WITHOUT.items() if options.get(name, nothing[0]) not in nothing]
    if weights is None or not starts:
        return options
    on_line = [name for name in starts if name in named]
    if on_line and "weights" not in named:
        words = " and ".join(f"--{name.replace('_', '-')}" for name in on_line)
        raise InputError(
            f"{file} has weights={weights!r}, which bring their own detector: leave out {words}, or take the weights "
            "out of the file"
        )
    in_file = [name for name in starts if name not in named]
    other = _differing(in_file, said, options)
    if other:
        values = " and ".join(f"{name}={options[name]!r}" for name in other)
        raise InputError(
            f"--weights {weights} brings its own detector, and {file} says otherwise: take {values} out of the file"
        )
    return {name: value for name, value in options.items() if name not in in_file}


def _differing(names: Collection[str], said: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The names of what a file said that the trained detector of the options does not have, or did not begin with."""
    weights = options["weights"]
    run = _run_of(weights)
    differing = [name for name in ("pretrained", "backbone_weights") if name in names and run.get(name) != said[name]]
    parts = [name for name in ("model", "backbone") if name in names]
    if not parts:
        return differing
    expected = _expected({name: value for name, value in said.items() if name in (*parts, *_REPLACING)}, options)
    return parts + differing if _differs(expected, load(weights).config or {}) else differing


def _expected(said: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a trained detector has if it began as said, without those that are replaced anyway."""
    model, backbone = said.get("model"), said.get("backbone")
    own, line = (parse_settings(given.get("settings") or ()) for given in (said, options))
    began = {**(preset(model) if model else {}), **({"backbone": backbone} if backbone else {})}
    replaced = {*own, *line} | {"image_size" for given in (said, options) if given.get("image_size") is not None}
    expected = {name: value for name, value in began.items() if name in _IDENTITY or name not in replaced}
    expected |= {name: given[name] for given in (own, line) for name in _IDENTITY if name in given}
    for part in set(_OF_PARTS).intersection(began):
        kind = part.removesuffix("_kwargs")
        # Another neck has none of the preset's arguments.
        of_preset = began[part] if expected[kind] == began[kind] else {}
        given = [settings[part] for settings in (own, line) if part in settings]
        expected[part] = {name: value for name, value in of_preset.items() if not any(name in args for args in given)}
    return expected


def _differs(expected: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Whether a trained detector's settings, in JSON's types, are others than those expected of it."""
    for name, value in expected.items():
        found = trained.get(name)
        if name in _OF_PARTS:
            if value and (not isinstance(found, Mapping) or _differs(value, found)):
                return True
        elif _normal(name, value) != _normal(name, found):
            return True
    return False


def _normal(name: str, value: Any) -> Any:
    """A setting in the form, and in JSON's types, in which a saved detector has it."""
    if name == "image_size":
        value = as_size(value)
    elif name == "anchor_steps":
        value = DefaultBoxes(steps=value).steps
    return json.loads(as_json(value))


def _run_of(weights: str) -> dict[str, Any]:
    """The options of the run that made a detector; empty where they are not known."""
    path = Path(weights)  # a run's folder, or best/ or last/ in it, or a file there
    for folder in (path, *path.parents[:2]) if path.exists() else ():
        if (folder / CONFIG).is_file():
            with contextlib.suppress(InputError):
                return read_config(folder / CONFIG)
    return {}
