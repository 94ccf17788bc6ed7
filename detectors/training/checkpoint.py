"""Atomic checkpoints: written to a temporary folder, synced, renamed, and verified by digest when read."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detectors.atomic import write_atomically
from detectors.errors import InputError

MANIFEST, STATE, WEIGHTS = "checkpoint.json", "state.safetensors", "model.safetensors"


class DamagedCheckpoint(InputError):
    """A checkpoint differs from what was written."""


class Checkpoints:
    """The `last` checkpoint of a run folder and the `previous` one.

    A checkpoint is a folder with `model.safetensors` and its `config.json`, as `from_pretrained` reads them,
    `state.safetensors` to go on from, and a manifest with the position in the run and every file's digest.
    """

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last"
        self.previous = folder / "previous"

    def exist(self) -> bool:
        """Whether there is any, intact or not."""
        return self.last.exists() or self.previous.exists()

    def save(self, write_model: Callable[[Path], None], state: Mapping[str, Tensor], position: dict[str, Any]) -> None:
        """Write a new `last`; the old one becomes `previous`. A kill at any moment leaves at least one whole.

        Raises:
            OSError: if it cannot be written; the old ones are then as they were.
        """
        from safetensors.torch import save_file

        def write(folder: Path) -> None:
            write_model(folder)
            # Copies: tensors must not share memory, and a strided one is stored as a contiguous one.
            tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
            save_file(tensors, folder / STATE)
            digests = {path.name: _digest(path) for path in sorted(folder.iterdir())}
            _write_json(folder / MANIFEST, {"position": position, "digests": digests})

        partial = write_beside(self.last, write)
        if self.last.exists():
            shutil.rmtree(self.previous, ignore_errors=True)
            self.last.rename(self.previous)
        partial.rename(self.last)
        _sync(self.last.parent)

    def record(self, position: dict[str, Any]) -> None:
        """Move the position of `last` on without a change of state."""
        manifest = json.loads((self.last / MANIFEST).read_text(encoding="utf-8"))
        write_atomically(self.last / MANIFEST, lambda file: _write_json(file, {**manifest, "position": position}))
        _sync(self.last)

    def load(self, *, previous: bool = False) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
        """The newest checkpoint, or with `previous` the one before: its folder, state and position.

        Raises:
            FileNotFoundError: there is none.
            DamagedCheckpoint: it is damaged; says whether the one before is intact.
        """
        from safetensors.torch import load_file

        # A kill between two renames leaves no `last`; then `previous` is the newest.
        folder = self.previous if previous or not self.last.exists() else self.last
        if not folder.exists():
            raise FileNotFoundError(f"there is no checkpoint in {folder.parent}: nothing to resume")
        fault = fault_of(folder)
        if fault:
            offer = "there is no intact one before it"
            if folder == self.last and self.previous.exists() and not fault_of(self.previous):
                step = _manifest(self.previous)["position"].get("step")
                offer = f"the one before it (step {step}) is intact: resume with --resume --previous"
            raise DamagedCheckpoint(f"the checkpoint {folder} is damaged: {fault}; {offer}")
        if folder == self.previous and self.last.exists():
            shutil.rmtree(self.last)  # else the next save would put it in the place of the intact one
        return folder, load_file(folder / STATE), _manifest(folder)["position"]


def write_beside(folder: Path, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a new folder beside `folder`, synced to the disk; what is there is only touched by a rename."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        for path in (*partial.iterdir(), partial):
            _sync(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # above all where the disk is full
        raise
    return partial


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a new folder and put it in the place of the old one."""
    partial = write_beside(folder, write)
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def fault_of(folder: Path) -> str:
    """Fault of a checkpoint in words, empty if it has none."""
    try:
        digests = _manifest(folder)["digests"]
        for name, digest in digests.items():
            if _digest(folder / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    return ""


def _manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TrainingStopped(RuntimeError):
    """A run ended early for a reason that its user can do something about; a checkpoint is there."""


@contextlib.contextmanager
def disk_errors(checkpoints: Checkpoints) -> Iterator[None]:
    """Turn a full disk into a `TrainingStopped` that names the checkpoint to go on from."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        intact = next((f for f in (checkpoints.last, checkpoints.previous) if f.exists() and not fault_of(f)), None)
        kept = f"the checkpoint {intact} is intact" if intact else "there is no checkpoint yet"
        raise TrainingStopped(
            f"the disk of {checkpoints.last.parent} is full ({error}); {kept}. Make room, then go on with --resume"
        ) from error
    except Exception as error:  # safetensors reports a full disk by an error of its own
        if "No space left" not in str(error):
            raise
        raise TrainingStopped(f"the disk of {checkpoints.last.parent} is full; make room, then --resume") from error
