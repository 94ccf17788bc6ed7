"""Module surgery: input shapes of convolutions, and replacement of submodules."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution, padded with zeros by numbers, and nothing more: no subclass, no hooks.

    >>> is_plain(nn.Conv2d(3, 8, 3, padding="same"))
    False
    """
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return not module._forward_hooks and not module._forward_pre_hooks


def is_plain_3x3(module: nn.Module) -> bool:
    """Whether a module is a plain 3x3 convolution of stride 1 and padding 1, of one group.

    >>> is_plain_3x3(nn.Conv2d(3, 8, 3, padding=1)), is_plain_3x3(nn.Conv2d(3, 8, 3))
    (True, False)
    """
    if not is_plain(module):
        return False
    form = (module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    return form == ((3, 3), (1, 1), (1, 1), (1, 1), 1)


def conv_inputs(module: nn.Module, *inputs: Any) -> dict[nn.Conv2d, Shape]:
    """The convolutions that `module(*inputs)` runs, each with the shape `(N, C, H, W)` of what it reads.

    Those that are not plain (`is_plain`) are left out.

    >>> conv_inputs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.rand(1, 3, 6, 5))
    {Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1)): (1, 3, 6, 5)}
    """
    shapes: dict[nn.Conv2d, Shape] = {}

    def record(conv: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes[conv] = tuple(args[0].shape)  # type: ignore[index]

    plain = [child for child in module.modules() if is_plain(child)]
    hooks = [child.register_forward_pre_hook(record) for child in plain]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return shapes


def replace_modules(root: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules in the place of old ones, in place, wherever they stand below `root`.

    >>> old, new = nn.ReLU(), nn.SiLU()
    >>> body = nn.Sequential(nn.Sequential(old), old)
    >>> replace_modules(body, {old: new})
    >>> body[0][0] is new and body[1] is new
    True
    """
    for parent in list(root.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])
