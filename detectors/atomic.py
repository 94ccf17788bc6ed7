"""Atomic file writes."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path`, sync it to the disk, and give it the name `path` in one step.

    A reader finds the old file or the whole new one, after a crash too. The temporary file is hidden and keeps the
    suffix of `path`, by which many writers choose their format; it is removed if `write` raises.

    Raises:
        OSError: if the file cannot be written; what was at `path` is then as it was.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> write_atomically(path, lambda partial: partial.write_text("whole"))
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
