"""`python -m detectors check`: the health of a data folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detectors.errors import InputError

if TYPE_CHECKING:
    from detectors.data import HealthReport

# The presets' image size.
_USUAL_SIZE = 320
_WIDTH = 80
_LONGEST = 24
"""Characters of a name in a table; longer ones are folded."""


@dataclass
class Check:
    """Report what training will use of a data folder and what it will drop; exits with 1 where there is an error."""

    data: Path
    """Folder in COCO, Pascal VOC or YOLO layout, or its data.yaml, JSON file or zip archive."""
    json: Path | None = None
    """Write the report to this file: for each split `usable_images`, `usable_boxes`, `problems` and counts."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; detected if not given."""
    samples: Path | None = None
    """Write a picture of samples with their boxes to this file."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height and width, of the model's images in pixels: an error if it leaves more than a tenth of the boxes
    under one pixel."""
    suggest_anchors: bool = False
    """Propose anchor sizes for the boxes of the first split at --image-size, or 320, with the recall that the matcher
    reaches."""
    num_maps: int = 6
    """Maps of the pyramid that anchors are proposed for."""
    drop_empty_classes: bool = False
    """Leave out classes that no box of the first split has."""
    merge_classes: bool = False
    """Make categories of one name one class instead of refusing them."""
    cache: bool = True
    """Skip the decoding of pictures that were checked before and have not changed since."""

    def run(self) -> int:
        from detectors.data import check_dataset
        from detectors.data.progress_bar import progress_bar
        from detectors.training.evaluation import detection_limit_warning
        from detectors.training.run_log import write_json

        self._check_options()
        report = check_dataset(
            self.data,
            format=self.format,
            image_size=self.image_size,
            drop_empty=self.drop_empty_classes,
            merge_classes=self.merge_classes,
            cache=self.cache,
            progress=progress_bar,
        )
        show(report)
        for split, dataset in report.datasets.items():
            warning = detection_limit_warning(split, dataset)
            if warning:
                print(f"warning: {warning}")
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, report.to_json())
        if self.samples is not None and report.datasets:
            report.save_samples(self.samples)
        if self.suggest_anchors:
            self._suggest(report)
        print(report.verdict())
        return 0 if report.ok else 1

    def _check_options(self) -> None:
        """Refuse what cannot work before any picture is read.

        Raises:
            ValueError: names the option, what came and what was expected.
        """
        from detectors.data.images import SUFFIXES
        from detectors.models.inputs import as_size

        if min(as_size(self.image_size) or (32,)) < 32:
            raise InputError(f"--image-size must be at least 32: got {self.image_size}")
        if not 1 <= self.num_maps <= 12:
            raise InputError(f"--num-maps must lie between 1 and 12: got {self.num_maps}")
        if self.samples is not None and self.samples.suffix.lower() not in SUFFIXES:
            raise InputError(f"--samples is a picture to write, such as samples.png: got {self.samples}")
        if self.json is not None and self.json.is_dir():
            raise InputError(f"--json is a file to write, such as health.json: {self.json} is a folder")

    def _suggest(self, report: "HealthReport") -> None:
        from detectors.data import suggest_anchors

        if not report.datasets:
            raise InputError(f"no split of {self.data} can be loaded, so there are no boxes to fit anchors to")
        dataset = next(iter(report.datasets.values()))
        found = suggest_anchors(dataset, self.image_size or _USUAL_SIZE, self.num_maps)
        sizes = ",".join(f"{size:g}" for size in found.sizes)
        print(f"anchors: {found.default_recall:.1%} of the boxes have an anchor of IoU 0.5 or more,")
        print(f"         {found.recall:.1%} with --settings anchor_sizes=[{sizes}]")


def show(report: "HealthReport") -> None:
    """Print the counts as tables, and problems by kind: errors, then notes."""
    from rich.console import Console

    from detectors.data.problems import grouped

    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=_WIDTH)
    for title, rows in (("splits", report.rows()), ("boxes by class", report.class_rows())):
        for part in tables(title, rows):
            console.print(part)
    for group in grouped(report.problems):
        for line in group.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def tables(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Rows as tables that fit a terminal of 80 columns, numbers to the right and long names folded.

    The first column stands in each of them; the others go on in the next where one is full.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text  # class names may look like rich's markup and emoji codes

    if not rows:
        return
    first, *others = list(rows[0])
    for names in _parts(rows, others, _WIDTH - _width(rows, first)):
        made = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        made.add_column(first, width=_width(rows, first), overflow="fold")
        for name in names:
            made.add_column(Text(name), width=_width(rows, name), justify="right", overflow="fold")
        for row in rows:
            made.add_row(*(Text(str(row[name])) for name in (first, *names)))
        yield made


def _parts(rows: Sequence[Mapping[str, Any]], names: Sequence[str], room: int) -> list[list[str]]:
    """Names of columns in groups of which each is at most `room` characters wide."""
    parts: list[list[str]] = [[]]
    left = room
    for name in names:
        width = _width(rows, name) + 1
        if width > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(name)
        left -= width
    return parts


def _width(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    from rich.cells import cell_len  # a Chinese character takes two places

    return min(max(cell_len(name), *(cell_len(str(row[name])) for row in rows)), _LONGEST)
