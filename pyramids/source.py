"""`create_backbone`: a backbone from the name of any timm model.

The arguments of a model are read off its class: families that are built for one image size get `img_size`, and those
that can take any size are set to do so. A trial on the meta device, which costs no memory, precedes the real model.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from .backbone import Backbone, choose_taps, reason, wrap, wrap_module
from .neck import Size, checked_size, is_integer
from .unused import prune_hooked
from .weightless import needs_data, weightless

# Arguments by which timm's classes take images of other sizes than the one they were built for.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False, "always_partition": True}


def create_backbone(
    source: str | nn.Module,
    strides: Sequence[int],
    *,
    native: bool = False,
    pretrained: bool = False,
    image_size: int | Size | None = None,
    output_stride: int | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
) -> Backbone:
    """A `Backbone` with maps of the given strides, from the name of a timm model or from a module.

    Args:
        source: name of a timm model, or a module.
        strides: strides of the maps, ascending.
        native: take the maps nearest to these strides as they are, without resampling.
        pretrained: load timm's pretrained weights.
        image_size: (height, width) of the images, or the side of a square.
        output_stride: dilate the model so that no map is coarser, where timm has it.
        backbone_kwargs: further arguments of `timm.create_model`.

    Raises:
        FileNotFoundError: for a `checkpoint_path` that is not a file.
        TypeError: for a source that is neither a name nor a module.
        ValueError: for an unknown name, a model without spatial maps, an argument that it does not have, or an image
            size that it does not take; names what would do. For a `checkpoint_path` that is no checkpoint, or has
            weights of other names or shapes.

    >>> from pyramids.source import create_backbone
    >>> create_backbone("resnet18", (8, 16), output_stride=16).feature_info.channels()
    [128, 512]
    """
    if not strides or not all(is_integer(s) and s > 0 for s in strides) or sorted(set(strides)) != list(strides):
        raise ValueError(f"strides are positive integers, each larger than the last: got {tuple(strides)}")
    strides = [int(stride) for stride in strides]
    size = None if image_size is None else checked_size(image_size)
    if isinstance(source, str):
        options = dict(backbone_kwargs or {})
        names = sorted({"pretrained", "features_only", "out_indices"} & options.keys())
        if names:
            raise ValueError(f"backbone_kwargs has {names}, which attach sets itself from pretrained and strides")
        if "img_size" in options:
            raise ValueError("the size of the images is given as image_size, not as backbone_kwargs['img_size']")
        if output_stride is not None:
            options["output_stride"] = output_stride
        return _from_name(source, strides, native, pretrained, size, options)
    if not isinstance(source, nn.Module):
        raise TypeError(f"a backbone is the name of a timm model or a module: got {source!r}")
    if pretrained or output_stride is not None or backbone_kwargs:
        raise ValueError("pretrained, output_stride and backbone_kwargs are for names: this backbone is built already")
    backbone = wrap_module(source, strides, native=native)
    if size is not None:
        backbone.output_sizes(size)
    return backbone


def _from_name(
    name: str, strides: Sequence[int], native: bool, pretrained: bool, image_size: Size | None, options: dict[str, Any]
) -> Backbone:
    check_name(name)
    weights = options.get("checkpoint_path")
    if weights and not Path(weights).is_file():
        raise FileNotFoundError(f"backbone_kwargs['checkpoint_path'] is not a file: {weights}")
    channels = options.get("in_chans", 3)
    if not is_integer(channels) or channels < 1:
        raise ValueError(f"in_chans is a positive number of channels: got {channels!r}")
    if "in_chans" in options:
        options["in_chans"] = int(channels)
    plain = not options and timm.is_model(name)
    accepted, reductions, config = _described(name, timm.model_entrypoint(name)) if plain else _describe(name, options)
    options = {**{key: value for key, value in ANY_SIZE.items() if key in accepted}, **options, "features_only": True}
    options["out_indices"] = tuple(sorted(set(choose_taps(reductions, strides))))
    default = tuple(config["input_size"][1:])
    channels = options.get("in_chans", config["input_size"][0])

    def build(size: Size | None, *, real: bool) -> Backbone:
        chosen = {**options, "img_size": size} if size is not None and "img_size" in accepted else options
        body = _with_weights(name, pretrained, chosen) if real else _on_meta(name, chosen)
        return wrap(prune_hooked(body), strides, native=native, image_channels=channels)

    def trial(wanted: Size | None, size: Size) -> Backbone | str:
        """The backbone without weights, with known sizes where possible, or the reason why there is none."""
        try:
            backbone = build(wanted, real=False)
        except ValueError as error:
            if wanted is None or "img_size" not in accepted:
                raise  # no matter of the size
            build(None, real=False)
            return reason(error.__cause__ or error)
        try:
            backbone.output_sizes(size)
        except ValueError as error:
            if not needs_data(error):
                return reason(error.__cause__ or error)
        return backbone

    size = image_size or default
    backbone = trial(image_size, size)
    if isinstance(backbone, str):
        sizes = candidate_sizes(size, max(reductions), default)
        fit = next((s for s in sizes if not isinstance(trial(s, s), str)), None)
        advice = "no size was found that it takes; choose another model"
        if fit is not None:
            advice = f"the nearest size found that it takes is {fit[0]}x{fit[1]}: pass it as image_size"
        raise ValueError(f"{name!r} gives no maps of {size[0]}x{size[1]} images ({backbone}); {advice}")
    if torch.get_default_device().type != "meta" or pretrained:
        known = backbone.known_sizes
        backbone = build(image_size, real=True)
        backbone.known_sizes.update(known)
    backbone.cut_unused(size)
    return backbone


def _describe(name: str, options: Mapping[str, Any]) -> tuple[frozenset[str], tuple[int, ...], Any]:
    """Inputs that a timm model takes, the reductions of its maps, and timm's configuration of it."""
    model = _on_meta(name, options)
    info: Any = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(f"{name!r} has no spatial maps: timm gives it no feature_info; use a model that has one")
    return frozenset(accepted_arguments(type(model))), tuple(i["reduction"] for i in info), model.pretrained_cfg


