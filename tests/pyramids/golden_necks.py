"""Golden numbers of the necks, and the checks that hold a neck against them.

A file in `tests/golden/necks` has the weights, inputs and outputs of a neck's official implementation, one training
step of it (batch 2) and its configuration. A test reads

    golden = load_golden("fpn_maxpool")
    neck = FPN([...], [...])
    neck.load_state_dict(convert(golden.weights))
    check_parameters(neck, golden)
    check_outputs(neck, golden, "odd")  # any of golden.cases
    check_training_step(neck, golden, convert)

where `convert` brings a state dict of the official names to ours.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "necks"
SHARED = Path(__file__).parents[3] / "shared" / "golden" / "necks"
OUTPUT = 1e-5  # of the largest value of a tensor
GRADIENT = 1e-4  # of the norm of a gradient

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Golden:
    """The numbers of one file; `train` has the input gradients of its training step."""

    config: dict[str, Any]
    parameters: int
    train: dict[str, Any]
    tensors: StateDict

    @property
    def cases(self) -> list[str]:
        """Names of the cases in evaluation mode, such as "pow2", "odd" and "rect"."""
        return sorted({key.split(".")[1] for key in self.tensors if key.startswith("input.")} - {"train"})

    def named(self, prefix: str) -> StateDict:
        """The tensors below a prefix, by the rest of their names."""
        return {key.removeprefix(prefix): x for key, x in self.tensors.items() if key.startswith(prefix)}

    @property
    def weights(self) -> StateDict:
        """The official state dict."""
        return self.named("weight.")

    @property
    def used(self) -> list[int]:
        """Indices of the input maps that play a part; a configuration that starts at a later level ignores the rest."""
        return [i for i, norm in enumerate(self.train["grad_norm_inputs"]) if norm]

    def inputs(self, case: str) -> list[Tensor]:
        """Input maps that play a part, finest first."""
        return [self.tensors[f"input.{case}.{i}"] for i in self.used]

    def outputs(self, case: str) -> list[Tensor]:
        """Output maps, finest first."""
        return self._maps(f"output.{case}.")

    def _maps(self, prefix: str) -> list[Tensor]:
        found = self.named(prefix)
        return [found[str(i)] for i in range(len(found))]


def load_golden(name: str) -> Golden:
    """The golden numbers of a file in `tests/golden/necks`."""
    told = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return Golden(told["config"], told["parameters"], told["train"], tensors)


def golden_cases(names: list[str]) -> list[tuple[str, str]]:
    """Every file of these names with every case of it, "train" too."""
    return [(name, case) for name in names for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]]


def load_case(name: str, case: str) -> Golden:
    """The golden numbers of a file and a case; what is not in `tests/golden/necks`, to save room, is in `../shared`."""
    golden = load_golden(name)
    if f"output.{case}.0" in golden.tensors:
        return golden
    if not (SHARED / f"{name}.safetensors").is_file():
        pytest.skip(f"case {case!r} of {name} is only in ../shared/golden/necks")
    return replace(golden, tensors=load_file(SHARED / f"{name}.safetensors"))


def check_close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """The largest difference is within `tolerance` of the largest expected value."""
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} in place of {tuple(expected.shape)}"
    error = (actual.detach().double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f"{what} differs by {error:.1e} of the largest value"


def check_parameters(neck: nn.Module, golden: Golden) -> None:
    """As many parameters as the official module has."""
    assert sum(p.numel() for p in neck.parameters()) == golden.parameters


def check_outputs(neck: nn.Module, golden: Golden, case: str, *, tolerance: float = OUTPUT) -> None:
    """The outputs of a case in evaluation mode."""
    with torch.no_grad():
        outputs = neck.eval()(golden.inputs(case))
    for i, (ours, official) in enumerate(zip(outputs, golden.outputs(case), strict=True)):
        check_close(ours, official, tolerance, f"output {i} of {case!r}")


def check_training_step(neck: nn.Module, golden: Golden, convert: Callable[[StateDict], StateDict]) -> None:
    """Outputs, input gradients and, afterwards, running statistics of one forward and backward in training."""
    inputs = [x.requires_grad_() for x in golden.inputs("train")]
    outputs = neck.train()(inputs)
    for i, (ours, official) in enumerate(zip(outputs, golden.outputs("train"), strict=True)):
        check_close(ours, official, OUTPUT, f"output {i} in training")
    sum((x.flatten() * ramp(x, i)).sum() for i, x in enumerate(outputs)).backward()
    for i, x in zip(golden.used, inputs, strict=True):
        norm, dot = golden.train["grad_norm_inputs"][i], golden.train["grad_dot_inputs"][i]
        assert abs(x.grad.norm().item() - norm) <= GRADIENT * norm, f"gradient norm of input {i}"
        assert abs((x.grad.flatten() * ramp(x, i)).sum().item() - dot) <= GRADIENT * norm, f"gradient of input {i}"
    after = convert(golden.weights | golden.named("buffer.train."))
    statistics = [name for name in after if name.endswith(("running_mean", "running_var"))]
    assert bool(statistics) == bool(golden.named("buffer.train.")), "the conversion keeps running statistics"
    state = neck.state_dict()
    for name in statistics:
        check_close(state[name], after[name], OUTPUT, name)


def ramp(x: Tensor, i: int) -> Tensor:
    """The weights `cos(0.37 j + i)` by which the golden loss adds up a map and the golden dot products a gradient."""
    return torch.cos(0.37 * torch.arange(x.numel(), dtype=torch.float64) + i).float()
