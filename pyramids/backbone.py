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

from .neck import Size
from .resample import Resample
from .weightless import needs_data, run_on_zeros, run_without_data


class Tap(NamedTuple):
    """One map of the backbone's body: its place in the list, channels, stride, and whether it comes as NHWC."""

    place: int
    channels: int
    stride: int
    nhwc: bool


class Backbone(nn.Module):
    """Maps of a body, converted to NCHW and brought to the strides that were asked for, finest first.

    Args:
        body: a module that turns images into a list of maps, as timm's `features_only` models do.
        taps: the map of the body that each output comes from.
        strides: the stride of each output.

    >>> import torch
    >>> from pyramids.source import create_backbone
    >>> backbone = create_backbone("resnet18", (8, 16))
    >>> backbone.feature_info.channels(), backbone.feature_info.reduction()
    ([128, 256], [8, 16])
    >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 96))]
    [(1, 128, 8, 12), (1, 256, 4, 6)]
    """

    feature_info: FeatureInfo

    def __init__(self, body: nn.Module, taps: Sequence[Tap], strides: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.taps = tuple(taps)
        self.known_sizes: dict[Size, list[Size]] = {}
        self.resample = nn.ModuleList(Resample(tap.channels, tap.stride, s) for tap, s in zip(taps, strides))
        info = [
            {"num_chs": resample.out_channels, "reduction": stride, "module": f"resample.{i}"}
            for i, (resample, stride) in enumerate(zip(self.resample, strides))
        ]
        self.feature_info = FeatureInfo(info, out_indices=tuple(range(len(info))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(N, 3, H, W)` to maps `(N, C_i, H_i, W_i)`, finest first."""
        if images.dim() != 4:
            raise ValueError(f"images are (N, 3, H, W): got the shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"images are floating-point numbers: got {images.dtype}")
        maps = self.body(images)
        features = []
        for tap, resample in zip(self.taps, self.resample):
            x = maps[tap.place].permute(0, 3, 1, 2) if tap.nhwc else maps[tap.place]
            features.append(resample(x, images.shape[-2:]))
        return features

    def output_sizes(self, image_size: Size) -> list[Size]:
        """Exact sizes `(height, width)` of the maps for images of `image_size`, found without computing them.

        Found once a size, and remembered.

        Raises:
            ValueError: where the body does not take images of this size; says why.
        """
        height, width = image_size
        if (height, width) not in self.known_sizes:
            try:
                self.known_sizes[height, width] = self._find_sizes(image_size)
            except Exception as error:  # whatever timm's many models raise
                raise ValueError(f"the backbone does not take {height}x{width} images: {reason(error)}") from error
        return list(self.known_sizes[height, width])

    def _find_sizes(self, image_size: Size) -> list[Size]:
        try:
            return run_without_data(self, image_size)
        except Exception as error:
            if needs_data(error) and not any(p.is_meta for p in self.parameters()):
                return run_on_zeros(self, image_size)
            raise


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def choose_taps(reductions: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Which of a model's maps serves each stride, as places in `reductions`.

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


def wrap(body: nn.Module, strides: Sequence[int]) -> Backbone:
    """A `Backbone` of the given strides from a module that gives the maps which its `feature_info` describes."""
    info: Any = body.feature_info
    reductions, channels = info.reduction(), info.channels()
    nhwc = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
    taps = [Tap(place, channels[place], reductions[place], nhwc) for place in choose_taps(reductions, strides)]
    return Backbone(body, taps, strides)


def wrap_module(module: nn.Module, strides: Sequence[int]) -> Backbone:
    """A `Backbone` from a module that is built already: one that gives maps, or a timm classifier that can.

    Raises:
        ValueError: for a module that does not say which maps it gives.
    """
    info = getattr(module, "feature_info", None)
    if isinstance(info, FeatureInfo):
        return wrap(module, strides)
    if info and hasattr(module, "forward_intermediates"):
        chosen = choose_taps([i["reduction"] for i in info], strides)
        return wrap(FeatureGetterNet(module, sorted(set(chosen))), strides)
    raise ValueError(
        f"{type(module).__name__} has no feature_info that says which maps it gives: pass the name of a timm model, "
        "one made with timm.create_model(name, features_only=True), or a module whose feature_info is a FeatureInfo"
    )
