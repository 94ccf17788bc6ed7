"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Any

PLAIN_SECONDS = 10.0


class Progress:
    """Shows epoch, step, losses, images a second and the time left; a context manager.

    Args:
        epochs, steps: of the run, and steps an epoch.
        first: steps done before, in an earlier session of the run.
        enabled: only one process shows anything.
    """

    def __init__(self, epochs: int, steps: int, *, first: int = 0, enabled: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.epochs, self.steps, self.first = epochs, steps, first
        self.enabled = enabled
        self.console = Console(stderr=True)
        self._started = time.monotonic()
        self._printed = 0.0
        self._bar: Any = None
        if enabled and self.console.is_terminal:
            columns = [TextColumn("epoch {task.fields[epoch]}"), BarColumn(None), MofNCompleteColumn()]
            columns += [TextColumn("{task.fields[text]}"), TimeRemainingColumn(elapsed_when_finished=True)]
            self._bar = Bar(*columns, console=self.console, expand=True)
            self._task = self._bar.add_task("", total=epochs * steps, completed=first, epoch="", text="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, losses: dict[str, float], images_per_second: float) -> None:
        """Show where the run is after `step` steps."""
        if not self.enabled:
            return
        epoch = f"{min((step - 1) // self.steps + 1, self.epochs)}/{self.epochs}"
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text = f"{parts}  {images_per_second:.1f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, epoch=epoch, text=text)
            return
        now = time.monotonic()
        if now - self._printed >= PLAIN_SECONDS or step == self.epochs * self.steps:
            self._printed = now
            left = (now - self._started) / max(step - self.first, 1) * (self.epochs * self.steps - step)
            minutes, seconds = divmod(round(left), 60)
            where = f"epoch {epoch}  step {step}/{self.epochs * self.steps}"
            self.console.print(f"{where}  {text}  {minutes}:{seconds:02d} left", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.enabled:
            self.console.print(text, soft_wrap=True, highlight=False)
