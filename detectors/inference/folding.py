"""Batch norms folded into the convolutions before them: one operation in place of two, the same numbers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detectors.inference.surgery import replace_modules


def fold_batch_norms(module: nn.Module, *inputs: Tensor) -> int:
    """Fold every batch norm that directly follows a convolution into it, in place; returns how many.

    Which norm follows which convolution is seen by running the module once: a pair belongs together where the norm
    reads the very tensor that the convolution wrote, and each of the two runs once.
    """
    written: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []  # or ids could come again
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []
    runs: dict[nn.Module, int] = {}

    def after_conv(conv: nn.Module, args: Any, output: Tensor) -> None:
        runs[conv] = runs.get(conv, 0) + 1
        alive.append(output)
        written[id(output)] = conv  # type: ignore[assignment]

    def before_norm(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        runs[norm] = runs.get(norm, 0) + 1
        if id(args[0]) in written:
            pairs.append((written.pop(id(args[0])), norm))

    hooks = []
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            hooks.append(child.register_forward_hook(after_conv))
        elif isinstance(child, nn.BatchNorm2d):
            hooks.append(child.register_forward_pre_hook(before_norm))
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    pairs = [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1]
    for conv, norm in pairs:
        _fold(conv, norm)
    replace_modules(module, {norm: _without_norm(norm) for _, norm in pairs})
    return len(pairs)


def _without_norm(norm: nn.Module) -> nn.Module:
    """What timm's norm layers hold beside the norm."""
    kept = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    kept = [m for m in kept if not isinstance(m, nn.Identity)]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
