"""Test necks against the contract from a shell.

`python -m pyramids.testing` tests every registered neck, `python -m pyramids.testing module:Class` a neck of yours.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..registry import list_necks, neck_class
from .contract import CLAUSES, verdicts
from .small import small_neck
from .subject import build_neck


def find_neck(target: str) -> Callable[[], nn.Module]:
    """The builder of a target's neck: a registered name, or `module:Class` (a class, function or neck).

    Raises:
        ValueError: for a target that leads nowhere.
    """
    module_name, colon, path = target.partition(":")
    if not colon:
        neck_class(target)
        return lambda: small_neck(target)
    found: Any
    try:
        found = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{target}: {error}") from error
    return lambda: build_neck(found)


def check(target: str, build: Callable[[], nn.Module], clauses: Sequence[str] | None, max_examples: int) -> bool:
    """Check one neck and print a line per clause; whether it keeps all of them."""
    print(f"{target}", flush=True)
    try:
        neck = build()
    except Exception as error:
        print(f"  FAIL  it cannot be built: {type(error).__name__}: {error}")
        return False
    good = True
    start = time.perf_counter()
    for verdict in verdicts(neck, clauses=clauses, max_examples=max_examples):
        seconds = time.perf_counter() - start
        text = CLAUSES[verdict.clause] if verdict.outcome == "pass" else verdict.reason.replace("\n", "\n        ")
        mark = verdict.outcome.upper() if verdict.outcome == "fail" else verdict.outcome
        print(f"  {mark}  {verdict.clause:<14} {seconds:5.1f} s  {text}", flush=True)
        good &= verdict.outcome != "fail"
        start = time.perf_counter()
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 where every neck keeps every clause, 1 where one does not, 2 for a target that leads nowhere."""
    parser = argparse.ArgumentParser(
        prog="python -m pyramids.testing",
        description="Test necks against the neck contract of pyramids.",
        epilog="Clauses: " + ", ".join(CLAUSES),
    )
    parser.add_argument("targets", nargs="*", metavar="NAME|MODULE:CLASS", help="default: every registered neck")
    parser.add_argument("--clauses", nargs="+", choices=CLAUSES, metavar="CLAUSE", help="default: all")
    parser.add_argument("--max-examples", type=int, default=100, metavar="N", help="hypothesis examples, default 100")
    options = parser.parse_args(arguments)
    targets = options.targets or list_necks()
    try:
        builders = {target: find_neck(target) for target in targets}
    except ValueError as error:
        print(f"python -m pyramids.testing: {error}", file=sys.stderr)
        return 2
    broken = [t for t, build in builders.items() if not check(t, build, options.clauses, options.max_examples)]
    print(f"\n{len(broken)} of {len(targets)} break the contract: {', '.join(broken)}" if broken else "\nall good")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
