"""Atomic file writes, and the check of where they go."""

import os
from collections.abc import Callable
from pathlib import Path


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise an error for a path that no file can be written to, before its content is computed.

    Raises:
        FileNotFoundError: if there is no folder to write it to.
        IsADirectoryError: if it is a folder itself.

    >>> import tempfile
    >>> check_target(Path(tempfile.mkdtemp()) / "notes.txt")
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: expected a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")


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
