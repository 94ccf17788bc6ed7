"""Clauses on the state of a neck: all of it in the state dict, none shared by accident, none changed by a forward."""

import copy
import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .subject import expect, expect_close, fresh, infer, make_maps, usual_sizes

EXACT = 0.0
REGISTERED = ("_parameters", "_buffers", "_modules")
DEPTH = 4  # of containers in containers that are looked into


def stateless(neck: nn.Module, examples: int) -> None:
    """A forward in evaluation changes nothing: no buffer, no attribute, no global, not the maps it was given."""
    subject = fresh(neck)
    maps = make_maps(subject, usual_sizes(subject))
    given, before = [x.clone() for x in maps], _state(subject)
    passed = list(maps)
    infer(subject, passed)
    after = _state(subject)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    expect(not changed, f"a forward in evaluation changed {', '.join(changed)}")
    expect([id(x) for x in passed] == [id(x) for x in maps], "a forward changed the list that it was given")
    for i, (x, y) in enumerate(zip(maps, given)):
        expect(torch.equal(x, y), f"a forward changed input map {i} in place")


def own_weights(neck: nn.Module, examples: int) -> None:
    """No two parameters are one by accident, as in `[module] * n`. Leave this clause out where sharing is meant."""
    names = defaultdict(list)
    for name, p in neck.named_parameters(remove_duplicate=False):
        if p.numel() > 0 and p.device.type != "meta":
            names[p.data_ptr()].append(name)
    shared = [" = ".join(same) for same in names.values() if len(same) > 1]
    expect(not shared, f"parameters are shared: {'; '.join(shared)}")


def copies(neck: nn.Module, examples: int) -> None:
    """A deepcopy gives the same outputs, and shares nothing with its original."""
    subject = fresh(neck)
    maps = make_maps(subject, usual_sizes(subject))
    expected = infer(subject, maps)
    twin = copy.deepcopy(subject)
    expect_close(infer(twin, maps), expected, EXACT, "a deepcopy")
    _scramble(twin)
    expect_close(infer(subject, maps), expected, EXACT, "the original after its deepcopy was changed")
    same = all(torch.equal(a, b) for a, b in zip(infer(twin, maps), expected))
    expect(not same or not any(True for _ in neck.parameters()), "a deepcopy computes with the weights of its original")


def state_dict(neck: nn.Module, examples: int) -> None:
    """The state dict holds all the state: saved, and loaded into a neck of other weights, it gives the same outputs."""
    subject = fresh(neck)
    hidden = [name for module_name, module in subject.named_modules() for name in _unregistered(module_name, module)]
    expect(not hidden, f"not in the state dict, since no module registers it: {', '.join(hidden)}")
    maps = make_maps(subject, usual_sizes(subject))
    expected = infer(subject, maps)
    file = io.BytesIO()
    torch.save(subject.state_dict(), file)
    file.seek(0)
    twin = fresh(neck)
    _scramble(twin)
    twin.load_state_dict(torch.load(file, weights_only=True))
    expect_close(infer(twin, maps), expected, EXACT, "a neck that loaded the state dict")


def _scramble(neck: nn.Module) -> None:
    for value in neck.state_dict().values():  # tensors that share memory with those of the neck
        value.copy_(torch.rand_like(value) if value.is_floating_point() else torch.zeros_like(value))


def _unregistered(module_name: str, module: nn.Module) -> Iterator[str]:
    for name, value in vars(module).items():
        if not name.startswith("_"):
            held = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
            )
            if any(isinstance(x, (nn.Module, Tensor)) for x in held):
                yield f"{module_name}.{name}".lstrip(".")


def _state(neck: nn.Module) -> dict[str, Any]:
    """State that must not change, by name: attributes of all modules, their class's and its file's globals, torch's."""
    state: dict[str, Any] = {
        "torch's random state": torch.get_rng_state().tolist(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
    }
    for module_name, module in neck.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in REGISTERED}
        for name, value in (own | module._parameters | module._buffers).items():
            state[f"{module_name}.{name}".lstrip(".")] = _fingerprint(value)
    kind = type(neck)
    globals_ = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
    for where, values in ((kind.__qualname__, vars(kind)), (kind.__module__, globals_)):
        for name, value in values.items():
            if not name.startswith("__"):
                state[f"{where}.{name}"] = _fingerprint(value)
    return state


def _fingerprint(value: Any, depth: int = DEPTH) -> Any:
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype)):
        return value
    if isinstance(value, Tensor):
        return id(value), value._version, value.shape
    if depth and isinstance(value, dict):
        return [(_fingerprint(k, depth - 1), _fingerprint(v, depth - 1)) for k, v in value.items()]
    if depth and isinstance(value, (list, tuple)):
        return [_fingerprint(v, depth - 1) for v in value]
    if depth and isinstance(value, (set, frozenset)):
        return {_fingerprint(v, 0) for v in value}
    return id(value)
