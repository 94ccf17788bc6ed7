"""The command line of the benchmarks: `python -m benchmarks COMMAND`.

Each command is a dataclass named after it in a module named after it, of which tyro makes the arguments and the help.
"""

from collections.abc import Sequence

from detectors.cli import run_command

COMMANDS = (
    "necks",
    "ablation",
    "variants",
    "complexity",
    "speed",
    "nms",
    "training",
    "real",
    "loader",
    "activations",
    "gradients",
    "allocator",
    "gpu",
    "report",
)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, as `detectors.cli.main` does; `args` are those of the process if None."""
    description = "Measure feature pyramids against each other: cost, speed, memory and accuracy."
    interrupted = "interrupted: finished measurements are kept; the same command continues"
    return run_command("benchmarks", COMMANDS, description, args, "benchmarks", interrupted)
