"""Necks for the test kit: sound ones of every making, and necks that are wrong in one way each."""

import torch
import torch.nn.functional as F
from timm.models import FeatureInfo
from torch import nn

from pyramids import Neck

seen_sizes = []  # the module-level cache of a wrong neck below


class Sound(Neck):
    """A 1x1 convolution a map; the wrong necks below differ from it in one thing each."""

    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.convs = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in in_channels)
        self.declare_outputs([8] * len(in_channels), in_strides)

    def output_sizes(self, input_sizes):
        return list(input_sizes)

    def forward(self, features):
        self.check(features)
        return [conv(x) for conv, x in zip(self.convs, features)]


class DuckTyped(nn.Module):
    """Keeps the contract without subclassing `Neck`."""

    def __init__(self, in_channels, in_strides):
        super().__init__()
        self.in_channels, self.in_strides = in_channels, in_strides
        self.out_channels, self.out_strides = in_channels, in_strides
        info = [{"num_chs": c, "reduction": s, "module": "m"} for c, s in zip(in_channels, in_strides)]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 1) for c in in_channels)

    def output_sizes(self, input_sizes):
        return [tuple(size) for size in input_sizes]

    def forward(self, features):
        if [x.shape[1] for x in features] != self.in_channels:
            raise ValueError(f"expected maps of {self.in_channels} channels")
        if [x.shape[2] for x in features] != sorted((x.shape[2] for x in features), reverse=True):
            raise ValueError("expected maps finest first")
        if any(x.dtype != torch.float32 for x in features) and not torch.is_autocast_enabled("cpu"):
            raise TypeError("expected float32")
        return [conv(x) for conv, x in zip(self.convs, features)]


class Undeclared(Sound):
    def declare_outputs(self, channels, strides):
        pass


class MisdeclaredStrides(Sound):
    @property
    def out_strides(self):
        return [4, 8, 16]


class MisdeclaredChannels(Sound):
    def declare_outputs(self, channels, strides):
        super().declare_outputs([16] * len(channels), strides)


class MisdeclaredSizes(Sound):
    def output_sizes(self, input_sizes):
        return [(h, w + 1) for h, w in input_sizes]


class EvenSizesOnly(Sound):
    def forward(self, features):
        maps = super().forward(features)
        return [maps[0] + F.interpolate(maps[1], scale_factor=2), *maps[1:]]


class ReturnsTuple(Sound):
    def forward(self, features):
        return tuple(super().forward(features))


class Unchecked(Sound):
    def check(self, features):
        pass


class WrongError(Sound):
    def forward(self, features):
        if len(features) != len(self.convs):
            raise RuntimeError("map count")
        return super().forward(features)


class TooSmallAccepted(Sound):
    def output_sizes(self, input_sizes):
        if min(input_sizes[0]) < 4:
            raise ValueError("too small")
        return list(input_sizes)

    def check(self, features):
        try:
            super().check(features)
        except ValueError as error:
            if str(error) != "too small":
                raise


class NoSingleValue(Sound):
    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, features):
        maps = super().forward(features)
        return [x * self.bn(x.mean((2, 3), keepdim=True)).sigmoid() for x in maps]


class InfiniteGradient(Sound):
    def forward(self, features):
        return [x + x.sub(x).abs().sqrt() for x in super().forward(features)]


class SteepGradient(Sound):
    """Sound: a trainer clips what is steep and finite."""

    def forward(self, features):
        maps = super().forward(features)
        if self.training:
            for x in maps:
                x.register_hook(lambda gradient: gradient * 1e30)
        return [x.square() for x in maps]


class Unused(Sound):
    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.spare = nn.Conv2d(8, 8, 1)


class Detached(Sound):
    def forward(self, features):
        self.check(features)
        return super().forward([features[0].detach(), *features[1:]])


class AlwaysDropout(Sound):
    def forward(self, features):
        return [F.dropout(x, 0.5, training=True) for x in super().forward(features)]


class RemembersSize(Sound):
    def forward(self, features):
        maps = super().forward(features)
        self.__dict__.setdefault("shift", features[0].shape[3])
        return [x + (features[0].shape[3] - self.shift) for x in maps]


class MixesBatch(Sound):
    def forward(self, features):
        return [x - x.mean((0, 2, 3), keepdim=True) for x in super().forward(features)]


class ContiguousOnly(Sound):
    def forward(self, features):
        n, c, h, w = features[0].shape
        first = features[0].as_strided((n, c, h, w), (c * h * w, h * w, w, 1))
        return super().forward([first, *features[1:]])


class LosesPrecision(Sound):
    def forward(self, features):
        return [(x + 1000) - 1000 for x in super().forward(features)]


class HidesNan(Sound):
    def forward(self, features):
        return [x.nan_to_num() for x in super().forward(features)]


class Counts(Sound):
    calls = 0

    def forward(self, features):
        self.calls += 1
        return super().forward(features)


class WritesGlobal(Sound):
    def forward(self, features):
        seen_sizes.append(features[0].shape)
        return super().forward(features)


class WritesInput(Sound):
    def forward(self, features):
        self.check(features)
        if not self.training:
            features[0].mul_(1.0).relu_()
        return super().forward(features)


class WritesBuffer(Sound):
    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, features):
        self.seen += 1
        return super().forward(features)


class Repeats(Sound):
    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.smooth = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1)] * len(in_channels))

    def forward(self, features):
        return [smooth(x) for smooth, x in zip(self.smooth, super().forward(features))]


class SharesWithCopies(Sound):
    def __deepcopy__(self, memo):
        copied = Sound(self.in_channels, self.in_strides)
        for mine, its in zip(self.convs, copied.convs):
            its.weight, its.bias = mine.weight, mine.bias
        copied.__class__ = type(self)
        return copied


class Unregistered(Sound):
    def __init__(self, in_channels, in_strides):
        super().__init__(in_channels, in_strides)
        self.smooth = [nn.Conv2d(8, 8, 1) for _ in in_channels]

    def forward(self, features):
        return [smooth(x) for smooth, x in zip(self.smooth, super().forward(features))]


class Branches(Sound):
    def forward(self, features):
        maps = super().forward(features)
        return maps if bool(maps[0].mean() > 0) else [x.clone() for x in maps]


class BakesSize(Sound):
    def forward(self, features):
        shift = {1: 2.0}.get(features[0].shape[2], 1.0)  # a size as a key is taken for a constant
        return [x * shift for x in super().forward(features)]


class NotInOnnx(Sound):
    def forward(self, features):
        return [torch.special.i1(x.float()).to(x.dtype) for x in super().forward(features)]
