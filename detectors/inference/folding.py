"""Batch norms folded into the convolutions before them: one operation in place of two, the same numbers."""

import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detectors.inference.surgery import replace_modules

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


def fold_batch_norms(module: nn.Module, *inputs: Tensor) -> int:
    """Fold each batch norm into its convolution if it is the only consumer, in place; returns how many were folded.

    The pairs are read off the graph that `torch.export` traces of `module(*inputs)`. A convolution or norm that runs
    more than once stays as it is. Where the module cannot be traced, nothing is folded, with a warning.
    """
    pairs = _pairs(module, inputs)
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    replace_modules(module, {norm: _without_norm(norm) for _, norm in pairs})
    return len(pairs)


def _pairs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[Any, Any]]:
    """Each convolution whose output goes to a batch norm and nowhere else, with that norm."""
    try:
        with torch.no_grad():
            program = torch.export.export(module, inputs, strict=False)
    except Exception as error:  # whatever the many backbones raise
        warnings.warn(f"batch norms stay as they are, since the network cannot be traced: {error}", stacklevel=2)
        return []
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}

    def owner(tensor: Any) -> nn.Module | None:
        """The layer that a parameter or buffer of the graph belongs to, if one operation alone reads it."""
        if not isinstance(tensor, fx.Node) or tensor.name not in names or len(tensor.users) != 1:
            return None
        return module.get_submodule(names[tensor.name].rpartition(".")[0])

    pairs = []
    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        source, running_mean = node.args[0], node.args[3]
        if source.target not in _CONVOLUTIONS or len(source.users) != 1:
            continue
        conv, norm = owner(source.args[1]), owner(running_mean)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            pairs.append((conv, norm))
    return pairs


def _without_norm(norm: nn.Module) -> nn.Module:
    """The dropout and activation that timm's norm layers hold beside the norm."""
    kept = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    kept = [m for m in kept if not isinstance(m, nn.Identity)]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)
