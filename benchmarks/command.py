"""Common parts of the benchmarks' commands: device, budget, and a resumable loop over measurements (cells)."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.results import Results
from detectors.errors import InputError

Budget = Literal["smoke", "cpu", "gpu"]

# Errors that a cell's settings can cause, out of memory and compiler failures among them: the run continues.
CELL_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


@dataclass(kw_only=True)
class Command:
    """Options of every benchmark."""

    output: Path
    """Folder of the results file. An existing file is continued: finished cells are not run again."""
    budget: Budget = "smoke"
    """How much to run: `smoke` shows in a minute that all works, `cpu` is for two cores, `gpu` for one large GPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run."""

    def open_device(self) -> torch.device:
        """The device to run on.

        Raises:
            ValueError: for `cuda` where there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device is cuda, but torch sees no CUDA GPU here: use --device cpu")
        return torch.device(self.device)

    def run(self) -> int:
        """Run the benchmark and return its exit code."""
        raise NotImplementedError(f"{type(self).__name__} does not define run")


@dataclass(frozen=True)
class Cell:
    """One measurement: its unique key, the columns that describe it, and the function that takes it."""

    key: str
    columns: Mapping[str, Any]
    measure: Callable[[], Mapping[str, Any]] = field(compare=False)


def run_cells(results: Results, cells: Sequence[Cell], title: str, *, bar: bool = True) -> None:
    """Measure every cell that is not finished, saving after each; where one fails, its row says why in `error`.

    Failed cells are tried again when the run is. `bar=False` prints lines, for cells that show their own progress.
    """
    pending = [cell for cell in cells if not results.finished(cell.key)]
    if len(pending) < len(cells):
        print(f"{title}: {len(cells) - len(pending)} of {len(cells)} cells are finished already")
    with _progress(title, len(pending), bar and sys.stderr.isatty()) as advance:
        for cell in pending:
            advance(cell.key)
            try:
                values = dict(cell.measure())
            except CELL_ERRORS as error:
                values = {"error": " ".join(str(error).split())[:500] or type(error).__name__}
                print(f"  {cell.key}: {values['error']}", file=sys.stderr)
            results.add(cell.key, **cell.columns, **values)
    failed = sum("error" in row for row in results.rows)
    print(f"{title}: {len(results.rows)} rows, {failed} without a result, in {results.path}")


@contextmanager
def _progress(title: str, total: int, live: bool) -> Iterator[Callable[[str], None]]:
    """A function to call with the key of every cell before it is measured: a bar on a terminal, lines elsewhere."""
    if not live:
        done = 0

        def line(key: str) -> None:
            nonlocal done
            done += 1
            print(f"{title} {done}/{total}: {key}", flush=True)

        yield line
        return
    from rich import progress as bars
    from rich.console import Console

    columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, "{task.fields[key]}", console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, key="")
        done = -1

        def advance(key: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, key=key)

        yield advance
        progress.update(task, completed=total, key="")
