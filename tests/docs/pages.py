"""Code blocks of a documentation page, and how they are run.

* `python` blocks run in order in one namespace; a `text` block right after one is what it prints.
* `bash` blocks run, `sh` blocks are only parsed: they take long, several machines, or files that are not at hand.
* Other languages are left alone.
"""

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What makes a training run of a guide, all of which are of M2Det, short. Later options count more.
QUICK = ["--epochs", "1", "--batch-size", "4", "--workers", "0", "--backbone-weights", "none", "--device", "cpu"]
QUICK += ["--image-size", "128", "--settings", "neck.num_levels=1", "neck.num_scales=3"]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line it starts at; `printed` is what it should print."""

    language: str
    text: str
    line: int
    printed: str | None = None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, `text` blocks joined to the `python` block right before them."""
    content = page.read_text(encoding="utf-8")
    matches = list(_FENCE.finditer(content))
    found = []
    for match, after in zip(matches, [*matches[1:], None]):
        if match[1] == "text":
            continue
        follows = after is not None and after[1] == "text" and not content[match.end() : after.start()].strip()
        printed = after[2] if after is not None and follows else None
        found.append(Block(match[1], match[2], content.count("\n", 0, match.start()) + 2, printed))
    return found


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Execute a block; what it prints is what the page says, if it says so."""
    out = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(out):
        exec(code, namespace)
    if block.printed is not None:
        assert out.getvalue().strip() == block.printed.strip(), f"{page.name}:{block.line} prints {out.getvalue()}"


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str]) -> None:
    """Run a command of ours in this process; others are parsed."""
    if words[:3] == ["python", "-m", "detectors"]:
        from detectors.cli import main

        assert main([*words[3:], *(QUICK if words[3] == "train" else [])]) == 0, shlex.join(words)
    elif words[:3] == ["python", "-m", "pyramids.testing"]:
        from pyramids.testing.__main__ import main as check

        assert check(words[3:]) == 0, shlex.join(words)
    else:
        parse_command(words)


def parse_command(words: list[str]) -> None:
    """Fail for a command whose launcher or program does not take its arguments."""
    program = words[0]
    if "=$(" in program:  # first=$(scontrol ...): a variable of a job script
        return
    if program == "srun":
        parse_command(words[1:])
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert words[1] == "launch"
        launch = launch_command_parser().parse_args(words[2:])
        assert launch.module
        parse_program(launch.training_script, launch.training_script_args)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        run = get_args_parser().parse_args(words[1:])
        assert run.module
        parse_program(run.training_script, run.training_script_args)
    elif program in ("python", "python3") and words[1] == "-m":
        if words[2] == "venv":
            return
        parse_program(words[2], words[3:])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif program in ("pip", ".venv/bin/pip"):
        check_install(words[1:])
    else:
        assert program in ("git", "cd", "source", "."), f"no test knows the command {shlex.join(words)}"


def parse_program(module: str, args: list[str]) -> None:
    """Parse the arguments of `python -m module`, without running it."""
    import importlib

    import tyro

    if module == "pyramids.testing":
        return
    from detectors.cli import command_class

    package = "detectors.commands" if module == "detectors" else module
    names = importlib.import_module(f"{module}.cli").COMMANDS
    classes = {name: command_class(package, name) for name in names}
    tyro.extras.subcommand_cli_from_dict(classes, args=args)


def check_install(words: list[str]) -> None:
    """`pip install` of this project with extras that it has."""
    import tomllib

    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in words[1:]:
        match = re.fullmatch(r"(?:\.|feature-pyramids)(?:\[([\w,]+)\])?|-e|--editable", word)
        assert match, word
        assert set((match[1] or "").split(",")) - {""} <= set(extras)


def run_page(page: Path) -> None:
    """Run all blocks of a page in order, in the current folder."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language == "python":
            run_python(block, page, namespace)
        elif block.language in ("bash", "sh"):
            for words in commands_of(block):
                (run_command if block.language == "bash" else parse_command)(words)
        else:
            raise AssertionError(f"{page.name}:{block.line}: no rule for a block of {block.language!r}")
