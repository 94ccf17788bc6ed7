"""JSON files that are meant to be COCO's but are damaged: they must be named, or a whole split is lost in silence."""

import json
import re
from pathlib import Path

from detectors.data.split_names import CANONICAL, split_of_name
from detectors.data.tree import parent, stem, without_suffix

KEYS = ("images", "annotations", "categories")
OF_THE_SAME_PICTURES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
"""Beginnings of the names of COCO's files that are no detection files."""

_LFS = b"version https://git-lfs"
_HOLDERS = ("annotations", "annotation")
_PLAIN = ("annotations", "annotation", "labels")
_FIGURES = ("eval", "evaluation", "validate", "validation", "dev")
"""Names of splits that files of figures have too: the content tells which it is."""
_OTHER_CONTENT = frozenset(
    [
        "args",
        "arguments",
        "cfg",
        "config",
        "configs",
        "detections",
        "history",
        "log",
        "logs",
        "metadata",
        "metrics",
        "options",
        "package",
        "params",
        "predictions",
        "preds",
        "report",
        "result",
        "results",
        "settings",
        "state",
        "stats",
        "summary",
    ]
)
"""Words in the names of JSON files that hold no annotations."""


def is_meant(file: str, path: Path, stems: frozenset[str]) -> bool:
    """Whether a JSON file is meant to hold a split's annotations, by its name or place and its content.

    `file` is its place in the data folder, `stems` are the pictures' names: annotations of one picture are no split's.
    """
    name = stem(file)
    if not _claims(file, name) or not stems.isdisjoint((name, without_suffix(name))):
        return False
    if name.lower() in CANONICAL and name.lower() not in _FIGURES:
        return True
    content = path.read_bytes()
    if not content.strip() or content.startswith(_LFS):
        return True
    try:
        loaded = json.loads(content.decode("utf-8-sig"))
    except ValueError:  # JSON and UTF-8 errors both
        return True
    return _is_named_by_a_tool(name) or sum(key in loaded for key in KEYS if isinstance(loaded, dict)) > 1


def json_fault(content: bytes, error: ValueError) -> str:
    """The fault of a file that is not JSON, and its remedy."""
    if not content.strip():
        return "is empty: download or export it again"
    if content.startswith(_LFS):
        return "is a pointer of Git LFS, not the file itself: get it with `git lfs pull`"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        return "is not valid JSON in UTF-8 but in UTF-16 or UTF-32: save it as UTF-8"
    return f"is not valid JSON in UTF-8: {error}; if it was cut short, download or export it again"


def _claims(file: str, name: str) -> bool:
    """Whether name or place say that a file holds a split's annotations."""
    words = re.split(r"[\W_]+", name.lower())
    if name.startswith(OF_THE_SAME_PICTURES) or not _OTHER_CONTENT.isdisjoint(words):
        return False
    held = parent(file).rpartition("/")[2].lower() in _HOLDERS
    return held or name.lower() in _PLAIN or _is_named_by_a_tool(name) or split_of_name(name) is not None


def _is_named_by_a_tool(name: str) -> bool:
    return name.startswith("instances_") or name == "_annotations.coco"
