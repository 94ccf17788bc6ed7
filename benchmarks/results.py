"""Results files: rows of measurements with command, commit and environment, written atomically.

A results file is JSON: `schema`, `benchmark`, `command`, `commit`, `environment` (versions and the device), `settings`
and `rows`. Every row has a `key`, unique in the file, so that an interrupted run goes on where it stopped; one that was
measured at another commit than the file's first has that `commit`, or on a processor of another instruction set those
`instructions`.
"""

import fcntl
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from detectors.errors import InputError

SCHEMA = 1
_ROOT = Path(__file__).parents[1]


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def command_line(module: str, words: Sequence[str]) -> str:
    """A command as results name it, with absolute paths by their last parts: a machine's folders tell others nothing.

    >>> command_line("benchmarks", ["real", "--data", "/home/me/bccd/", "--output=/tmp/out"])
    'python -m benchmarks real --data bccd --output=out'
    """
    shown = [re.sub(r"^(-[^=]+=)?/(?:.*/)?([^/]+)/?$", r"\1\2", word) for word in words]
    return shlex.join(["python", "-m", module, *shown])


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            " with changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(device: torch.device) -> dict[str, str]:
    """Versions and the device's name, as they stand in every results file."""
    return {
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "platform": platform.platform(),
    }


class Results:
    """The rows of one benchmark in `folder/NAME.json`, which is saved after each.

    An existing file is continued, if it was made with the same settings. Several processes may fill one file: each adds
    its rows to what the others have written.

    Args:
        folder: where the file lies; made if it is not there.
        benchmark: name of the benchmark and the file.
        device: the device that is measured.
        settings: values that the measurements depend on, as plain JSON.
        timed: whether the measurements are timings, which all have to come from processors of one instruction set.

    Raises:
        ValueError: for a file of another schema, another device, other settings or, if timed, another instruction set,
            or one that is not a results file; it stays as it is.
    """

    def __init__(
        self, folder: Path, benchmark: str, device: torch.device, settings: Mapping[str, Any], *, timed: bool = True
    ) -> None:
        self.path = Path(folder) / f"{benchmark}.json"
        self.rows: list[dict[str, Any]] = []
        self._head = {
            "schema": SCHEMA,
            "benchmark": benchmark,
            "command": command_line("benchmarks", sys.argv[1:]),
            "commit": _commit(),
            "environment": environment(device),
            "settings": json.loads(json.dumps(settings)),
        }
        self._origin = _origin(self._head)
        if self.path.exists():
            old = read_results(self.path)
            compared = [("settings", self._head["settings"], old["settings"])]
            names = ("device", "instructions") if timed and "instructions" in old["environment"] else ("device",)
            compared += [(name, self._head["environment"][name], old["environment"][name]) for name in names]
            for what, ours, theirs in compared:
                if ours != theirs:
                    raise InputError(
                        f"{self.path} was made with other {what}: {theirs}, not {ours}; choose another --output"
                    )
            self._head, self.rows = {k: v for k, v in old.items() if k != "rows"}, old["rows"]
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def has(self, key: str) -> bool:
        """Whether the row with this key is there."""
        return any(row["key"] == key for row in self.rows)

    def finished(self, key: str, columns: Mapping[str, Any] | None = None) -> bool:
        """Whether the row with this key is there and has a result, not an `error`.

        Args:
            key: of the row.
            columns: what describes the measurement, to compare with the row's; titles and columns that the row lacks
                are not compared.

        Raises:
            ValueError: for a result that was measured with other columns.
        """
        row = next((row for row in self.rows if row["key"] == key and "error" not in row), None)
        if row is None:
            return False
        wanted = json.loads(json.dumps(columns or {}))
        changed = [name for name in wanted if name != "title" and name in row and row[name] != wanted[name]]
        if changed:
            name, before = changed[0], row[changed[0]]
            raise InputError(
                f"{key} in {self.path} was measured with {name} {before}, not {wanted[name]}; choose another --output"
            )
        return True

    def add(self, key: str, **values: Any) -> dict[str, Any]:
        """Add a row, or replace the one with its key, and save."""
        first = _origin(self._head)
        row = {"key": key, **values, **{name: x for name, x in self._origin.items() if x != first[name]}}
        with self._locked():
            written = read_results(self.path)["rows"] if self.path.exists() else self.rows
            self.rows = [r for r in written if r["key"] != key] + [row]
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps({**self._head, "rows": self.rows}, indent=1) + "\n")
            os.replace(partial, self.path)
        return row

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the file, so that one process at a time reads and writes it."""
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _origin(head: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a file's head that a row can have otherwise."""
    return {"commit": head["commit"], "instructions": head["environment"].get("instructions")}


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        ValueError: for a file that is not a results file, or of another schema.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a results file: {error}") from error
    if not isinstance(content, dict) or not {"schema", "benchmark", "rows", "settings", "environment"} <= set(content):
        raise InputError(f"{path} is not a results file: it lacks schema, benchmark, rows, settings or environment")
    if content["schema"] != SCHEMA:
        raise InputError(f"{path} has schema {content['schema']}: this version reads {SCHEMA}; run the benchmark again")
    return content
