"""`python -m detectors convert`: a data folder as plain COCO."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detectors.errors import InputError


@dataclass
class Convert:
    """Write what is read of a data folder as plain COCO: a JSON file per split, beside images/."""

    data: Path
    """Folder in COCO, Pascal VOC or YOLO layout, or its data.yaml, JSON file or zip archive."""
    output: Path
    """Folder to write. Pictures become hard links, or copies on another disk."""
    format: Literal["coco", "voc", "yolo"] | None = None
    """Layout of the data; detected if not given."""
    drop_empty_classes: bool = False
    """Leave out classes that no box of the first split has."""
    merge_classes: bool = False
    """Make categories of one name one class instead of refusing them."""
    cache: bool = True
    """Skip the decoding of pictures that were checked before and have not changed since."""

    def run(self) -> int:
        from detectors.commands.check import show
        from detectors.data import check_dataset, write_coco
        from detectors.data.progress_bar import progress_bar

        if self.output.exists() and any(self.output.iterdir()):
            raise FileExistsError(f"{self.output} is not empty: choose another --output")
        report = check_dataset(
            self.data,
            format=self.format,
            drop_empty=self.drop_empty_classes,
            merge_classes=self.merge_classes,
            cache=self.cache,
            progress=progress_bar,
        )
        show(report)
        if not report.datasets:
            raise InputError(f"no split of {self.data} can be read: there is nothing to write")
        write_coco(self.output, report.datasets)
        for split, dataset in report.datasets.items():
            boxes = sum(len(record.labels) for record in dataset.records)
            print(f"{self.output / split}.json: {len(dataset)} images, {boxes} boxes")
        return 0 if report.ok else 1
