"""The folder of a run: who may write there, its configuration, environment, log and metrics."""

import importlib.metadata
import json
import logging
import logging.handlers
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detectors.atomic import write_atomically

CONFIG, LOG, ENVIRONMENT, HELD_OUT = "config.json", "train.log", "environment.json", "held_out.json"
LOGGER = logging.getLogger("detectors.training")
_PACKAGES = ("feature-pyramids", "torch", "torchvision", "timm", "numpy", "accelerate", "faster-coco-eval", "pillow")


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a run may write to a folder; changes nothing.

    Raises:
        FileExistsError: a run is there and neither is asked for, or the folder is not a run.
        FileNotFoundError: there is no run to resume.
    """
    is_run = (folder / CONFIG).is_file()
    if resume:
        if not is_run:
            raise FileNotFoundError(f"{folder} has no {CONFIG}: there is no run to resume")
        return
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: a run needs a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not is_run:
            raise FileExistsError(f"{folder} is not empty and not a run folder: give another --output")
        if not overwrite:
            raise FileExistsError(f"{folder} holds a run: continue it with --resume, or start over with --overwrite")


def make_folder(folder: Path) -> None:
    """An empty folder for a new run; what an earlier run left is deleted."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


class RunLog:
    """The log of training, on the screen and, once there is a run folder, in a file that gets the earlier lines too.

    A context manager. `screen.show` may be set, for lines to appear above a progress bar.
    """

    def __init__(self, enabled: bool) -> None:
        self._logger = LOGGER
        self._before = (self._logger.handlers, self._logger.level)
        self.screen = _Screen(_print if enabled else _silent)
        # Holds lines back until there is a file for them.
        self._memory = logging.handlers.MemoryHandler(1_000_000, logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.FileHandler | None = None

    def __enter__(self) -> "RunLog":
        self._logger.handlers = [self.screen, self._memory]
        self._logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.handlers, level = self._before
        self._logger.setLevel(level)
        for handler in (self.screen, self._memory, self._file):
            if handler is not None:
                handler.close()

    def write_to(self, file: Path) -> None:
        self._file = logging.FileHandler(file, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._memory.setTarget(self._file)
        self._memory.flush()
        self._logger.handlers = [self.screen, self._file]


class _Screen(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self.show(mark + record.getMessage())


def _print(text: str) -> None:
    print(text, file=sys.stderr)


def _silent(text: str) -> None:
    pass


def write_json(file: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write JSON so that the file is whole whenever it is there."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def environment() -> dict[str, Any]:
    """Environment of a run: machine, Python, packages and the command."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
