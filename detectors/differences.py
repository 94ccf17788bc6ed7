"""Differences of two detectors in what their numbers depend on beside the values of the weights."""

from typing import Any

import numpy as np
from torch import nn

from detectors.models.settings import as_json

# A matter of the training alone: a detector in evaluation reads none of these.
_TRAINING = {"training", "momentum", "grad_checkpointing"}
_UNSYNCHRONIZED = {"SyncBatchNorm": "BatchNorm2d", "SyncBatchNormAct": "BatchNormAct2d"}


def first_difference(one: nn.Module, other: nn.Module) -> tuple[str, str, str] | None:
    """The first name at which two modules differ, and what each has there; None if they are alike.

    Compared are the classes of layers, the shapes of parameters and buffers, and the plain attributes of layers that
    both have, such as the `upsample` of an FPN. Synchronized batch norms count as plain ones.

    >>> from torch import nn
    >>> from detectors.differences import first_difference
    >>> first_difference(nn.Sequential(nn.Dropout(0.5)), nn.Sequential(nn.Dropout(0.2)))
    ('0.p', '0.5', '0.2')
    """
    ours, theirs = _structure(one), _structure(other)
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            return name, ours.get(name, "missing"), theirs.get(name, "missing")
    layers = dict(other.named_modules())
    for name, layer in one.named_modules():
        first, second = _settings(layer), _settings(layers[name])
        for key in first.keys() & second.keys() if name else ():  # the root's own are those of the config
            if first[key] != second[key]:
                return f"{name}.{key}", first[key], second[key]
    return None


def _structure(module: nn.Module) -> dict[str, str]:
    """The class of each layer and the shape of each tensor, by name; a shared one by its first name."""
    classes = ((name, type(layer).__name__) for name, layer in module.named_modules() if name)
    layers = {name: _UNSYNCHRONIZED.get(cls, cls) for name, cls in classes}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return layers | {name: f"a tensor of shape {tuple(tensor.shape)}" for name, tensor in tensors}


def _settings(layer: nn.Module) -> dict[str, str]:
    """A layer's public attributes of plain values as JSON, in which tuples and lists are alike."""
    return {
        name: as_json(value)
        for name, value in vars(layer).items()
        if not name.startswith("_") and name not in _TRAINING and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.ndarray))
