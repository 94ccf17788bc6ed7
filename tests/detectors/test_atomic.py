"""A file is whole or not there."""

from pathlib import Path

import pytest

from detectors.atomic import write_atomically


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half of the n")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    seen = []

    def write(partial: Path) -> None:
        seen.append((path.read_text(), partial.suffix, partial.parent))
        partial.write_text("new")

    write_atomically(path, write)
    assert seen == [("old", ".json", tmp_path)]
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
