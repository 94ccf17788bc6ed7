"""`python -m detectors check`: the health of a data folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from detectors.data import HealthReport

SHOWN = 20


@dataclass
class Check:
    """Report what training will use of a data folder and what it will drop; exits with 1 where there is a problem."""

    data: Path
    """Folder in COCO, Pascal VOC or YOLO layout."""
    json: Path | None = None
    """Write the report to this file: for each split `usable_images`, `usable_boxes`, `problems` and counts."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; found by its shape if not given."""
    samples: Path | None = None
    """Write a picture of samples with their boxes to this file."""
    suggest_anchors: bool = False
    """Propose anchor sizes for the boxes of the first split, with the recall that the matcher reaches."""
    image_size: int = 320
    """Side of the model's images that anchors are proposed for."""
    num_maps: int = 6
    """Maps of the pyramid that anchors are proposed for."""

    def run(self) -> int:
        from detectors.data import check_dataset
        from detectors.training.run_log import write_json

        report = check_dataset(self.data, format=self.format)
        show(report)
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, report.to_json())
        if self.samples is not None:
            report.save_samples(self.samples)
        if self.suggest_anchors:
            self._suggest(report)
        return 0 if report.ok else 1

    def _suggest(self, report: "HealthReport") -> None:
        from detectors.data import suggest_anchors

        if not report.datasets:
            raise ValueError(f"no split of {self.data} can be loaded, so there are no boxes to fit anchors to")
        found = suggest_anchors(next(iter(report.datasets.values())), self.image_size, self.num_maps)
        sizes = ",".join(f"{size:g}" for size in found.sizes)
        print(f"anchors: {found.default_recall:.1%} of the boxes have a default box of IoU 0.5 or more,")
        print(f"         {found.recall:.1%} with --settings anchor_sizes=[{sizes}]")


def show(report: "HealthReport") -> None:
    """Print the counts as tables, and the first problems."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, rows in (("splits", report.rows()), ("boxes by class", report.class_rows())):
        table = Table(title=title)
        for name in rows[0] if rows else ():
            table.add_column(name)
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        console.print(table)
    problems = [problem for health in report.splits.values() for problem in health.problems]
    for problem in problems[:SHOWN]:
        console.print(f"{problem.where}: {problem.reason}", markup=False, highlight=False, soft_wrap=True)
    if len(problems) > SHOWN:
        console.print(f"and {len(problems) - SHOWN} more problems: see --json")
