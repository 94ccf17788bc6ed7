"""Re-parameterizable convolutions: parallel branches in training, one convolution in deployment.

Paper: `RepVGG: Making VGG-style ConvNets Great Again`, sections 3.2 and 3.3, https://arxiv.org/abs/2101.03697
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .conv import LayerType, conv_norm_act

Module = TypeVar("Module", bound=nn.Module)


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution in parallel, each with its norm; an activation of their sum (RepVGG, section 3.2).

    There is no identity branch, as in RT-DETR and DAMO-YOLO. `fuse` gives the same function as one 3x3 convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm_layer: timm-style normalization layer of each branch; None means none.
        act_layer: timm-style activation layer of the sum; None means none.

    >>> import torch
    >>> from pyramids.repconv import RepConv
    >>> block, x = RepConv(8, 16).eval(), torch.rand(1, 8, 5, 7)
    >>> fused = block.fuse()
    >>> torch.allclose(fused(x), block(x), atol=1e-6)
    True
    >>> [type(layer).__name__ for layer in fused]
    ['Conv2d', 'SiLU']
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        self.dense = conv_norm_act(in_channels, out_channels, 3, norm_layer=norm_layer, act_layer=None)
        self.pointwise = conv_norm_act(in_channels, out_channels, 1, norm_layer=norm_layer, act_layer=None)
        self.act = nn.Identity() if act_layer is None else act_layer()

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return self.act(self.dense(x) + self.pointwise(x))

    @torch.no_grad()
    def fuse(self) -> nn.Sequential:
        """The deployed form: one biased 3x3 convolution and the activation, with the norms' running statistics in it.

        Raises:
            ValueError: for norms that follow each input, as a group norm does: no convolution can stand for them.
        """
        dense, dense_bias = _folded(self.dense)
        pointwise, pointwise_bias = _folded(self.pointwise)
        conv = nn.Conv2d(dense.shape[1], dense.shape[0], 3, padding=1, device=dense.device, dtype=dense.dtype)
        conv.load_state_dict({"weight": dense + F.pad(pointwise, [1, 1, 1, 1]), "bias": dense_bias + pointwise_bias})
        return nn.Sequential(conv, self.act).train(self.training)


def _folded(branch: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution with its norm."""
    conv: nn.Conv2d = branch.conv  # type: ignore[assignment]
    norm: Any = branch.bn
    # Synchronized and frozen ones too, which are how these networks are often trained.
    known = isinstance(norm, (_BatchNorm, FrozenBatchNormAct2d))
    if known and norm.running_mean is not None and norm.running_var is not None:
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        return weight, bias
    if isinstance(norm, nn.Identity) and conv.bias is not None:
        return conv.weight, conv.bias
    raise ValueError(
        f"only batch norms with running statistics can be part of a convolution: got a {type(norm).__name__}"
    )


def fuse_reparameterized(module: Module) -> Module:
    """Put every re-parameterizable block below `module` in its deployed form, in place; returns `module`.

    A block is one whose class has a method `fuse` that returns the module to stand in its place, as timm's have, or
    timm's `reparameterize`, which changes it in place. Fused blocks compute what they computed in evaluation mode, and
    are not meant to be trained further. The state of the random generators stays as it is.

    Raises:
        ValueError: for a block whose norms cannot be part of a convolution.

    >>> from torch import nn
    >>> from pyramids.repconv import RepConv, fuse_reparameterized
    >>> model = fuse_reparameterized(nn.Sequential(RepConv(8, 8), nn.Conv2d(8, 8, 1)))
    >>> [type(m).__name__ for m in model.modules() if m is not model]
    ['Sequential', 'Conv2d', 'SiLU', 'Conv2d']
    """
    # New convolutions are initialized before they get their weights.
    with torch.random.fork_rng(sorted({p.get_device() for p in module.parameters() if p.is_cuda})):
        _fuse_below(module)
    return module


def _fuse_below(module: nn.Module) -> None:
    for name, child in module.named_children():
        fuse, reparameterize = (_method(child, name) for name in ("fuse", "reparameterize"))
        if fuse is not None:
            setattr(module, name, fuse())
        elif reparameterize is not None:
            reparameterize()
        else:
            _fuse_below(child)


def _method(module: nn.Module, name: str) -> Callable[[], nn.Module] | None:
    """A method of the module's class: an attribute of that name may be a submodule."""
    return getattr(module, name) if callable(getattr(type(module), name, None)) else None
