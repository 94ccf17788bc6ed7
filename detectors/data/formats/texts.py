"""Text files of annotation formats, whose encoding is UTF-8 with or without a mark."""

import os
from pathlib import Path
from typing import Any

from detectors.errors import InputError

_SIZE = 1 << 14
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)


def read_lines(file: Path | str) -> list[str]:
    """The lines of a text file that are not empty, stripped.

    Raises:
        ValueError: it is not UTF-8; names the file.
    """
    return lines_of(read_bytes(file), file)


def lines_of(content: bytes, file: Path | str) -> list[str]:
    """The lines of a file's content, as `read_lines` gives them."""
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error}): save it as UTF-8") from None
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def read_bytes(file: Path | str) -> bytes:
    """A file's content in half the time that `open` takes for a small one, since there may be one per picture."""
    descriptor = os.open(file, _FLAGS)
    try:
        content = os.read(descriptor, _SIZE)
        if len(content) == _SIZE:
            while part := os.read(descriptor, 1 << 20):
                content += part
        return content
    finally:
        os.close(descriptor)


def as_number(value: Any) -> float:
    """A number, or text that holds one, as a float.

    Raises:
        TypeError, ValueError: it is none.
        OverflowError: an integer too large for a float, since JSON's are unbounded.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)
