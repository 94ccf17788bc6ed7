"""The command line of the detectors: `python -m detectors COMMAND`.

Each command is a dataclass in `detectors.commands`, from which tyro makes the arguments and the help.
"""

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

from detectors.errors import InputError

COMMANDS = ("train", "eval", "predict", "serve", "check", "convert", "export", "demo", "info", "models")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `args` are those of the process if None.

    An `InputError` and an error of the file system become one line on stderr and the exit code 2, as bad arguments do.
    A defect, and with `--debug` any error, keeps its traceback.

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
        package: of the commands, each a module with a dataclass of the same name that has `run() -> int`.
        names: of the commands.
        description: of the program, for `--help`.
        args: the arguments; those of the process if None.
        program: the module that is run.
        interrupted: message after Ctrl-C.

    Raises:
        SystemExit: from the parser.
    """
    try:
        import tyro
    except ImportError:
        return _fail("the command line needs tyro and rich: pip install 'feature-pyramids[train]'")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a class name that the terminal cannot show is no reason to stop
    ours = {"pyramids", "detectors", package.partition(".")[0]}
    args = sys.argv[1:] if args is None else list(args)
    debug = "--debug" in args
    command = tyro.extras.subcommand_cli_from_dict(
        {name: command_class(package, name) for name in names},
        prog=f"python -m {program}",
        description=f"{description} With --debug, every error shows its traceback.",
        args=[arg for arg in args if arg != "--debug"],
    )
    if hasattr(command, "explicit"):
        command.explicit = named_options(args)
    try:
        code: int = command.run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] in ours:
            raise
        hint = f"this command needs {error.name}: pip install 'feature-pyramids[train,export]'"
        return _fail(str(error) if "pip install" in str(error) else hint)
    except (InputError, OSError) as error:
        if debug:
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__)
    return code


def named_options(args: Sequence[str]) -> frozenset[str]:
    """Names of the options on a command line, as fields of a command, whatever their values.

    >>> sorted(named_options(["train", "--batch-size", "8", "--no-flip", "--no_zoom_out", "--lr=1e-3"]))
    ['batch_size', 'flip', 'lr', 'zoom_out']
    """
    words = (arg.partition("=")[0].removeprefix("--") for arg in args if arg.startswith("--"))
    return frozenset(word.replace("-", "_").removeprefix("no_") for word in words)


def command_class(package: str, name: str) -> Any:
    """The dataclass of a command."""
    return getattr(importlib.import_module(f"{package}.{name}"), name.capitalize())


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
