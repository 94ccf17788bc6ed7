"""A backbone of a user's own, with its maps described by hand."""

from timm.models import FeatureInfo
from torch import Tensor, nn


class Maps(nn.Module):
    """A backbone of a user's own: maps of given strides and channels, optionally NHWC."""

    def __init__(self, channels: list[int], strides: list[int], output_fmt: str = "NCHW") -> None:
        super().__init__()
        info = [{"num_chs": c, "reduction": s, "module": f"m{i}"} for i, (c, s) in enumerate(zip(channels, strides))]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))
        self.layers = nn.ModuleList(nn.Conv2d(3, c, 1, s) for c, s in zip(channels, strides))
        self.output_fmt = output_fmt

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [layer(x) for layer in self.layers]
        return [m.permute(0, 2, 3, 1) for m in maps] if self.output_fmt == "NHWC" else maps
