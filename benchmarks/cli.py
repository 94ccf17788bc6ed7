"""The command line of the benchmarks: `python -m benchmarks COMMAND`.

Each command is a dataclass named after it in a module named after it, of which tyro makes the arguments and the help.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS = ("necks", "ablation", "variants", "complexity", "speed", "nms", "activations", "report")

# What a user's input can cause. Anything else is a defect of ours and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `args` are those of the process if None.

    An error that comes of the input becomes one line on stderr and the exit code 2, as bad arguments do.

    Raises:
        SystemExit: from the parser: 0 after `--help`, 2 for arguments that do not fit.
    """
    try:
        import tyro
    except ImportError:
        return _fail("the command line needs tyro and rich: pip install 'feature-pyramids[train]'")
    command = tyro.extras.subcommand_cli_from_dict(
        {name: _command_class(name) for name in COMMANDS},
        prog="python -m benchmarks",
        description="Measure feature pyramids against each other: cost, speed, memory and accuracy.",
        args=sys.argv[1:] if args is None else list(args),
    )
    try:
        code: int = command.run()
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept; the same command goes on", file=sys.stderr)
        return 130
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] in ("benchmarks", "detectors", "pyramids"):
            raise
        return _fail(f"this command needs {error.name}: pip install 'feature-pyramids[train]'")
    except USER_ERRORS as error:
        return _fail(" ".join(str(error).split()) or type(error).__name__)
    return code


def _command_class(name: str) -> Any:
    return getattr(importlib.import_module(f"benchmarks.{name}"), name.capitalize())


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
