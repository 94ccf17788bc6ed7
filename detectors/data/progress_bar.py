"""A bar on the terminal for pictures that are being decoded."""

import sys
from collections.abc import Iterable
from typing import Any


def progress_bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    """The items, with a bar on stderr where that is a terminal, and one line for it elsewhere."""
    if not sys.stderr.isatty():
        print(f"decoding {total} pictures", file=sys.stderr)
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "decoding pictures", total=total, console=Console(stderr=True), transient=True)
