"""Models without weights: built and run for their shapes alone, on torch's meta device.

Operations that cost time there and change no shape are skipped, so that a trial of any timm model takes about a second.
"""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .neck import Size

# Per module, by name, the keys of its hooks.
Hooks = Mapping[str, Sequence[int]]
# Attributes in which torch keeps the hooks of a module's call and of its backward pass.
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

# In-place operations of initialization.
FILLS = {"uniform_", "normal_", "erfinv_", "mul_", "div_", "add_", "sub_", "clamp_", "fill_", "zero_", "copy_"}

# The names of the norms' parameters, in their order.
_PARAMETERS: Mapping[Any, Sequence[str]] = {
    f: tuple(inspect.signature(f).parameters) for f in (F.batch_norm, F.layer_norm)
}


@contextmanager
def weightless() -> Iterator[None]:
    """A context in which models have shapes and no values.

    >>> import timm
    >>> from pyramids.weightless import weightless
    >>> with weightless():
    ...     model = timm.create_model("vit_giant_patch14_224")
    >>> model.pos_embed.device
    device(type='meta')
    """
    with torch.device("meta"), _ShapesOnly():
        yield


class _ShapesOnly(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in FILLS and args and args[0].is_meta and not _differentiable(args):
            return args[0]
        if getattr(func, "__module__", "") == "torch.nn.init":
            tensor: Any = kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
            if tensor.is_meta:
                return tensor
        if name == "lstm" and isinstance(args[1], (tuple, list)) and args[0].is_meta:  # torch would go step by step
            x, (hidden, cell), bidirectional = args[0], args[1], args[7]
            output = x.new_empty(*x.shape[:-1], hidden.shape[-1] * (2 if bidirectional else 1))
            if _differentiable([x, *args[2]]):
                output = output + x.sum() + sum(weight.sum() for weight in args[2])
            return output, hidden, cell
        if func in (F.batch_norm, F.layer_norm) and args[0].is_meta:  # made of many steps there
            named = {**dict(zip(_PARAMETERS[func], args)), **(kwargs or {})}
            return _like_normalized(named["input"], [named.get(k) for k in ("running_mean", "weight", "bias")], func)
        if func is torch.linspace:  # older timm reads its drop rates off one
            kwargs = {"device": "cpu", **(kwargs or {})}
        return func(*args, **(kwargs or {}))


def _like_normalized(x: Tensor, terms: Sequence[Tensor | None], func: Callable[..., Any]) -> Tensor:
    """A tensor of the shape that a norm gives, in the graph of the norm's parameters."""
    present = [term for term in terms if term is not None]
    for term in present:
        expected = x.shape[1:2] if func is F.batch_norm else x.shape[-term.dim() :]
        if term.shape != expected:
            raise RuntimeError(f"a norm of {tuple(term.shape)} channels is given an input of shape {tuple(x.shape)}")
    like: Tensor = _Like.apply(x, *present)  # type: ignore[no-untyped-call]
    return like


class _Like(torch.autograd.Function):
    """A tensor like the first one, in the graph of all: one step, where every arithmetic one is slow on that device."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *terms: Tensor) -> Tensor:
        ctx.shapes = [term.shape for term in terms]
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return gradient, *(gradient.new_empty(shape) for shape in ctx.shapes)


def _differentiable(tensors: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def twin_of(model: nn.Module, hooks: Hooks, *, data: bool = False) -> nn.Module:
    """Copy of a model in evaluation mode, on the meta device unless with its `data`; the model itself is not touched.

    Only the `hooks` named are copied, so that hooks that a user adds to a model do not see the copy run.
    """
    memo: dict[int, Any] = {}
    pending = []
    for name, module in model.named_modules():
        for kind in HOOKS:
            known: dict[int, Any] = getattr(module, kind)
            kept: dict[int, Any] = OrderedDict()
            memo[id(known)] = kept
            chosen = {i: hook for i, hook in known.items() if i in hooks.get(name, ()) or _is_late(hook)}
            pending.append((kept, chosen))
    if not data:
        for parameter in model.parameters():
            stand_in = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(stand_in, requires_grad=parameter.requires_grad)
        memo.update((id(buffer), torch.empty_like(buffer, device="meta")) for buffer in model.buffers())
    with nullcontext() if data else _CopiesOnMeta():
        twin = copy.deepcopy(model, memo)
        for kept, chosen in pending:
            kept.update(copy.deepcopy(chosen, memo))
    return twin.eval()


def _is_late(hook: Any) -> bool:
    """Whether a hook is one that transformers adds to its models at their first call, to collect their maps."""
    return str(getattr(hook, "__module__", "")).startswith("transformers.")


def hooks_of(model: nn.Module) -> Hooks:
    """Hooks that a model has now: per module, the keys that torch gave them."""
    keys_by_name = {name: tuple(key for kind in HOOKS for key in getattr(m, kind)) for name, m in model.named_modules()}
    return {name: keys for name, keys in keys_by_name.items() if keys}


def run_twin(
    model: nn.Module, hooks: Hooks, image_size: Size, channels: int, *, graph: bool = False
) -> tuple[nn.Module, list[Tensor]]:
    """Copy of a model and its maps of a black image, on the meta device unless the model reads tensor values.

    Args:
        model: gives maps of images.
        hooks: the model's own, see `twin_of`.
        image_size: (height, width) of the image.
        channels: of the image.
        graph: let all parameters of the twin take gradients, and the maps keep their graph.
    """
    meta = any(parameter.is_meta for parameter in model.parameters())
    for data in (False, True):
        twin = twin_of(model, hooks, data=data)
        for parameter in twin.parameters():
            parameter.requires_grad_(graph and (parameter.is_floating_point() or parameter.is_complex()))
        try:
            with torch.set_grad_enabled(graph):
                maps = run_blank(twin, image_size, channels)
            break
        except Exception as error:
            if data or meta or not needs_data(error):
                raise
    return twin, maps


def run_blank(model: nn.Module, image_size: Size, channels: int) -> list[Tensor]:
    """Maps of a black image, computed where the model's weights are; fast on the meta device."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    images = torch.zeros(1, channels, *image_size, dtype=weight.dtype, device=weight.device)
    with weightless() if weight.is_meta else nullcontext():
        return listed(model(images))


def listed(maps: Any) -> list[Tensor]:
    """Maps in any of the forms that models give them in, as a list."""
    maps = getattr(maps, "feature_maps", maps)  # transformers' BackboneOutput
    if isinstance(maps, Tensor):
        return [maps]
    found = maps.values() if isinstance(maps, Mapping) else maps
    found = list(found) if isinstance(found, Iterable) else [found]
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(f"a backbone gives tensors (N, C, H, W), in a list or a dict: got a {type(x).__name__}")
    return found


class _CopiesOnMeta(TorchFunctionMode):
    """Tensors that are neither parameters nor buffers of a model, such as kept activations, are copied without data."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            return torch.empty_like(args[0], device="meta")
        return func(*args, **(kwargs or {}))


def needs_data(error: BaseException | None) -> bool:
    """Whether a run failed because the meta device has no values or no autocast, which says nothing about the size."""
    return any(limit in str(error) for limit in ("meta tensor", "unsupported scalarType"))
