"""The command line of the detectors: `python -m detectors COMMAND`.

Each command is a dataclass in `detectors.commands`, of which tyro makes the arguments and the help.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS = ("train", "eval", "predict", "check", "convert", "export", "demo", "info", "models")

# What a user's input can cause. Anything else is a defect of ours and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `args` are those of the process if None.

    An error that comes of the input becomes one line on stderr and the exit code 2, as bad arguments do.

    Raises:
        SystemExit: from the parser: 0 after `--help`, 2 for arguments that do not fit.

    >>> from detectors.cli import main
    >>> main(["info", "m2det_320_vgg61"])
    2
    """
    return run_command(
        "detectors.commands", COMMANDS, "Train, evaluate and use detectors on feature pyramids.", args, "detectors"
    )


def run_command(
    package: str,
    names: Sequence[str],
    description: str,
    args: Sequence[str] | None,
    program: str,
    interrupted: str = "interrupted",
) -> int:
    """Parse the command line of `python -m program`, run the command that it names and return its exit code.

    Args:
        package: where each command lies, in a module of its name, as a dataclass of its name with `run() -> int`.
        names: of the commands.
        description: of the program, for `--help`.
        args: the arguments; those of the process if None.
        program: the module that is run.
        interrupted: what to say after Ctrl-C.

    Raises:
        SystemExit: from the parser.
    """
    try:
        import tyro
    except ImportError:
        return _fail("the command line needs tyro and rich: pip install 'feature-pyramids[train]'")
    command = tyro.extras.subcommand_cli_from_dict(
        {name: command_class(package, name) for name in names},
        prog=f"python -m {program}",
        description=description,
        args=sys.argv[1:] if args is None else list(args),
    )
    try:
        code: int = command.run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] in ("benchmarks", "detectors", "pyramids"):
            raise
        return _fail(f"this command needs {error.name}: pip install 'feature-pyramids[train,export]'")
    except USER_ERRORS as error:
        return _fail(" ".join(str(error).split()) or type(error).__name__)
    return code


def command_class(package: str, name: str) -> Any:
    """The dataclass of a command."""
    return getattr(importlib.import_module(f"{package}.{name}"), name.capitalize())


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
