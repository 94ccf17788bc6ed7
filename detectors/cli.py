"""The command line of the detectors: `python -m detectors COMMAND`.

Each command is a dataclass in `detectors.commands`, of which tyro makes the arguments and the help.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS = ("train", "eval", "predict", "check", "export", "demo", "info", "models")

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
    try:
        import tyro
    except ImportError:
        return _fail("the command line needs tyro and rich: pip install 'feature-pyramids[train]'")
    command = tyro.extras.subcommand_cli_from_dict(
        {name: _command_class(name) for name in COMMANDS},
        prog="python -m detectors",
        description="Train, evaluate and use detectors on feature pyramids.",
        args=sys.argv[1:] if args is None else list(args),
    )
    try:
        code: int = command.run()
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] in ("detectors", "pyramids"):
            raise
        return _fail(f"this command needs {error.name}: pip install 'feature-pyramids[train,export]'")
    except USER_ERRORS as error:
        return _fail(" ".join(str(error).split()) or type(error).__name__)
    return code


def _command_class(name: str) -> Any:
    return getattr(importlib.import_module(f"detectors.commands.{name}"), name.capitalize())


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
