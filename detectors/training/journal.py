"""What a run writes down: metrics, speed and TensorBoard's events, by one process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectors.training.run_log import METRICS, SPEED, JsonLines


class Journal:
    """The records of a run; those of processes but the first write nothing.

    `metrics.jsonl` has nothing that differs between two runs of one configuration, times least of all: those are in
    `speed.jsonl`.

    Args:
        folder: of the run.
        step: the step from which the run goes on; what TensorBoard has of later ones is hidden.
        metrics_bytes: where `metrics.jsonl` was at that step.
        enabled: whether this process writes.
    """

    def __init__(self, folder: Path, *, step: int = 0, metrics_bytes: int = 0, enabled: bool = True) -> None:
        self.enabled = enabled
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._metrics = JsonLines(folder / METRICS, metrics_bytes)
        self._speed = JsonLines(folder / SPEED)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def metrics(self, **values: Any) -> None:
        if self.enabled:
            self._metrics.write(**values)

    def speed(self, *, step: int, **values: float) -> None:
        if self.enabled:
            self._speed.write(step=step, **values)
            self.scalars("speed", values, step)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self.enabled:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def size(self) -> int:
        """Bytes of metrics, all on the disk."""
        return self._metrics.size()

    def close(self) -> None:
        if self.enabled:
            self._metrics.close()
            self._speed.close()
            self._board.close()
