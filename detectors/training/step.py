"""Optimizer step with gradient accumulation, several processes, mixed precision and skipping of non-finite steps.

A step that is not finite changes nothing: weights, average, optimizer and batch-norm statistics stay as they were. The
host does not wait to learn which: the flag is a scalar on the device, which every later operation takes into account.

The average of the weights: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from detectors.errors import InputError
from detectors.models.ssd import SSD
from detectors.training.batch_norm import start_statistics
from detectors.training.config import TrainConfig
from detectors.training.data import Batch, is_distributed
from detectors.training.schedule import lr_factor

if TYPE_CHECKING:
    from accelerate import Accelerator

M = TypeVar("M", bound=nn.Module)

LOSSES = ["bbox_regression", "classification"]
# Values that a step reports: losses and gradient norm, then flags, 1 if set in any process.
VALUES = [*LOSSES, "gradient_norm", "skipped", "stop", "save"]

_SLOTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq", "step")}
_WEIGHT_DECAY = {"sgd": 5e-4, "adamw": 0.05}


class Stepper:
    """All that a step changes: the model, its average, the optimizer and the gradient scaler of fp16.

    Args:
        model: the detector itself, not wrapped, on its device.
        total: steps of the whole run, which the schedule spans.
    """

    def __init__(self, model: SSD, config: TrainConfig, accelerator: "Accelerator", total: int) -> None:
        self.config = config
        self.total = total
        self.accelerator = accelerator
        self.model = model
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self.frozen = {"nothing": None, "backbone": model.pyramid.backbone, "pyramid": model.pyramid}[config.freeze]
        if self.frozen is not None:
            self.frozen.requires_grad_(False)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        if config.checkpoint_activations:
            from detectors.training.memory import checkpoint_activations

            checkpoint_activations(model)
        if config.compile:
            model.pyramid.compile()
            model.head.compile()
        self.optimizer = GuardedOptimizer(model, config)
        self.buffers = BufferGuard(model)
        self.scaler = accelerator.scaler
        if is_distributed():
            from accelerate.utils import DistributedDataParallelKwargs

            # Where a backbone keeps stages that no map needs, DDP must not wait for their gradients.
            unused = bool(model.pyramid.unused_parameters)
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
        # Under another name: DDP wraps the model, and the model itself is averaged and saved.
        self.wrapped: nn.Module = accelerator.prepare_model(model)

    def __call__(self, step: int, parts: Sequence[Batch], *, stop: bool = False, save: bool = False) -> Tensor:
        """Take step number `step`, from 0, with its parts; returns `VALUES` on the device.

        `stop` and `save` are the flags of this process; the returned ones are 1 if set in any process.
        """
        # Dropout and the like depend on the step alone, so there is no random state to save.
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 64 + self.accelerator.process_index)
        self.buffers.remember()
        losses, positives = self._backward(parts)

        # The parts' losses are per image. A step's are per positive of all images in all parts and processes.
        images = sum(len(part.counts) for part in parts)
        scale = images / _mean_over_processes(positives).clamp(min=1 / self.accelerator.num_processes)
        losses = _mean_over_processes(losses) * scale
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer.inner)
        parameters = [p for p in self.optimizer.named.values() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        norm = get_total_norm(gradients, foreach=True).float()

        finite = losses.sum().isfinite() & norm.isfinite()
        flags = torch.stack([(~finite).float(), torch.full_like(norm, float(stop)), torch.full_like(norm, float(save))])
        if is_distributed():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        skip = flags[0]
        if self.config.clip_norm:
            clip_grads_with_norm_(parameters, self.config.clip_norm, norm, foreach=True)
        self.optimizer.step(self.lr(step), skip)
        if self.scaler is not None:
            self.scaler.update()
        self.buffers.restore_if(skip > 0)
        if self.average is not None:
            self.average.update(self.model, step, skip)
        return torch.cat([losses, norm[None], flags])

    def _backward(self, parts: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Gradients of all parts, for losses per image; these losses, and the number of positives of this process."""
        device = self.accelerator.device
        losses, positives = torch.zeros(len(LOSSES), device=device), torch.zeros((), device=device)
        images = sum(len(part.counts) for part in parts)  # as many in every process

        def per_image(count: Tensor) -> Tensor:
            positives.add_(count)
            return torch.full_like(count, images)

        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            # Processes add up their gradients once, in the backward pass of the last part.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                batch, targets = part.to(device, self.memory_format)
                self.model.loss.reduce_positives = per_image
                with self.accelerator.autocast():
                    # Data were checked when they were read; what is not finite is a matter of the step.
                    outputs = self.wrapped(batch, targets, validate=False)
                self.model.loss.reduce_positives = None
                values = torch.stack([outputs[name].float() for name in LOSSES])
                backward = values.sum() if self.scaler is None else self.scaler.scale(values.sum())
                backward.backward()
                losses += values.detach()
        return losses, positives

    def start(self, part: Batch) -> None:
        """Before the first step: take the first statistics of batch norms from a part of it."""
        images, _ = part.to(self.accelerator.device, self.memory_format)
        with self.accelerator.autocast():
            start_statistics(self.model, lambda: self.model.features(images))

    def lr(self, step: int) -> float:
        """Learning rate of step number `step`, from 0."""
        config = self.config
        warm_up = () if config.warm_up is None else (config.warm_up,)
        return config.peak_lr() * lr_factor(config.schedule, step, self.total, *warm_up)

    def train(self) -> None:
        """Training mode, but for the frozen part, whose statistics stay as they are."""
        self.model.train()
        if self.frozen is not None:
            self.frozen.eval()

    @property
    def evaluated(self) -> SSD:
        """The model that is evaluated and saved: the average, or the model itself."""
        return self.model if self.average is None else self.average.model

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in self.optimizer.state().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.model.state_dict().items()}
        if self.scaler is not None:
            scale = self.scaler.state_dict()
            tensors["scaler"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
        return tensors

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: if it is of another model or optimizer; says which keys.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.state().items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != found:
            keys = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise InputError(f"the checkpoint does not fit this model: {len(keys)} keys differ, such as {keys[:3]}")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        self.optimizer.load(part("optimizer/"))
        if self.average is not None:
            self.average.model.load_state_dict(part("average/"))
        if self.scaler is not None:
            scale, growth = state["scaler"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(growth)})


