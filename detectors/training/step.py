"""One optimizer step: in parts, processes and any precision, and without a trace if it goes wrong."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from detectors.models.ssd import SSD
from detectors.training.config import TrainConfig
from detectors.training.data import Batch
from detectors.training.distributed import any_process, is_distributed, mean_positives
from detectors.training.ema import WeightAverage
from detectors.training.guard import BufferGuard, gradient_norm
from detectors.training.optimizer import GuardedOptimizer
from detectors.training.schedule import lr_factor

if TYPE_CHECKING:
    from accelerate import Accelerator

LOSSES = ["bbox_regression", "classification"]


class Stepper:
    """Holds what a step changes: the model, its average, the optimizer and the gradient scaler of fp16.

    Args:
        model: the bare detector, on its device.
        total: steps of the whole run, which the schedule spans.
    """

    def __init__(self, model: SSD, config: TrainConfig, accelerator: "Accelerator", total: int) -> None:
        self.config = config
        self.total = total
        self.accelerator = accelerator
        self.model = model
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        if is_distributed():
            model.loss.reduce_positives = mean_positives
        if config.checkpoint_activations:
            from detectors.training.activations import checkpoint_activations

            checkpoint_activations(model)
        if config.compile:
            model.pyramid.compile()
            model.head.compile()
        self.optimizer = GuardedOptimizer(model, config)
        self.buffers = BufferGuard(model)
        self.scaler = accelerator.scaler
        # On another name: DDP wraps, and the bare model stays what is averaged and saved.
        self.wrapped: nn.Module = accelerator.prepare_model(model)

    def __call__(self, step: int, parts: Sequence[Batch], stop: bool) -> Tensor:
        """Take step number `step`, from 0, with its parts; gives what `Reports.push` takes."""
        device = self.accelerator.device
        # Dropout and the like depend on the step alone, so there is no random state to save.
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 64 + self.accelerator.process_index)
        self.buffers.remember()
        losses = torch.zeros(len(LOSSES), device=device)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                images, targets = part.to(device, self.memory_format)
                with self.accelerator.autocast():
                    found = self.wrapped(images, targets)
                values = torch.stack([found[name].float() for name in LOSSES]) / len(parts)
                self.accelerator.backward(values.sum())
                losses += values.detach()
        return self._update(step, losses, stop)

    @torch.no_grad()
    def _update(self, step: int, losses: Tensor, stop: bool) -> Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer.inner)
        parameters = [p for p in self.optimizer.parameters if p.grad is not None]
        norm = gradient_norm(parameters)
        finite = losses.sum().isfinite() & norm.isfinite()
        flags = torch.stack([(~finite).float(), torch.full_like(norm, float(stop))])
        any_process(flags)
        skip = flags[0]
        if self.config.clip_norm:
            clip_grads_with_norm_(parameters, self.config.clip_norm, norm, foreach=True)
        lr = self.config.peak_lr() * lr_factor(self.config.schedule, step, self.total)
        self.optimizer.step(lr, skip)
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad()
        self.buffers.restore_if(skip > 0)
        if self.average is not None:
            self.average.update(self.model, step, skip)
        if is_distributed():
            torch.distributed.all_reduce(losses)
            losses /= self.accelerator.num_processes
        return torch.cat([losses, norm[None], flags])

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
        """Fill in what `state` gave.

        Raises:
            ValueError: if it is of another model or optimizer; says which keys.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.state().items()}
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != given:
            keys = sorted(name for name in expected | given if expected.get(name) != given.get(name))
            raise ValueError(f"the checkpoint does not fit this model: {len(keys)} keys differ, such as {keys[:3]}")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        self.optimizer.load(part("optimizer/"))
        if self.average is not None:
            self.average.model.load_state_dict(part("average/"))
        if self.scaler is not None:
            scale, growth = state["scaler"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(growth)})
