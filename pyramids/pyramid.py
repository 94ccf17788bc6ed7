"""`attach`: any backbone and any neck as one module that gives a list of maps."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import FeatureInfo
from torch import Tensor, nn

from .backbone import Backbone
from .neck import Neck, Size
from .neck_sequence import NeckSequence
from .registry import neck_class
from .source import create_backbone

NeckLike = str | type[Neck] | Neck


class FeaturePyramid(nn.Module):
    """A backbone with a neck: images in, a list of maps out, finest first, described as timm describes a backbone.

    Args:
        backbone: the source of maps.
        neck: takes maps of the backbone's channels and strides. Several become one `NeckSequence`.

    Raises:
        ValueError: for a neck that takes other maps than the backbone, or the neck before it, gives.

    >>> import torch
    >>> from pyramids import attach
    >>> pyramid = attach("resnet18", "mlfpn", num_levels=2, num_scales=4, channels=32)
    >>> pyramid.feature_info.channels(), pyramid.feature_info.reduction()
    ([32, 32, 32, 32], [8, 16, 32, 32])
    >>> [tuple(x.shape) for x in pyramid(torch.rand(1, 3, 160, 160))]
    [(1, 32, 20, 20), (1, 32, 10, 10), (1, 32, 5, 5), (1, 32, 3, 3)]
    >>> pyramid.output_sizes((320, 512))
    [(40, 64), (20, 32), (10, 16), (8, 14)]
    """

    def __init__(self, backbone: Backbone, neck: Neck | Sequence[Neck]) -> None:
        super().__init__()
        if not isinstance(neck, Neck):
            neck = neck[0] if len(neck) == 1 else NeckSequence(neck)
        channels, strides = backbone.feature_info.channels(), backbone.feature_info.reduction()
        if neck.in_channels != channels or neck.in_strides != strides:
            raise ValueError(
                f"{type(neck).__name__} takes maps of {neck.in_channels} channels at strides {neck.in_strides}: "
                f"the backbone gives {channels} at {strides}"
            )
        self.backbone = backbone
        self.neck = neck

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and strides of the maps, as timm's `features_only` models tell them."""
        return self.neck.feature_info

    @property
    def out_channels(self) -> list[int]:
        """Channels of each map, finest first."""
        return self.neck.out_channels

    @property
    def out_strides(self) -> list[int]:
        """Stride of each map, finest first; nominal where a map has no constant ratio to the image."""
        return self.neck.out_strides

    @property
    def image_channels(self) -> int:
        """Channels of the images that the backbone takes, 3 for RGB."""
        return self.backbone.image_channels

    @property
    def unused_parameters(self) -> list[str]:
        """Names of the parameters that no map depends on, so that they get no gradient.

        Empty for backbones given by name, whose unused stages are cut. Where it is not, `DistributedDataParallel` needs
        `find_unused_parameters=True`.
        """
        return [f"backbone.{name}" for name in self.backbone.unused_parameters]

    def is_cut(self, name: str) -> bool:
        """Whether a name in an older state dict of this pyramid belongs to a stage that is cut now.

        `load_state_dict` passes over such names; what counts parameters, as an optimizer's state, has to drop them.
        """
        return name.startswith("backbone.") and self.backbone.is_cut(name.removeprefix("backbone."))

    def output_sizes(self, image_size: int | Size) -> list[Size]:
        """Exact `(height, width)` of the maps for images of `image_size`, a side or (height, width), finest first.

        Raises:
            ValueError: where the backbone or the neck does not take images of this size.
        """
        return self.neck.output_sizes(self.backbone.output_sizes(image_size))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(N, image_channels, H, W)` to maps `(N, out_channels[i], H_i, W_i)`, finest first."""
        return self.neck(self.backbone(images))

    def as_torchvision(self, *, out_channels: int | None = None, per_map: bool = False) -> "TorchvisionBackbone":
        """This pyramid as the backbone of torchvision's detectors; shares its weights.

        Args:
            out_channels: project each map to this width by a 1x1 convolution; None leaves the maps as they are.
            per_map: declare the channels as a list, one per map, as `SSD` wants, and not as the one number that
                `RetinaNet`, `FCOS` and `FasterRCNN` want.

        Raises:
            ValueError: for maps of unequal width without `out_channels` or `per_map`.
        """
        return TorchvisionBackbone(self, out_channels=out_channels, per_map=per_map)


class TorchvisionBackbone(nn.Module):
    """A `FeaturePyramid` as torchvision's detectors take it; made by `FeaturePyramid.as_torchvision`.

    >>> import torch
    >>> from pyramids import attach
    >>> backbone = attach("resnet18", "mlfpn", num_levels=2, num_scales=3, channels=32).as_torchvision(out_channels=64)
    >>> backbone.out_channels
    64
    >>> {name: tuple(x.shape) for name, x in backbone(torch.rand(1, 3, 64, 64)).items()}
    {'0': (1, 64, 8, 8), '1': (1, 64, 4, 4), '2': (1, 64, 2, 2)}
    """

    def __init__(self, pyramid: FeaturePyramid, *, out_channels: int | None = None, per_map: bool = False) -> None:
        super().__init__()
        widths = pyramid.out_channels
        if out_channels is not None and out_channels < 1:
            raise ValueError(f"out_channels is a positive number of channels: got {out_channels}")
        if out_channels is None and not per_map and len(set(widths)) > 1:
            raise ValueError(
                f"the maps have unequal channels {widths}, and torchvision's detectors but SSD want one number: pass "
                "out_channels=256 to project each map, or per_map=True for SSD"
            )
        self.pyramid = pyramid
        self.project = nn.ModuleList(
            nn.Identity() if out_channels is None else nn.Conv2d(width, out_channels, 1) for width in widths
        )
        widths = widths if out_channels is None else [out_channels] * len(widths)
        self.out_channels: int | list[int] = widths if per_map else widths[0]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images `(N, image_channels, H, W)` to maps named "0", "1", ..., finest first."""
        maps = self.pyramid(images)
        return OrderedDict((str(i), project(x)) for i, (project, x) in enumerate(zip(self.project, maps)))


def attach(
    backbone: str | nn.Module,
    neck: NeckLike | Sequence[NeckLike],
    *,
    pretrained: bool = False,
    strides: Sequence[int] | None = None,
    image_size: int | Size | None = None,
    output_stride: int | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
    neck_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> FeaturePyramid:
    """Feature pyramid of a backbone and a neck, or of several necks in sequence.

    Maps are picked by the backbone's `feature_info.reduction()`, the deepest of equal reduction. A stride that the
    backbone lacks is made from the nearest map by transposed convolutions or pooling (see `pyramids.resample`).
    Transformers of a single stride are tapped at even distances over their depth; a neck that takes one map gets the
    last block's.

    Args:
        backbone: name of a timm model, whose stages that no map needs are cut; a timm model, one of transformers'
            `AutoBackbone`, or any module with a timm `FeatureInfo` as `feature_info` whose forward gives the maps that
            it describes, as a list, a tuple, a generator or the values of a dict.
        neck: a registered name, a class or an instance, or a list of them, each on the maps of the one before.
        pretrained: load timm's pretrained weights into a backbone given by name.
        strides: strides that the first neck is to get, ascending; None means its `default_strides`, for a neck with
            `native_strides` the backbone's own that are nearest.
        image_size: (height, width) of the images, or the side of a square. Backbones that are built for one size need
            it; for the others it is checked early.
        output_stride: dilate the backbone so that no map is coarser, where timm has it.
        backbone_kwargs: further arguments of `timm.create_model`, such as `drop_path_rate`, or `in_chans` for images
            that are not RGB.
        neck_kwargs: arguments of the neck's class, or with a list of necks those of each, in their order.
        **arguments: arguments of a single neck, in place of `neck_kwargs`, unless named like one of the above.

    Raises:
        TypeError: for a backbone or a neck of another kind; arguments for a neck that is built already, or in the form
            for another number of necks.
        ValueError: for an unknown name, with the nearest ones; a backbone without spatial maps; a size that the
            backbone or the neck does not take; a neck that does not fit what is below it.

    >>> import torch
    >>> from pyramids import attach
    >>> pyramid = attach("vit_tiny_patch16_224", "mlfpn", num_levels=1, num_scales=3, channels=32)
    >>> [tuple(x.shape) for x in pyramid(torch.rand(1, 3, 96, 160))]
    [(1, 16, 12, 20), (1, 16, 6, 10), (1, 16, 4, 8)]
    >>> necks = attach("resnet10t", ["fpn", "pafpn"], neck_kwargs=[{"out_channels": 32}, {"out_channels": 16}])
    >>> necks.out_channels
    [16, 16, 16]
    """
    if isinstance(neck, Sequence) and not isinstance(neck, str):
        if arguments:
            raise TypeError(
                f"several necks take their arguments as neck_kwargs, one mapping each: got {sorted(arguments)}"
            )
        if isinstance(neck_kwargs, Mapping):
            if neck_kwargs:
                raise TypeError(f"neck_kwargs of several necks is a list, one mapping each: got {neck_kwargs!r}")
            neck_kwargs = None
        kinds = [_kind_of(one) for one in neck]
        each = [{} for _ in kinds] if neck_kwargs is None else [dict(kwargs) for kwargs in neck_kwargs]
        if not kinds or len(each) != len(kinds):
            raise ValueError(
                f"neck_kwargs has one mapping per neck, and there is a neck: got {len(each)} for {len(kinds)}"
            )
    elif neck_kwargs is not None and not isinstance(neck_kwargs, Mapping):
        raise TypeError(f"neck_kwargs of one neck is one mapping: got {neck_kwargs!r}")
    elif repeated := sorted(arguments.keys() & (neck_kwargs or {}).keys()):
        raise TypeError(f"arguments of the neck are given once, in neck_kwargs or as keywords: got {repeated} in both")
    else:
        kinds, each = [_kind_of(neck)], [{**(neck_kwargs or {}), **arguments}]
    for kind, kwargs in zip(kinds, each):
        if isinstance(kind, Neck) and kwargs:
            raise TypeError(f"the neck is built already and takes no arguments: got {sorted(kwargs)}")
    first = kinds[0]
    defaults = first.in_strides if isinstance(first, Neck) else first.default_strides
    source = create_backbone(
        backbone,
        list(strides if strides is not None else defaults),
        native=strides is None and isinstance(first, type) and first.native_strides,
        pretrained=pretrained,
        image_size=image_size,
        output_stride=output_stride,
        backbone_kwargs=backbone_kwargs,
    )
    necks: list[Neck] = []
    below: Backbone | Neck = source
    for kind, kwargs in zip(kinds, each):
        info = below.feature_info
        below = kind if isinstance(kind, Neck) else kind(info.channels(), info.reduction(), **kwargs)
        necks.append(below)
    pyramid = FeaturePyramid(source, necks)
    if image_size is not None:
        pyramid.output_sizes(image_size)  # refuses what is too small for the neck
    return pyramid


def _kind_of(neck: Any) -> type[Neck] | Neck:
    kind = neck_class(neck) if isinstance(neck, str) else neck
    if isinstance(kind, Neck) or (isinstance(kind, type) and issubclass(kind, Neck)):
        return kind
    raise TypeError(f"a neck is a registered name, a subclass of Neck or an instance of one: got {neck!r}")
