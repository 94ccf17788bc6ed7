"""Common parts of the benchmarks' commands: device, budget, and a resumable loop over measurements."""

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

# Errors that a measurement's settings can cause, out of memory and compiler failures among them: the run continues.
MEASUREMENT_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


@dataclass(kw_only=True)
class Command:
    """Options of every benchmark."""

    output: Path
    """Folder of the results file. An existing file is continued: finished measurements are not run again."""
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

    def check_positive(self, *names: str) -> None:
        """Check that these options, where they are given, are at least 1.

        Raises:
            ValueError: names the option and its value.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is at least 1: got {value}")

    def run(self) -> int:
        """Run the benchmark and return its exit code."""
        raise NotImplementedError(f"{type(self).__name__} does not define run")


@dataclass(frozen=True)
class Measurement:
    """One measurement: its unique key, the columns that describe it, and the function that takes it."""

    key: str
    columns: Mapping[str, Any]
    measure: Callable[[], Mapping[str, Any]] = field(compare=False)


def take_measurements(results: Results, measurements: Sequence[Measurement], title: str, *, bar: bool = True) -> None:
    """Take every measurement that is not finished, saving after each; where one fails, its row says why in `error`.

    Failed ones are tried again when the run is. `bar=False` prints lines, for those that show their own progress.

    Raises:
        ValueError: a finished one has other columns; nothing is measured then.
    """
    pending = [x for x in measurements if not results.finished(x.key, x.columns)]
    if len(pending) < len(measurements):
        print(f"{title}: {len(measurements) - len(pending)} of {len(measurements)} measurements are finished already")
    with _progress(title, len(pending), bar and sys.stderr.isatty()) as advance:
        for measurement in pending:
            advance(measurement.key)
            try:
                values = dict(measurement.measure())
            except MEASUREMENT_ERRORS as error:
                values = {"error": " ".join(str(error).split())[:500] or type(error).__name__}
                print(f"  {measurement.key}: {values['error']}", file=sys.stderr)
            results.add(measurement.key, **measurement.columns, **values)
    failed = sum("error" in row for row in results.rows)
    print(f"{title}: {len(results.rows)} rows, {failed} without a result, in {results.path}")


@contextmanager
def _progress(title: str, total: int, live: bool) -> Iterator[Callable[[str], None]]:
    """A function to call with the key of every measurement before it is taken: a bar on a terminal, lines elsewhere."""
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
