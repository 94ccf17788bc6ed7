"""Optimizers whose update a flag on the device can call off, and their state by the names of parameters."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from detectors.training.config import TrainConfig

_SLOTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq", "step")}
_DEFAULT_DECAY = {"sgd": 5e-4, "adamw": 0.05}


class GuardedOptimizer:
    """SGD or AdamW, fused, which skips a step without the host looking at its numbers.

    Norms and biases are not decayed. The state exists from the start: a skipped first step must not leave it
    uninitialized, and a resumed run fills it in place.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.kind = config.optimizer
        decay = _DEFAULT_DECAY[config.optimizer] if config.weight_decay is None else config.weight_decay
        groups = [
            {"params": [p for p in self.named.values() if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in self.named.values() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        lr = config.peak_lr()
        if self.kind == "sgd":
            self.inner: torch.optim.Optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
        else:
            self.inner = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=True)
        for parameter in self.named.values():
            for slot in _SLOTS[self.kind]:
                scalar = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self.inner.state[parameter][slot] = scalar if slot == "step" else torch.zeros_like(parameter)

    @property
    def parameters(self) -> Iterable[nn.Parameter]:
        return self.named.values()

    def step(self, lr: float, skip: Tensor) -> None:
        """Update at this learning rate unless `skip`, a float32 scalar on the device, is 1."""
        for group in self.inner.param_groups:
            group["lr"] = lr
        # The fused kernels read this as they do under a gradient scaler.
        self.inner.found_inf = skip  # type: ignore[attr-defined]
        self.inner.step()

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state as `parameter:slot`."""
        return {
            f"{name}:{slot}": self.inner.state[parameter][slot]
            for name, parameter in self.named.items()
            for slot in _SLOTS[self.kind]
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Fill the state in place, so that memory formats stay."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
