"""`python -m benchmarks gpu`: the tests that need a GPU and every benchmark's `gpu` budget, in a given time."""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.ablation import table_rows
from benchmarks.experiment import RECIPES
from benchmarks.results import Results, command_line
from detectors.errors import InputError
from detectors.training.backbone_weights import package_for

_ROOT = Path(__file__).parents[1]
_REPORT_SECONDS = 60.0
_GRACE_SECONDS = 15.0
"""Time for a step to stop and save, once its limit is reached."""


@dataclass(frozen=True)
class Step:
    """One command after `python -m`, its share of the time, and a file of an earlier step that it reads, if any."""

    name: str
    command: tuple[str, ...]
    share: float
    needs: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The end of a step: `finished`, `stopped` at its limit, `failed` with an exit code, or `skipped`."""

    word: str
    detail: str = ""
    seconds: float = 0.0


REPORT = Step("report", ("benchmarks", "report"), 1)

LEFT_OUT = {
    "real": "it trains on pictures of yours, which --data names",
    "allocator": "it measures the memory of the CPU",
    "training": "it measures a run that was trained on pictures of yours, by --run-folder and --data",
}
"""Benchmarks that are not part of the plan, and why."""


def plan(output: Path) -> list[Step]:
    """Steps in order, each with its share of the time; results go to `output`.

    The trained comparisons run one seed; the same commands without `--seeds` add the others to the same files. The
    ablation begins with the most compared rows, since its time is not enough for all.
    """

    def benchmark(name: str, share: float, *options: str, needs: str = "") -> Step:
        command = ("benchmarks", name, "--budget", "gpu", "--device", "cuda", "--output", output.as_posix(), *options)
        return Step(name, command, share, output / needs if needs else None)

    trained = (output / "runs/ablation/mlfpn/seed0").as_posix()
    return [
        Step("tests", ("pytest", "-m", "cuda", "tests"), 150),
        benchmark("nms", 60),
        benchmark("speed", 200),
        benchmark("necks", 180),
        benchmark("loader", 60),
        benchmark("gradients", 60),
        benchmark("ablation", 300, "--seeds", "1", "--rows", *_first_rows()),
        benchmark("complexity", 75, needs="ablation.json"),
        benchmark("activations", 60, "--model", trained, needs="runs/ablation/mlfpn/seed0/last"),
        benchmark("variants", 100, "--seeds", "1"),
    ]


def _first_rows() -> list[str]:
    """Keys of all rows of the ablation, the most compared first."""
    first = ["mlfpn", "pafpn-2", "fpn-2", "ssd"]
    return [*first, *(row.key for row in table_rows(RECIPES["gpu"]) if row.key not in first)]


def time_limits(steps: Sequence[Step], seconds: float) -> list[float]:
    """Seconds for each step, by its share, if every step takes all of its own.

    >>> time_limits([Step("a", (), 1), Step("b", (), 3)], 60)
    [15.0, 45.0]
    """
    total = sum(step.share for step in steps)
    return [seconds * step.share / total for step in steps]


def missing() -> list[str]:
    """The requirements of a run on the GPU that this machine or installation lacks, in words."""
    lacks = []
    if torch.version.cuda is None:
        lacks.append(f"a torch with CUDA: {torch.__version__} is built without it")
    elif not torch.cuda.is_available():
        lacks.append(f"a CUDA GPU: torch {torch.__version__} sees none")
    packages = ("triton", "pytest", "matplotlib", "accelerate")
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    lacks += [f"the package {package}: pip install -e '.[dev]'" for package in absent]
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        lacks.append("a C compiler (cc, gcc or clang), which Triton and torch.compile call")
    if not (_ROOT / "tests").is_dir():
        lacks.append(f"the tests: {_ROOT} is not a checkout of the repository")
    return lacks


@dataclass(kw_only=True)
class Gpu:
    """Run the tests that need a GPU and every benchmark's `gpu` budget in a given time, then write the results pages.

    Each step has its share of the time; time that one leaves goes to later ones. A step that reaches its limit keeps
    its finished measurements, and the same command continues from them.
    """

    output: Path | None = None
    """Folder of the results files; `docs/results/data/` and the GPU's name if not given."""
    minutes: float = 20.0
    """Time for all steps together."""
    dry_run: bool = False
    """Only show the commands, their time limits, and what is missing here."""

    def run(self) -> int:
        if not self.minutes > 1:
            raise InputError(f"--minutes is more than 1: got {self.minutes}")
        lacks = missing()
        output = self._output(known=not lacks)
        seconds = self.minutes * 60 - _REPORT_SECONDS
        steps = plan(output)
        for step, limit in zip(steps, time_limits(steps, seconds)):
            print(f"{limit:4.0f} s  {shlex.join(['python', '-m', *step.command])}")
        print(f"{_REPORT_SECONDS:4.0f} s  {shlex.join(['python', '-m', *REPORT.command])}")
        for name, reason in LEFT_OUT.items():
            print(f"left out: {name}, because {reason}")
        if package_for(RECIPES["gpu"].backbone) is None:
            print(f"note: no package with weights of {RECIPES['gpu'].backbone} is installed: training starts from none")
        for lack in lacks:
            print(f"missing: {lack}")
        if self.dry_run:
            return 0
        if lacks:
            raise InputError(f"cannot run on a GPU here, for want of {'; '.join(lacks)}")
        return self._run_steps(steps, output, time.monotonic() + seconds)

    def _output(self, known: bool) -> Path:
        """The folder of results, relative to the checkout where it lies in it."""
        if self.output is None:
            name = torch.cuda.get_device_name() if known else "GPU"
            return Path("docs/results/data", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
        output = self.output.resolve()
        return output.relative_to(_ROOT) if output.is_relative_to(_ROOT) else output

    def _run_steps(self, steps: Sequence[Step], output: Path, deadline: float) -> int:
        record = Results(_ROOT / output, "gpu", torch.device("cuda"), {})
        outcomes = {}
        for number, step in enumerate(steps):
            limit = time_limits(steps[number:], max(deadline - time.monotonic(), 0))[0]
            outcome = run_step(step, limit)
            outcomes[step.name] = outcome
            record.add(
                step.name, command=command_line(step.command[0], step.command[1:]), limit=round(limit), **vars(outcome)
            )
        outcomes["report"] = run_step(REPORT, _REPORT_SECONDS)
        print()
        for name, outcome in outcomes.items():
            print(f"{name:12} {outcome.word:9} {outcome.seconds:5.0f} s  {outcome.detail}")
        return 1 if any(outcome.word == "failed" for outcome in outcomes.values()) else 0


def run_step(step: Step, limit: float) -> Outcome:
    """Run a step; at its limit it is interrupted as by Ctrl-C, and killed where that does not end it.

    `limit` is in seconds and includes the time to stop.
    """
    if step.needs is not None and not (_ROOT / step.needs).exists():
        return Outcome("skipped", f"there is no {step.needs} from an earlier step")
    print(f"\n== {step.name}: {shlex.join(['python', '-m', *step.command])} (at most {limit:.0f} s)", flush=True)
    began = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # SIGINT is ignored in a background job of a shell; a step would inherit that and never be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen([sys.executable, "-m", *step.command], cwd=_ROOT, env=environment) as process:
        word = "finished"
        try:
            process.wait(max(limit - _GRACE_SECONDS, 1.0))
        except subprocess.TimeoutExpired:
            word = "stopped"
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    seconds = round(time.monotonic() - began, 1)
    if word == "stopped":
        return Outcome(word, "at its limit: finished measurements are kept, and the same command continues", seconds)
    if process.returncode != 0:
        return Outcome("failed", f"exit code {process.returncode}", seconds)
    return Outcome(word, "", seconds)
