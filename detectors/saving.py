"""Saving of detectors, and loading from folders, files and the Hugging Face Hub.

A saved detector is a folder with `model.safetensors` and the `config.json` that rebuilds it; the config is also in the
header of the safetensors file, so that the file alone is enough.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from detectors.atomic import write_atomically
from detectors.differences import first_difference
from detectors.errors import InputError, checked_settings
from detectors.models.anchors import DefaultBoxes
from detectors.models.inputs import check_class_names
from detectors.models.postprocess import PostProcess
from detectors.models.settings import as_json, upgrade_config
from detectors.models.ssd import SSD
from detectors.models.zoo import LOSSES, create_detector
from detectors.released import load_released_checkpoint, read_state_dict
from pyramids import __version__
from pyramids.weightless import weightless

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_FROZEN_NORMS = (FrozenBatchNormAct2d, FrozenBatchNorm2d)
# Settings that `describe` reads off the detector, whatever they were given as.
_READ_OFF = {"anchors", "loss", "loss_kwargs", "postprocess_kwargs"}
_HUB_OPTIONS = {"revision", "cache_dir", "force_download", "local_files_only", "token"}


def save(model: SSD, folder: str | Path) -> None:
    """Write a detector to a folder, from which `load` reads it; the folder is made if it is missing.

    Settings that were changed after the detector was built (score threshold, post-processing, image mean, class names)
    are saved as they are now.

    Raises:
        TypeError: for anything but an `SSD`.
        ValueError: for a detector that no config can rebuild; names the reason, and nothing is written.
        OSError: if the folder cannot be written.

    >>> import tempfile
    >>> from detectors import create_detector, load, save
    >>> folder = tempfile.mkdtemp()
    >>> save(create_detector("ssd", 3, backbone="resnet18", neck="fpn", image_size=64), folder)
    >>> load(folder).num_classes
    3
    """
    if not isinstance(model, SSD):
        raise TypeError(f"save takes an SSD or M2Det: got a {type(model).__name__}; save what it was made from")
    config = json.dumps({"version": __version__, "detector": describe(model)}, indent=2)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    header = {"config": config}  # one entry: of several, safetensors writes the first that comes
    write_atomically(folder / WEIGHTS, lambda file: save_file(weights, file, metadata=header))
    write_atomically(folder / CONFIG, lambda file: file.write_text(config, encoding="utf-8"))


def load(
    path_or_name: str | os.PathLike[str],
    *,
    map_location: str | torch.device = "cpu",
    image_size: int | tuple[int, int] | None = 512,
) -> SSD:
    """Load a detector for inference from a folder, a file or the Hugging Face Hub.

    Args:
        path_or_name: a run's folder (its `best`, or else its `last`), a saved detector's folder or `.safetensors` file,
            a state dict beside its `config.json`, a `.pth` checkpoint of M2Det's authors, or the name `owner/name` of a
            repository on the Hub.
        map_location: the device of the detector.
        image_size: the size, a side or (height, width) in pixels, to which images are stretched for a checkpoint of
            the authors, which does not say it (they trained 320, 512 and 800); other detectors know theirs.

    Raises:
        FileNotFoundError: if there is nothing at that path.
        ValueError: if it does not hold a detector, or a damaged one.

    >>> import tempfile
    >>> from detectors import create_detector, load, save
    >>> folder = tempfile.mkdtemp()
    >>> save(create_detector("ssd", 3, backbone="resnet18", neck="fpn", image_size=64), folder)
    >>> load(f"{folder}/model.safetensors").image_size
    (64, 64)
    """
    path = Path(path_or_name)
    if path.is_dir():
        detector = _open_folder(path)
    elif path.is_file():
        detector = _open_file(path, image_size)
    elif isinstance(path_or_name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", path_or_name) and not path.parent.exists():
        detector = open_pretrained(path_or_name)
    else:
        raise FileNotFoundError(f"no checkpoint at {path}")
    return detector.to(map_location).eval()


def open_pretrained(
    name: str | os.PathLike[str], kind: type[SSD] = SSD, *, map_location: str | torch.device = "cpu", **options: Any
) -> SSD:
    """A detector of class `kind` from a saved folder or a repository of the Hub; see `SSD.from_pretrained`."""
    unknown = sorted(options.keys() - _HUB_OPTIONS)
    if unknown:
        raise TypeError(
            f"from_pretrained takes no {unknown}: expected any of {sorted(_HUB_OPTIONS | {'map_location'})}"
        )
    if os.path.isdir(name):
        weights = Path(name, WEIGHTS)
    elif isinstance(name, Path) or os.path.isabs(name):
        raise FileNotFoundError(f"no folder {name}")
    else:
        try:
            hf_hub_download(os.fspath(name), CONFIG, **options)
            weights = Path(hf_hub_download(os.fspath(name), WEIGHTS, **options))
        except (OSError, ValueError) as error:  # HTTP errors are OSErrors, malformed names ValueErrors
            raise FileNotFoundError(f"no folder {name}, and no such detector on the Hub: {error}") from error
    model = _restored(weights)
    if not isinstance(model, kind):
        raise TypeError(f"{name} holds an {type(model).__name__}: load it with {type(model).__name__}")
    return model.to(map_location).eval()


def describe(model: SSD) -> dict[str, Any]:
    """The arguments of `create_detector` that build a detector as it is now, in JSON's types.

    Raises:
        ValueError: if no config can rebuild it; names the reason.
    """
    if model.config is None:
        raise InputError("no config can rebuild a detector that create_detector did not build: save its state_dict()")
    if opaque := [name for name in model.opaque_settings if name not in _READ_OFF]:
        raise InputError(
            f"create_detector was given a module, class or function in {', '.join(opaque)}, and no config can rebuild "
            "it: save the detector's state_dict()"
        )
    losses = {kind: name for name, kind in LOSSES.items()}
    known: dict[str, tuple[type, ...]] = {"anchors": (DefaultBoxes,), "loss": (*losses,), "postprocess": (PostProcess,)}
    for name, kinds in known.items():
        part = getattr(model, name)
        if type(part) not in kinds:
            raise InputError(f"the detector's {name} is a {type(part).__name__}, which no config can rebuild")
    assert isinstance(model.anchors, DefaultBoxes)  # by the check of kinds
    anchors, coder = model.anchors.settings(), model.loss.box_coder
    if tuple(model.postprocess.box_coder.variances) != tuple(coder.variances):
        raise InputError("loss and postprocess have box coders of different variances, which no config can rebuild")
    try:
        config = {
            **model.config,
            "num_classes": model.num_classes,
            "image_size": model.image_size,
            "image_mean": model.image_mean.flatten().tolist(),
            "image_std": model.image_std.flatten().tolist(),
            "antialias": model.antialias,
            "class_names": check_class_names(model.class_names, model.num_classes),
            "category_ids": model.category_ids,
            "anchor_sizes": anchors["anchor_sizes"],
            "aspect_ratios": anchors["aspect_ratios"],
            "anchor_steps": anchors["steps"],
            "anchor_clip": anchors["clip"],
            "loss": losses[type(model.loss)],
            "loss_kwargs": model.loss.settings(),
            "postprocess_kwargs": model.postprocess.settings(),
            "box_variances": coder.variances,
            "frozen_batch_norm": any(isinstance(m, _FROZEN_NORMS) for m in model.modules()),
        }
        plain: dict[str, Any] = json.loads(as_json(config))
        with torch.random.fork_rng(devices=[]), weightless():
            rebuilt = create_detector(**plain)
    except (TypeError, ValueError) as error:
        raise InputError(f"no config can rebuild this detector as it is now: {error}") from error
    difference = first_difference(model, rebuilt)
    if difference is not None:
        name, ours, theirs = difference
        raise InputError(
            f"this detector was changed since create_detector built it, and no config can rebuild it: {name} is "
            f"{ours}, built it would be {theirs}; save its state_dict() instead"
        )
    return plain


def build(text: str, source: Path) -> SSD:
    """The detector of a config's text, with random weights.

    Raises:
        ValueError: if the text is not a config of a detector; names `source`.
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(config, dict) or "detector" not in config:
        raise InputError(f"{source} is not a config of a detector: expected what save or save_pretrained writes")
    with checked_settings():
        return create_detector(**upgrade_config(config["detector"]))