def _mean_over_processes(values: Tensor) -> Tensor:
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class WeightAverage(Generic[M]):
    """Exponential moving average of a model's weights and statistics, which evaluates better than the last weights.

    The decay rises with the number of updates, (1 + n) / (10 + n) up to `decay`, so that a short run forgets its start.
    Integer buffers are copied.

    >>> model = nn.Linear(1, 1)
    >>> average = WeightAverage(model, decay=0.999)
    >>> average.update(model, number=0, skip=torch.zeros(()))
    >>> torch.equal(average.model.weight, model.weight)
    True
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: M, number: int, skip: Tensor) -> None:
        """Move towards `model` after update `number`, counted from 0, unless `skip`, a float32 scalar, is 1."""
        weight = (1 - min(self.decay, (1 + number) / (10 + number))) * (1 - skip)
        current = model.state_dict()
        pairs = [(average, current[name].detach()) for name, average in self.model.state_dict().items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, targets = [pair[0] for pair in floating], [pair[1] for pair in floating]
        steps = torch._foreach_sub(targets, averages)
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(averages, steps)
        for average, target in pairs:
            if not average.is_floating_point():
                average.copy_(target)


class BufferGuard:
    """Takes back what a forward pass did to a model's buffers, that is to batch-norm statistics."""

    def __init__(self, model: nn.Module) -> None:
        names = {name for name, _ in model.named_parameters()}
        groups: dict[torch.dtype, list[Tensor]] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name not in names:
                groups.setdefault(tensor.dtype, []).append(tensor)
        self._groups = list(groups.values())
        self._saved: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        self._saved = [torch.cat([tensor.flatten() for tensor in group]) for group in self._groups]

    @torch.no_grad()
    def restore_if(self, bad: Tensor) -> None:
        """Back to what was remembered where `bad`, a bool scalar on the device, is true."""
        for group, saved in zip(self._groups, self._saved):
            now = torch.cat([tensor.flatten() for tensor in group])
            kept = torch.where(bad, saved, now).split([tensor.numel() for tensor in group])
            torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(kept, group)])


class GuardedOptimizer:
    """SGD or AdamW, fused, which skips a step without the host looking at its numbers.

    Norms and biases are not decayed. The state exists from the start: a skipped first step must not leave it
    uninitialized, and a resumed run fills it in place. State is kept by the names of parameters.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.kind = config.optimizer
        decay = _WEIGHT_DECAY[config.optimizer] if config.weight_decay is None else config.weight_decay
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

    def step(self, lr: float, skip: Tensor) -> None:
        """Update at this learning rate unless `skip`, a float32 scalar on the device, is 1; gradients are freed."""
        for group in self.inner.param_groups:
            group["lr"] = lr
        # The fused kernels read this as they do under a gradient scaler.
        self.inner.found_inf = skip  # type: ignore[attr-defined]
        self.inner.step()
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
