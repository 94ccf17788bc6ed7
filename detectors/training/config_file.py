"""Options of a run's `config.json` beside those of the command line."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectors.errors import InputError
from detectors.training.config import read_config
from detectors.training.run_log import CONFIG

_WITHOUT: dict[str, tuple[Any, ...]] = {
    "model": (None,),
    "backbone": (None,),
    "pretrained": (False,),
    "backbone_weights": ("auto", "none"),
}
"""Options that `weights` excludes, and their values that say nothing."""


def combined(file: Path, named: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file and of the command line, which takes precedence.

    Where `weights` are among them, what the file says of the start of its own run is left out, if the run that made the
    weights says the same.

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
    run = _run_of(weights)
    other = [name for name in in_file if said[name] != run.get(name)]
    if other:
        values = " and ".join(f"{name}={options[name]!r}" for name in other)
        raise InputError(
            f"--weights {weights} brings its own detector, and {file} says otherwise: take {values} out of the file"
        )
    return {name: value for name, value in options.items() if name not in in_file}


def _run_of(weights: str) -> dict[str, Any]:
    """The options of the run that made a detector; empty where they are not known."""
    path = Path(weights)  # a run's folder, or best/ or last/ in it, or a file there
    for folder in (path, *path.parents[:2]) if path.exists() else ():
        if (folder / CONFIG).is_file():
            with contextlib.suppress(InputError):
                return read_config(folder / CONFIG)
    return {}
