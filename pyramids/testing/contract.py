"""The clauses of the neck contract by name, and `check_neck`, which holds a neck against them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unittest import SkipTest

import torch
from torch import nn

from . import deployment, numerics, shapes, state, training
from .subject import NeckOrFactory, build_neck

Clause = Callable[[nn.Module, int], None]

_clauses: tuple[Clause, ...] = (
    shapes.declares,
    shapes.sizes,
    shapes.refuses,
    training.trains,
    training.gradients,
    numerics.deterministic,
    numerics.batch,
    numerics.channels_last,
    numerics.autocast,
    numerics.nan,
    state.stateless,
    state.own_weights,
    state.copies,
    state.state_dict,
    deployment.compiles,
    deployment.exports,
    deployment.onnx,
)
CLAUSES: dict[str, str] = {clause.__name__: (clause.__doc__ or "").strip() for clause in _clauses}
"""Promises of a neck: the name of each clause and what it says, in the order in which they are checked.

>>> from pyramids.testing import CLAUSES
>>> list(CLAUSES)[:3]
['declares', 'sizes', 'refuses']
"""


@dataclass(frozen=True)
class Verdict:
    """Outcome of one clause; `reason` says why it failed or was skipped."""

    clause: str
    outcome: Literal["pass", "fail", "skip"]
    reason: str = ""
    cause: BaseException | None = None


def check_neck(
    neck: NeckOrFactory, *, clauses: Sequence[str] | None = None, max_examples: int = 100, **kwargs: Any
) -> None:
    """Test that a neck keeps the contract of `pyramids.Neck`, which it need not subclass.

    The neck itself is left as it was; every clause works on a copy.

    Args:
        neck: a neck, a neck class (built with 8, 16, 24, ... channels at its `default_strides`) or a function that
            returns a neck. Narrow necks are checked faster.
        clauses: names out of `CLAUSES`; None means all.
        max_examples: hypothesis examples for the clause `sizes`; other clauses over all sizes take a tenth of it.
        **kwargs: further arguments for a class or a function.

    Raises:
        AssertionError: at the first clause that the neck breaks; names it and says how it is broken.
        TypeError: for something that neither is nor builds a neck.
        ValueError: for an unknown clause.

    A clause whose tools are not installed is skipped with a warning.

    >>> from pyramids import MLFPN
    >>> check_neck(MLFPN, num_levels=2, num_scales=3, channels=8, clauses=["declares", "sizes"], max_examples=10)
    """
    subject = build_neck(neck, **kwargs)
    for verdict in verdicts(subject, clauses=clauses, max_examples=max_examples):
        if verdict.outcome == "skip":
            warnings.warn(f"clause {verdict.clause!r} was not checked: {verdict.reason}", stacklevel=2)
        if verdict.outcome == "fail":
            message = (
                f"{type(subject).__name__} breaks clause {verdict.clause!r} of the neck contract: {verdict.reason}\n"
                f"The clause says: {CLAUSES[verdict.clause]}"
            )
            raise AssertionError(message) from verdict.cause


def verdicts(neck: nn.Module, *, clauses: Sequence[str] | None = None, max_examples: int = 100) -> Iterator[Verdict]:
    """Hold a neck against each clause in turn.

    Raises:
        ValueError: for an unknown clause, or `max_examples < 1`.
    """
    unknown = [name for name in clauses or () if name not in CLAUSES]
    if isinstance(clauses, str) or unknown:
        raise ValueError(f"clauses is a list of names out of {', '.join(CLAUSES)}: got {clauses!r}")
    if max_examples < 1:
        raise ValueError(f"max_examples is at least 1: got {max_examples}")
    return (_judge(c, neck, max_examples) for c in _clauses if clauses is None or c.__name__ in clauses)


def _judge(clause: Clause, neck: nn.Module, max_examples: int) -> Verdict:
    name = clause.__name__
    try:
        # TF32 would blur comparisons in float32 on a GPU.
        with torch.random.fork_rng(devices=[]), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            torch.manual_seed(0)
            clause(neck, max_examples)
    except SkipTest as skipped:
        return Verdict(name, "skip", str(skipped))
    except AssertionError as broken:
        return Verdict(name, "fail", str(broken), broken)
    except Exception as error:
        return Verdict(name, "fail", f"{type(error).__name__}: {error}", error)
    return Verdict(name, "pass")
