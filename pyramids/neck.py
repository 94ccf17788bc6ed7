"""Base class of all necks: feature maps in, feature maps out, finest first, for any image size.

`feature_info` is timm's own `FeatureInfo`, so a backbone with a neck reads like a timm `features_only` model
(timm, `timm/models/_features.py`).
"""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar, TypeGuard

import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

Size = tuple[int, int]


class Neck(nn.Module):
    """Base of all necks: a list of maps `(N, C_i, H_i, W_i)`, finest first, becomes another such list.

    A subclass calls `super().__init__(in_channels, in_strides)`, then `declare_outputs(channels, strides)`, gives
    `output_sizes`, and starts its `forward` with `self.check(features)`. Everything else follows: `feature_info`,
    `out_channels`, `out_strides`, and clear errors for maps that do not fit.

    Args:
        in_channels: channels of each input map, finest first.
        in_strides: stride, in pixels of the image, of each input map, ascending, one for each of `in_channels`;
            equal ones may follow each other where the class says so by `repeated_strides`.

    Raises:
        ValueError: for channels or strides that are empty, not positive, of differing counts or not ascending.

    >>> import torch
    >>> from pyramids import Neck
    >>> class Nothing(Neck):
    ...     def __init__(self, in_channels, in_strides):
    ...         super().__init__(in_channels, in_strides)
    ...         self.declare_outputs(in_channels, in_strides)
    ...     def output_sizes(self, input_sizes):
    ...         return list(input_sizes)
    ...     def forward(self, features):
    ...         self.check(features)
    ...         return list(features)
    >>> neck = Nothing([16, 32], [8, 16])
    >>> [tuple(x.shape) for x in neck([torch.rand(1, 16, 9, 7), torch.rand(1, 32, 5, 4)])]
    [(1, 16, 9, 7), (1, 32, 5, 4)]
    >>> neck.feature_info.reduction()
    [8, 16]
    """

    default_strides: ClassVar[tuple[int, ...]] = (8, 16, 32)
    """The strides that the neck asks of a backbone when its user names none."""

    native_strides: ClassVar[bool] = False
    """Whether it then takes the backbone's own strides nearest to these, not maps resampled to them."""

    repeated_strides: ClassVar[bool] = False
    """Whether it takes maps of equal nominal strides too, as MLFPN's coarsest two have."""

    in_channels: list[int]
    in_strides: list[int]
    feature_info: FeatureInfo

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = _positive_ints("in_channels", in_channels)
        self.in_strides = _positive_ints("in_strides", in_strides)
        if len(self.in_channels) != len(self.in_strides):
            raise ValueError(
                f"{type(self).__name__} needs one stride for each map: got in_channels {self.in_channels} "
                f"and in_strides {self.in_strides}"
            )
        distinct = self.in_strides if self.repeated_strides else set(self.in_strides)
        if sorted(distinct) != self.in_strides:
            order = "none smaller" if self.repeated_strides else "each larger"
            raise ValueError(
                f"in_strides of {type(self).__name__} go from fine to coarse, {order} than the last: "
                f"got {self.in_strides}"
            )

    def declare_outputs(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        """Declare the channels and (nominal) strides of the outputs, finest first. Called once, by the constructor."""
        maps = zip(_positive_ints("out_channels", channels), _positive_ints("out_strides", strides), strict=True)
        info = [{"num_chs": c, "reduction": s, "module": f"map{i}"} for i, (c, s) in enumerate(maps)]
        self.feature_info = FeatureInfo(info, out_indices=tuple(range(len(info))))

    @property
    def out_channels(self) -> list[int]:
        """Channels of each output map, finest first."""
        return list(self.feature_info.channels())

    @property
    def out_strides(self) -> list[int]:
        """Stride of each output map, finest first; nominal where a map has no constant ratio to the image."""
        return list(self.feature_info.reduction())

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        """Exact sizes `(height, width)` of the output maps for these sizes of the input maps, finest first.

        Raises:
            ValueError: where the neck cannot take maps of these sizes.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define output_sizes")

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)`, finest first, to maps `(N, out_channels[j], H_j, W_j)`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def check(self, features: Sequence[Tensor]) -> None:
        """Raise an error for maps that do not match the declared inputs.

        Raises:
            TypeError: for something else than a sequence of floating-point tensors, or for a wrong dtype.
            ValueError: for a wrong number of maps, wrong channels, batch sizes or devices that differ, maps that are
                not finest first, or maps too small for the neck.
        """
        name = type(self).__name__
        if isinstance(features, Tensor) or not isinstance(features, Sequence):
            raise TypeError(f"{name} takes a list of feature maps, finest first: got a {type(features).__name__}")
        if len(features) != len(self.in_channels):
            raise ValueError(
                f"{name} takes {len(self.in_channels)} maps of {self.in_channels} channels, finest first: "
                f"got {len(features)} maps"
            )
        for i, (x, channels) in enumerate(zip(features, self.in_channels)):
            if not isinstance(x, Tensor) or not x.is_floating_point():
                what = f"{x.dtype}" if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"{name} takes floating-point tensors: map {i} is {what}")
            if x.dim() != 4 or x.shape[1] != channels:
                raise ValueError(
                    f"{name} takes maps (N, C, H, W) with {self.in_channels} channels, finest first: "
                    f"map {i} has shape {tuple(x.shape)} where {channels} channels were expected"
                    f"{self._order_hint(features)}"
                )
        if torch.compiler.is_compiling():  # sizes may be symbols there, and each check on them would narrow the graph
            return
        self._check_alike(features)
        sizes = [(x.shape[2], x.shape[3]) for x in features]
        if any(fine[i] < coarse[i] for fine, coarse in pairwise(sizes) for i in (0, 1)):
            raise ValueError(f"{name} takes maps from fine to coarse: got sizes {sizes}")
        self.output_sizes(sizes)

    def _order_hint(self, features: Sequence[Tensor]) -> str:
        channels = [x.shape[1] for x in features if isinstance(x, Tensor) and x.dim() == 4]
        reverse = channels == self.in_channels[::-1] and len(channels) > 1
        return "; the maps seem to come in reverse order" if reverse else ""

    def _check_alike(self, features: Sequence[Tensor]) -> None:
        name, first = type(self).__name__, features[0]
        weight = next((p for p in self.parameters() if p.is_floating_point()), first)
        for i, x in enumerate(features):
            if x.shape[0] != first.shape[0]:
                raise ValueError(
                    f"{name} takes maps of one batch: {first.shape[0]} images in map 0, {x.shape[0]} in map {i}"
                )
            if x.device != weight.device:
                raise ValueError(f"{name} is on {weight.device}, but map {i} is on {x.device}")
            kind = x.device.type  # some, as "meta", know no autocast
            cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
            if x.dtype != weight.dtype and not cast:
                raise TypeError(f"{name} computes in {weight.dtype}, but map {i} is {x.dtype}; convert or use autocast")

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, in_strides={self.in_strides}"


def _positive_ints(name: str, values: Sequence[int]) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} is a sequence of positive integers, finest map first: got {values!r}")
    if not values or not all(is_integer(v) and v > 0 for v in values):
        raise ValueError(f"{name} is a sequence of positive integers, finest map first: got {list(values)}")
    return [int(v) for v in values]


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, one of NumPy's too, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def checked_size(image_size: Any) -> Size:
    """(height, width) from itself or from the side of a square.

    Raises:
        TypeError: for neither a whole number nor a pair.
        ValueError: for sides that are not positive integers.
    """
    sides = (image_size, image_size) if isinstance(image_size, Integral) else image_size
    if not isinstance(sides, Sequence) or len(sides) != 2:
        raise TypeError(f"image_size is (height, width) in pixels, or the side of a square: got {image_size!r}")
    if not all(is_integer(side) and side > 0 for side in sides):
        raise ValueError(f"image_size is (height, width) in pixels, positive integers: got {image_size!r}")
    return int(sides[0]), int(sides[1])
