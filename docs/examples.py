"""Griffe extension: `>>>` examples in docstrings become code blocks of the reference."""

from typing import Any

import griffe


def fence(text: str) -> str:
    """The text with a fence around every example; an example ends at a blank line."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if not inside and line.lstrip().startswith(">>> "):
            inside = True
            lines += ["", "```pycon"]
        elif inside and not line.strip():
            inside = False
            lines.append("```")
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)


class FenceExamples(griffe.Extension):
    """Applies `fence` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = fence(obj.docstring.value)