def load_weights(model: nn.Module, file: str | Path) -> None:
    """Load a safetensors file into a model, all or nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or made for a model of other keys or shapes; says which.
    """
    fit_weights(model, read_weights(file), file)


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file; errors as of `load_weights`."""
    if not os.path.exists(file):
        raise FileNotFoundError(f"no weights at {file}")
    try:
        weights: dict[str, Tensor] = load_file(file)
    except Exception as error:  # of safetensors
        raise InputError(f"{file} is not a complete safetensors file: {error}") from error
    return weights


def fit_weights(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Load a state dict into a model, all or nothing.

    Raises:
        ValueError: if it was made for a model of other keys or shapes; says which.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        missing = sorted(set(expected) - set(found))
        unexpected = sorted(set(found) - set(expected))
        both = sorted(expected.keys() & found.keys())
        reshaped = [f"{name}: {found[name]} for {expected[name]}" for name in both if found[name] != expected[name]]
        raise InputError(
            f"{source} does not fit this {type(model).__name__}: {len(missing)} keys are missing {missing[:3]}, "
            f"{len(unexpected)} are unknown {unexpected[:3]}, {len(reshaped)} have another shape {reshaped[:3]}"
        )
    model.load_state_dict(weights)


def _open_folder(folder: Path) -> SSD:
    for candidate in (folder / "best", folder / "last", folder):
        if (candidate / WEIGHTS).exists():
            return open_pretrained(candidate)
    raise InputError(f"{folder} holds no detector: expected best/{WEIGHTS}, last/{WEIGHTS} or {WEIGHTS} in it")


def _open_file(file: Path, image_size: int | tuple[int, int] | None) -> SSD:
    if file.suffix == ".safetensors":
        return _restored(file)
    weights = read_state_dict(file)
    if not any(name.startswith("pyramid.") for name in weights):
        return load_released_checkpoint(weights, image_size=image_size)
    return _restored(file, weights)


def _restored(file: Path, weights: dict[str, Tensor] | None = None) -> SSD:
    """The detector of a file of weights, which are read from it if they are not given.

    Its config is the one beside the file, or else the one in the file's header.
    """
    beside = file.with_name(CONFIG)
    if beside.exists():
        text: str | None = beside.read_text(encoding="utf-8")
    elif not file.exists():
        raise FileNotFoundError(f"no weights at {file}")
    else:
        text = _header(file).get("config") if weights is None else None
    if text is None:
        raise InputError(f"{file} does not say which detector it belongs to: expected its {CONFIG} beside it")
    model = build(text, beside if beside.exists() else file)
    weights = read_weights(file) if weights is None else weights
    try:
        fit_weights(model, weights, file)
    except InputError as error:
        if "version" not in json.loads(text):
            raise InputError(f"{error}. Version 0.1.0 saved it: the changelog says whose weights changed") from error
        raise
    return model


def _header(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as content:
            return dict(content.metadata() or {})
    except Exception as error:  # of safetensors
        raise InputError(f"{file} is not a complete safetensors file: {error}") from error
