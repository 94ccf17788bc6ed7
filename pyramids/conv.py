"""Convolution, batch norm and activation: timm's block, which here also trains on a 1x1 map at batch size 1.

The smallest map of a pyramid can be 1x1, where a batch of one gives batch norm a single value per channel and no
variance. There the running statistics are used in place of the batch's.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import BatchNormAct2d as TimmBatchNormAct2d
from timm.layers import ConvNormAct, LayerNorm2d, get_norm_act_layer, get_norm_layer
from torch import Tensor, nn

LayerType = Callable[..., nn.Module]


class BatchNormAct2d(TimmBatchNormAct2d):
    """timm's batch norm with activation, which normalizes a single value per channel by its running statistics.

    `(N, C, H, W)` to `(N, C, H, W)`. Without it, training at batch 1 with a 1x1 map raises in torch.

    >>> import torch
    >>> norm = BatchNormAct2d(4).train()
    >>> norm(torch.rand(1, 4, 1, 1)).shape
    torch.Size([1, 4, 1, 1])
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.track_running_stats and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return self.act(self.drop(x))
        return super().forward(x)


def _batch_norm_act(num_features: int, **kwargs: object) -> BatchNormAct2d:
    return BatchNormAct2d(num_features, **kwargs)  # a function, since timm maps classes by name


def norm_act(norm_layer: LayerType | str, act_layer: LayerType | None) -> LayerType:
    """`norm_layer`, a partial of it or timm's name for it, as `ConvNormAct` takes it; `nn.BatchNorm2d` becomes ours.

    Names, such as "batchnorm2d", are what a detector's JSON config can hold.
    """
    if isinstance(norm_layer, str):
        return norm_act(_named(norm_layer), act_layer)
    if isinstance(norm_layer, functools.partial) and norm_layer.args:
        raise ValueError(f"a partial of a norm_layer has its arguments by keyword: got {norm_layer.args} by position")
    func = norm_layer.func if isinstance(norm_layer, functools.partial) else norm_layer
    keywords = norm_layer.keywords if isinstance(norm_layer, functools.partial) else {}
    if func in (nn.BatchNorm2d, TimmBatchNormAct2d, BatchNormAct2d):
        return functools.partial(_batch_norm_act, **{"act_layer": act_layer, **keywords})
    if func is LayerNorm2d:  # timm's twin of it with an activation would divide by another eps
        return functools.partial(LayerNorm2d, **{"eps": 1e-6, **keywords})
    try:
        get_norm_act_layer(norm_layer)
    except AssertionError:  # timm's only word on a layer that it has no form of with an activation
        raise ValueError(
            f"norm_layer is one that timm can join with an activation, such as nn.BatchNorm2d, nn.GroupNorm or timm's "
            f"GroupNorm1 and LayerNorm2d: got {func}"
        ) from None
    return norm_layer


def _named(norm_layer: str) -> LayerType:
    try:
        found: LayerType = get_norm_layer(norm_layer)
    except KeyError:
        raise ValueError(f"timm has no norm_layer named {norm_layer!r}: batchnorm2d and groupnorm are two") from None
    return found


def _act_only(num_features: int, *, act_layer: LayerType | None, **kwargs: object) -> nn.Module:
    """Stand-in for the norm where there is none; timm's other arguments play no part."""
    return nn.Identity() if act_layer is None else act_layer()


def norm_alone(channels: int, norm_layer: LayerType | str) -> nn.Module:
    """The norm that `conv_norm_act` would put behind a convolution, without an activation: `(N, channels, H, W)`."""
    layer: LayerType = get_norm_act_layer(norm_act(norm_layer, None))
    return layer(channels, apply_act=False)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    padding: int | str = "",
    groups: int = 1,
    bias: bool | None = None,
    norm_layer: LayerType | str | None = nn.BatchNorm2d,
    act_layer: LayerType | None = nn.ReLU,
) -> nn.Module:
    """timm's `ConvNormAct`: a convolution without bias, a norm, an activation; without a norm, a biased convolution.

    `(N, in_channels, H, W)` to `(N, out_channels, H', W')`; the padding is symmetric "same" unless given.
    `norm_layer=None` leaves the norm out, `act_layer=None` the activation; `bias=None` means a bias where no norm is.
    """
    return ConvNormAct(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=norm_layer is None if bias is None else bias,
        norm_layer=(
            functools.partial(_act_only, act_layer=act_layer) if norm_layer is None else norm_act(norm_layer, act_layer)
        ),
        act_layer=act_layer,
    )


def separable_conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    norm_layer: LayerType | str | None = nn.BatchNorm2d,
    act_layer: LayerType | None = nn.ReLU,
) -> nn.Sequential:
    """A depthwise convolution and a pointwise one, each with its norm and activation.

    `(N, in_channels, H, W)` to `(N, out_channels, H', W')`; the padding is symmetric "same".
    """
    layers = functools.partial(conv_norm_act, in_channels, norm_layer=norm_layer, act_layer=act_layer)
    depthwise = layers(in_channels, kernel_size, stride=stride, groups=in_channels)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=layers(out_channels, 1)))


def init_weights(module: nn.Module, *, deviation: float | None = None) -> None:
    """He initialization of every convolution below `module` (He et al. 2015, fan-out), biases at zero.

    Args:
        module: any module.
        deviation: standard deviation of the weights of convolutions that a norm follows; None for He's there too. The
            norm takes the size of these weights out of the output, so it decides only their relative update per step:
            with Adam about the learning rate over it (van Laarhoven 2017, arXiv 1706.05350, section 3).
    """
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.groups > 1:  # torch counts the fan-out over all groups
                m.weight.data.mul_(m.groups**0.5)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    if deviation is not None:
        for conv in normalized_convs(module):
            nn.init.normal_(conv.weight, std=deviation)


def normalized_convs(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions below `module` that a norm follows, whose outputs do not depend on the size of their weights."""
    blocks = [m for m in module.modules() if isinstance(m, ConvNormAct)]
    return [block.conv for block in blocks if hasattr(block.bn, "eps")]  # in place of a norm stands an activation
