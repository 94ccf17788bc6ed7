"""Any model with `feature_info` as a source of NCHW maps with known channels and strides.

timm's models differ in what they return (NCHW or NHWC) and in their strides (a pyramid, or one stride throughout).
Everything is read off `feature_info` and `output_fmt`, nothing off names.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from timm.models import FeatureInfo
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from .neck import Size, checked_size
from .resample import Resample
from .unused import cut_unused, unused_parameters
from .weightless import hooks_of, listed, run_twin


class Tap(NamedTuple):
    """One map of the backbone's body: its place in the list, channels, stride, and whether it comes as NHWC."""

    place: int
    channels: int
    stride: int
    nhwc: bool


class Backbone(nn.Module):
    """Maps of a body, converted to NCHW and brought to the strides that were asked for, finest first.

    Args:
        body: a module that turns images into maps, as timm's `features_only` models do. A list, a tuple, a generator,
            the values of a dict in their order, a single map and the `feature_maps` of transformers' backbones serve.
        taps: the map of the body that each output comes from.
        strides: the stride of each output.
        num_maps: how many maps the body gives.
        image_channels: channels of the images, 3 for RGB.

    >>> import torch
    >>> from pyramids.source import create_backbone
    >>> backbone = create_backbone("resnet18", (8, 16))
    >>> backbone.feature_info.channels(), backbone.feature_info.reduction()
    ([128, 256], [8, 16])
    >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 96))]
    [(1, 128, 8, 12), (1, 256, 4, 6)]
    """

    feature_info: FeatureInfo

    def __init__(
        self, body: nn.Module, taps: Sequence[Tap], strides: Sequence[int], num_maps: int, *, image_channels: int = 3
    ) -> None:
        super().__init__()
        self.body = body
        self.taps = tuple(taps)
        self.num_maps = num_maps
        self.image_channels = image_channels
        self.known_sizes: dict[Size, list[Size]] = {}
        self.cut: tuple[str, ...] = tuple(f"body.{name}" for name in getattr(body, "cut", ()))
        """Names of the modules, parameters and buffers that were taken out, see `cut_unused`."""
        self.resample = nn.ModuleList(Resample(tap.channels, tap.stride, s) for tap, s in zip(taps, strides))
        info = [
            {"num_chs": resample.out_channels, "reduction": stride, "module": f"resample.{i}"}
            for i, (resample, stride) in enumerate(zip(self.resample, strides))
        ]
        self.feature_info = FeatureInfo(info, out_indices=tuple(range(len(info))))
        self.own_hooks = hooks_of(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(N, image_channels, H, W)` to maps `(N, C_i, H_i, W_i)`, finest first."""
        if images.dim() != 4 or images.shape[1] != self.image_channels:
            raise ValueError(f"images are (N, {self.image_channels}, H, W): got the shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"images are floating-point numbers: got {images.dtype}")
        maps = listed(self.body(images))
        if len(maps) != self.num_maps:
            count = "1 map" if len(maps) == 1 else f"{len(maps)} maps"
            raise ValueError(f"{type(self.body).__name__} gives {count}, its feature_info describes {self.num_maps}")
        features = []
        for tap, resample in zip(self.taps, self.resample):
            x = maps[tap.place]
            if x.dim() != 4 or x.shape[-1 if tap.nhwc else 1] != tap.channels:
                raise ValueError(
                    f"{type(self.body).__name__} gives a map of the shape {tuple(x.shape)} at place {tap.place}, its "
                    f"feature_info describes {tap.channels} channels, {'last' if tap.nhwc else 'after the batch'}"
                )
            features.append(resample(x.permute(0, 3, 1, 2) if tap.nhwc else x, images.shape[-2:]))
        return features

    def output_sizes(self, image_size: int | Size) -> list[Size]:
        """Exact sizes `(height, width)` of the maps for images of `image_size`, a side or (height, width).

        Computed once per size, by a forward pass of a copy of the model without values, and cached.

        Raises:
            ValueError: where the body does not take images of this size; says why.
        """
        height, width = checked_size(image_size)
        if (height, width) not in self.known_sizes:
            try:
                _, maps = run_twin(self, self.own_hooks, (height, width), self.image_channels)
            except Exception as error:  # whatever timm's many models raise
                raise ValueError(f"the backbone does not take {height}x{width} images: {reason(error)}") from error
            self.known_sizes[height, width] = [(x.shape[2], x.shape[3]) for x in maps]
        return list(self.known_sizes[height, width])

    def cut_unused(self, image_size: Size) -> None:
        """Remove the stages of the body that no map depends on, in place: their parameters would get no gradient.

        The maps stay as they are, and so do the names in the state dict. A state dict from before the cut still loads.

        Args:
            image_size: a size that the body takes.
        """
        self.cut += tuple(cut_unused(self, self.own_hooks, image_size, self.image_channels))

    def is_cut(self, name: str) -> bool:
        """Whether a name of this module's state dict from before the cut is of a part that was cut."""
        return any(name == cut or name.startswith(f"{cut}.") for cut in self.cut)

    @property
    def unused_parameters(self) -> list[str]:
        """Names of the parameters that no map depends on, which get no gradient. Empty unless they cannot be cut."""
        size = next(filter(self._takes, [*self.known_sizes, *likely_sizes(self.body)]), None)
        if size is None:
            raise ValueError("no image size is known that the backbone takes: call output_sizes once before")
        return unused_parameters(self, self.own_hooks, size, self.image_channels)

    def _takes(self, image_size: Size) -> bool:
        try:
            return bool(self.output_sizes(image_size))
        except ValueError:
            return False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in [n for n in state_dict if n.startswith(prefix) and self.is_cut(n.removeprefix(prefix))]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)


def likely_sizes(body: nn.Module) -> list[Size]:
    """Image sizes that a body probably takes, the one that it was built for first."""
    config: Any = getattr(body, "pretrained_cfg", None) or {}
    declared: Any = config["input_size"][1:] if "input_size" in config else None
    declared = declared or getattr(getattr(body, "config", None), "image_size", None)
    sides = [declared] if declared else []
    return [(side, side) if isinstance(side, int) else (side[0], side[1]) for side in [*sides, 224, 256, 384, 512]]


def reason(error: BaseException) -> str:
    """First line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def choose_taps(reductions: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The map of a model that serves each stride, as places in `reductions`.

    Of maps of equal reduction, the deepest. Where a stride is missing, the nearest on a logarithmic scale, the finer of
    two equally near. Where all maps have one reduction, as in plain transformers, places evenly spread over the depth.

    >>> choose_taps([2, 4, 8, 16, 16], [8, 16, 32])
    [2, 4, 4]
    >>> choose_taps([16] * 12, [8, 16, 32])
    [3, 7, 11]
    """
    if len(set(reductions)) == 1:
        depth, count = len(reductions), len(strides)
        return [-(-(i + 1) * depth // count) - 1 for i in range(count)]
    deepest = {reduction: place for place, reduction in enumerate(reductions)}
    return [deepest[min(deepest, key=lambda r: (abs(math.log2(r / stride)), r))] for stride in strides]


def wrap(
    body: nn.Module, strides: Sequence[int], *, native: bool = False, image_channels: int | None = None
) -> Backbone:
    """A `Backbone` of the given strides from a module that gives the maps which its `feature_info` describes.

    Args:
        body: gives maps.
        strides: strides wanted.
        native: leave the chosen maps at their own strides.
        image_channels: channels of the images; None means what `channels_of_images` finds.
    """
    if image_channels is None:
        image_channels = channels_of_images(body)
    info: Any = getattr(body, "feature_info", None) or described(body, image_channels)
    reductions, channels = info.reduction(), info.channels()
    nhwc = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
    places = choose_taps(reductions, strides)
    if native:
        places = sorted(set(places))
        strides = [reductions[place] for place in places]
    taps = [Tap(place, channels[place], reductions[place], nhwc) for place in places]
    return Backbone(body, taps, strides, len(reductions), image_channels=image_channels)


def described(body: nn.Module, image_channels: int) -> FeatureInfo:
    """`FeatureInfo` of a transformers backbone; its strides are found by a forward pass of a copy.

    Raises:
        ValueError: where the body runs at no likely size.
    """
    for size in likely_sizes(body):
        try:
            _, maps = run_twin(body, hooks_of(body), size, image_channels)
        except Exception as error:  # whatever a body raises at what it does not take
            problem = error
            continue
        info = [
            {"num_chs": x.shape[1], "reduction": round(size[0] / x.shape[2]), "module": name}
            for name, x in zip(body.out_features, maps)  # type: ignore[arg-type]
        ]
        return FeatureInfo(info, tuple(range(len(info))))
    raise ValueError(f"{type(body).__name__} gives no maps of images of a usual size: {problem}") from problem


def channels_of_images(body: nn.Module) -> int:
    """Channels of the images that a body takes.

    Those that the body declares (`in_chans`, or transformers' `config.num_channels`), else 3 unless only the channels
    of its first convolution run.
    """
    for declared in (getattr(body, "in_chans", None), getattr(getattr(body, "config", None), "num_channels", None)):
        if isinstance(declared, int):
            return declared
    first = next((m.in_channels for m in body.modules() if isinstance(m, nn.Conv2d)), 3)
    for channels in (3, first) if first != 3 else ():
        for size in likely_sizes(body):
            try:
                run_twin(body, hooks_of(body), size, channels)
            except Exception:  # whatever a body raises at what it does not take
                continue
            return channels
    return 3


def wrap_module(module: nn.Module, strides: Sequence[int], *, native: bool = False) -> Backbone:
    """A `Backbone` from a module that is built already: one that gives maps, or a timm classifier that can.

    Raises:
        ValueError: for a module that does not say which maps it gives.
    """
    info = getattr(module, "feature_info", None)
    if isinstance(info, FeatureInfo):
        return wrap(module, strides, native=native)
    if info and hasattr(module, "forward_intermediates"):
        chosen = choose_taps([i["reduction"] for i in info], strides)
        return wrap(FeatureGetterNet(module, sorted(set(chosen))), strides, native=native)
    if info is None and isinstance(getattr(module, "out_features", None), list):  # transformers' AutoBackbone
        return wrap(module, strides, native=native)
    raise ValueError(
        f"{type(module).__name__} has no feature_info that says which maps it gives: pass the name of a timm model, "
        "one made with timm.create_model(name, features_only=True), one of transformers' AutoBackbone, or a module "
        "whose feature_info is a FeatureInfo"
    )