@functools.lru_cache
def _described(name: str, entrypoint: Any) -> tuple[frozenset[str], tuple[int, ...], Any]:
    """The same without options, remembered while the name stands for one `entrypoint`: several necks may be tried."""
    return _describe(name, {})


def _with_weights(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    file = options.get("checkpoint_path")
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # whatever reading any kind of file raises
        if not file:
            raise
        kind = type(error).__name__
        raise ValueError(f"the weights of {file} cannot be loaded into {name!r}: {kind}: {error}") from error


def _on_meta(name: str, options: Mapping[str, Any]) -> nn.Module:
    shapes = {key: value for key, value in options.items() if key != "checkpoint_path"}
    try:
        with weightless():
            return timm.create_model(name, **shapes)
    except Exception as error:  # whatever timm's many models raise
        raise ValueError(f"timm does not build {name!r} with {shapes}: {str(error) or repr(error)}") from error


def accepted_arguments(model: type) -> set[str]:
    """Argument names of a class's constructor, including those that it passes on to its base classes."""
    names: set[str] = set()
    for base in model.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names.update(p.name for p in parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def candidate_sizes(image_size: Size, stride: int, default: Size) -> list[Size]:
    """Sizes worth a trial near `image_size`, nearest first, for a model of this coarsest stride and default size.

    They are multiples of the stride, of the windows and blocks that models divide their maps into, and of the default
    size; rectangles and, for models that take only those, squares.

    >>> candidate_sizes((320, 512), 32, (224, 224))[:3]
    [(320, 512), (336, 560), (384, 512)]
    """
    sizes = set()
    for step in {stride * n for n in (1, 2, 4, 7)} | {default[0], default[0] // 2}:
        nearest = [max(step, round(side / step) * step) for side in image_size]
        upper = [-(-side // step) * step for side in image_size]
        sizes |= {(h, w) for h, w in (nearest, upper)} | {(side, side) for side in nearest + upper}
    sizes.add(default)
    return sorted(sizes, key=lambda size: sum(abs(math.log(a / b)) for a, b in zip(size, image_size)))


def check_name(name: str) -> None:
    """Refuse names that timm does not know, and suggest the nearest; names with a source (`hf-hub:`) pass."""
    if ":" in name or timm.is_model(name):
        return
    near = difflib.get_close_matches(name.lower(), timm.list_models(), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"timm {timm.__version__} knows no model named {name!r}{hint}")
