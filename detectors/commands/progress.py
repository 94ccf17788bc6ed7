"""The progress bar of commands that go through images."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` images are done and how many per second, on stderr if that is a terminal.

    Yields a function to call with the number of further images done; `total=None` is an unknown number.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    began, done = time.perf_counter(), 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]} images/s"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=total, speed="-")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, completed=done, speed=f"{done / (time.perf_counter() - began):.1f}")

        yield advance
