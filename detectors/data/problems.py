"""Problems of a data set: errors lose annotations, notes report what was changed without a loss."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Problem:
    """Something that is dropped, changed or missing: `where` it stands and the `reason`; equal ones share a `kind`."""

    where: str
    reason: str
    severity: Severity = "error"
    kind: str = ""

    def to_json(self) -> dict[str, str]:
        """A plain dict of all fields."""
        return {"where": self.where, "reason": self.reason, "severity": self.severity, "kind": self.kind or self.reason}


def note(where: str, reason: str, kind: str = "") -> Problem:
    """A problem that loses nothing."""
    return Problem(where, reason, "note", kind)


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that lose something."""
    return [problem for problem in problems if problem.severity == "error"]


def count_of(problems: Sequence[Problem]) -> str:
    """Their number as words: "1 error", "2 errors"."""
    return f"{len(problems)} error{'s' * (len(problems) != 1)}"


class Group(NamedTuple):
    """Equal problems, for display."""

    severity: Severity
    kind: str
    problems: list[Problem]

    def lines(self, shown: int = 3) -> list[str]:
        """One line for a single problem; for more, their number, and then the first ones."""
        if len(self.problems) == 1:
            [problem] = self.problems
            return [f"{self.severity}: {problem.where}: {problem.reason}"]
        lines = [f"{self.severity}: {self.kind}: {len(self.problems)} times"]
        lines += [f"  {problem.where}: {problem.reason}" for problem in self.problems[:shown]]
        return lines + ([f"  and {len(self.problems) - shown} more"] if len(self.problems) > shown else [])


def grouped(problems: Sequence[Problem]) -> list[Group]:
    """Groups of equal problems, errors first, each in the order in which they were found.

    >>> found = [note("a", "clipped"), Problem("b", "no area"), note("c", "clipped")]
    >>> [(group.kind, len(group.problems)) for group in grouped(found)]
    [('no area', 1), ('clipped', 2)]
    """
    found: dict[tuple[Severity, str], list[Problem]] = {}
    for problem in problems:
        found.setdefault((problem.severity, problem.kind or problem.reason), []).append(problem)
    groups = [Group(severity, kind, members) for (severity, kind), members in found.items()]
    return sorted(groups, key=lambda group: group.severity != "error")
