"""Parts of a model that no map depends on: found by a backward walk from the maps, and cut out.

Several of timm's feature extractors compute and keep whole stages behind the last map that is asked of them. Their
parameters cost memory and time, and get no gradient, which stops distributed training. What is unused is read off the
autograd graph of a run on the meta device, nothing off names.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from timm.models import FeatureHookNet
from torch import Tensor, nn

from .neck import Size
from .weightless import Hooks, run_blank, run_twin


class Cut(nn.Module):
    """Zeros in place of a module whose output no map depends on, of the input's shape unless told otherwise.

    Args:
        scalar: one zero, which fits any sum.
        width: of the last dimension.
    """

    def __init__(self, *, scalar: bool = False, width: int | None = None) -> None:
        super().__init__()
        self.scalar = scalar
        self.width = width

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Zeros in the structure of the first argument."""
        if isinstance(x, (list, tuple)):
            return type(x)(self(item) for item in x)
        if self.scalar:
            return x.new_zeros(())
        return torch.zeros_like(x) if self.width is None else x.new_zeros(*x.shape[:-1], self.width)

    def extra_repr(self) -> str:
        return f"scalar={self.scalar}, width={self.width}"


class PrunedNet(nn.Module):
    """A timm model that gives maps, pruned by timm; takes the place of a `FeatureHookNet`, with its names of weights.

    A `FeatureHookNet` runs the entire model to collect the maps on the way.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        for handle in net.hooks._handles:
            handle.remove()
        self.body = net.body
        self.feature_info = net.feature_info
        self.output_fmt = net.output_fmt
        self.pretrained_cfg = net.pretrained_cfg
        before = list(net.state_dict())
        self.indices = self.body.prune_intermediate_layers(list(net.feature_info.out_indices))
        kept = self.state_dict()
        self.cut = tuple(name for name in before if name not in kept)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images to the maps that `feature_info` describes."""
        maps: list[Tensor] = self.body.forward_intermediates(x, indices=self.indices, intermediates_only=True)
        return maps


def prune_hooked(body: nn.Module) -> nn.Module:
    """Let timm prune a model that it taps by hooks, where it can; other models are returned as they are."""
    entire = getattr(body, "body", None) if isinstance(body, FeatureHookNet) else None
    return PrunedNet(body) if hasattr(entire, "prune_intermediate_layers") else body


def unused_parameters(model: nn.Module, hooks: Hooks, image_size: Size, channels: int) -> list[str]:
    """Names of the parameters that no map of a model depends on."""
    twin, maps = run_twin(model, hooks, image_size, channels, graph=True)
    used = graph_leaves(maps)
    return [name for name, parameter in twin.named_parameters() if id(parameter) not in used]


def cut_unused(model: nn.Module, hooks: Hooks, image_size: Size, channels: int) -> list[str]:
    """Cut the modules and parameters that no map of a model depends on; the maps stay as they are.

    A part stays where the model does not run without it.

    Returns:
        Names of the modules and parameters that were cut.
    """
    twin, maps = run_twin(model, hooks, image_size, channels, graph=True)
    used = graph_leaves(maps)
    if all(id(parameter) in used for parameter in twin.parameters()):
        return []
    shapes = [x.shape for x in maps]

    def runs() -> bool:
        try:
            with torch.no_grad():
                return [x.shape for x in run_blank(twin, image_size, channels)] == shapes
        except Exception:  # whatever a model raises without one of its parts
            return False

    cuts = list(_cut(twin, "", used, runs))
    for name, replacement in cuts:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement)
    return [name for name, _ in cuts]


def _cut(module: nn.Module, prefix: str, used: set[int], runs: Any) -> Iterator[tuple[str, nn.Module | None]]:
    """Replace parts of `module`, the last first and the largest that can be; yields names and replacements."""
    for name, child in reversed(list(module.named_children())):
        parameters = list(child.parameters())
        dead = bool(parameters) and not any(id(parameter) in used for parameter in parameters)
        wide = [Cut(width=child.out_features)] if isinstance(child, nn.Linear) else []
        for replacement in [Cut(), Cut(scalar=True), *wide] if dead else []:
            setattr(module, name, replacement)
            if runs():
                yield prefix + name, replacement
                break
        else:
            setattr(module, name, child)
            yield from _cut(child, f"{prefix}{name}.", used, runs)
    for name, parameter in list(module.named_parameters(recurse=False)):
        if id(parameter) not in used:
            setattr(module, name, None)
            if runs():
                yield prefix + name, None
            else:
                setattr(module, name, parameter)


def graph_leaves(maps: Iterable[Tensor]) -> set[int]:
    """Identities of the tensors at the ends of the maps' autograd graph."""
    nodes = [x.grad_fn for x in maps if x.grad_fn is not None]
    seen = set(nodes)
    leaves = set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        following = {other for other, _ in node.next_functions if other is not None} - seen
        seen |= following
        nodes += following
    return leaves
