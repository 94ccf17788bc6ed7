"""Any timm model as a source of NCHW maps with known channels and strides.

timm's models differ in what they return (NCHW or NHWC), in their strides (a pyramid, or one stride throughout) and in
the image sizes that they take. Everything is read off `feature_info`, `output_fmt` and the constructor's signature,
nothing off names.
"""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.models import FeatureInfo
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from .neck import Size
from .resample import Resample

# What timm's classes call the freedom to take images of other sizes than the one they were built for.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False, "always_partition": True}


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
    >>> from pyramids.backbone import create_backbone
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
        self.resample = nn.ModuleList(Resample(tap.channels, tap.stride, s) for tap, s in zip(taps, strides))
        info = [
            {"num_chs": resample.out_channels, "reduction": stride, "module": f"resample.{i}"}
            for i, (resample, stride) in enumerate(zip(self.resample, strides))
        ]
        self.feature_info = FeatureInfo(info, out_indices=tuple(range(len(info))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(N, 3, H, W)` to maps `(N, C_i, H_i, W_i)`, finest first."""
        maps = self.body(images)
        features = []
        for tap, resample in zip(self.taps, self.resample):
            x = maps[tap.place].permute(0, 3, 1, 2) if tap.nhwc else maps[tap.place]
            features.append(resample(x, images.shape[-2:]))
        return features

    def output_sizes(self, image_size: Size) -> list[Size]:
        """Exact sizes `(height, width)` of the maps for images of `image_size`, found without computing them.

        Raises:
            ValueError: where the body does not take images of this size; says why.
        """
        try:
            return run_without_data(self, image_size)
        except Exception as error:  # whatever timm's many models raise
            raise ValueError(
                f"the backbone does not take {image_size[0]}x{image_size[1]} images: {reason(error)}"
            ) from error


def run_without_data(model: nn.Module, image_size: Size) -> list[Size]:
    """Spatial sizes of a model's maps, by a run on the meta device in evaluation mode: no weight is read or changed."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with torch.no_grad(), torch.device("meta"):
            maps = torch.func.functional_call(model, stand_ins, (torch.empty(1, 3, *image_size, dtype=dtype),))
    finally:
        for m in training:
            m.training = True
    return [(x.shape[2], x.shape[3]) for x in maps]


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


def create_backbone(
    source: str | nn.Module,
    strides: Sequence[int],
    *,
    pretrained: bool = False,
    image_size: Size | None = None,
    output_stride: int | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
) -> Backbone:
    """A `Backbone` with maps of the given strides, from the name of a timm model or a module.

    Raises:
        TypeError: for a source that is neither a name nor a module.
        ValueError: for an unknown name, a model without maps, or an image size that the model does not take.
    """
    if isinstance(source, str):
        options = dict(backbone_kwargs or {})
        if output_stride is not None:
            options["output_stride"] = output_stride
        return _from_name(source, strides, pretrained, image_size, options)
    if not isinstance(source, nn.Module):
        raise TypeError(f"a backbone is the name of a timm model or a module: got {source!r}")
    if pretrained or output_stride is not None or backbone_kwargs:
        raise ValueError(
            "pretrained, output_stride and backbone_kwargs are for backbones by name: this is a module, built already"
        )
    backbone = _from_module(source, strides)
    if image_size is not None:
        backbone.output_sizes(image_size)
    return backbone


def _from_name(
    name: str, strides: Sequence[int], pretrained: bool, image_size: Size | None, options: dict[str, Any]
) -> Backbone:
    check_name(name)
    with torch.device("meta"):
        plain = timm.create_model(name, **options)
    accepted = inspect.signature(type(plain).__init__).parameters
    options = {**{key: value for key, value in ANY_SIZE.items() if key in accepted}, **options}
    if image_size is not None and "img_size" in accepted:
        options["img_size"] = tuple(image_size)
    options["features_only"] = True
    with torch.device("meta"):
        info = timm.create_model(name, **options).feature_info.info
        chosen = choose_taps([i["reduction"] for i in info], strides)
        options["out_indices"] = tuple(sorted(set(chosen)))
        trial = timm.create_model(name, **options)
    _wrap(trial, strides).output_sizes(image_size or plain.pretrained_cfg["input_size"][1:])
    return _wrap(timm.create_model(name, pretrained=pretrained, **options), strides)


def _wrap(body: nn.Module, strides: Sequence[int]) -> Backbone:
    info: Any = body.feature_info
    reductions, channels = info.reduction(), info.channels()
    nhwc = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
    # A single stride at every place: the places were spread over the depth when they were chosen.
    taps = [Tap(place, channels[place], reductions[place], nhwc) for place in choose_taps(reductions, strides)]
    return Backbone(body, taps, strides)


def _from_module(module: nn.Module, strides: Sequence[int]) -> Backbone:
    info = getattr(module, "feature_info", None)
    if isinstance(info, FeatureInfo):
        return _wrap(module, strides)
    if info and hasattr(module, "forward_intermediates"):
        chosen = choose_taps([i["reduction"] for i in info], strides)
        return _wrap(FeatureGetterNet(module, sorted(set(chosen))), strides)
    raise ValueError(
        f"{type(module).__name__} has no feature_info that says which maps it gives: pass the name of a timm model, "
        "one made with timm.create_model(name, features_only=True), or a module whose feature_info is a FeatureInfo"
    )


def check_name(name: str) -> None:
    """Refuse names that timm does not know, and suggest the nearest; names with a source (`hf-hub:`) pass."""
    if ":" in name or timm.is_model(name):
        return
    near = difflib.get_close_matches(name.lower(), timm.list_models(), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"timm {timm.__version__} knows no model named {name!r}{hint}")


def reason(error: Exception) -> str:
    """The first line of an error, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
