"""Text files of annotation formats, whose encoding is UTF-8 with or without a mark."""

from pathlib import Path


def read_lines(file: Path | str) -> list[str]:
    """The lines of a text file that are not empty, stripped.

    Raises:
        ValueError: it is no UTF-8; names the file.
    """
    try:
        with open(file, "rb") as opened:
            text = opened.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from None
    return [stripped for line in text.splitlines() if (stripped := line.strip())]
