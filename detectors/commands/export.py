"""`python -m detectors export`: a detector as one ONNX or torch.export file, post-processing included."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Export:
    """Export a detector with its post-processing to ONNX or torch.export, and check the file against the detector."""

    checkpoint: Path
    """A run's folder, a saved detector, or a .pth checkpoint of M2Det's authors."""
    output: Path
    """The file to write."""
    format: Literal["onnx", "pt2"] = "onnx"
    """onnx for ONNX Runtime, pt2 for torch.export."""
    batch_size: int = 1
    """Images in a batch of the exported model."""
    image_size: int | tuple[int, int] = 512
    """Side, or height and width, to which images are stretched for the authors' checkpoints; others know theirs."""

    def run(self) -> int:
        from detectors.inference.export import export_onnx, export_program
        from detectors.saving import load

        detector = load(self.checkpoint, image_size=self.image_size)
        export = export_onnx if self.format == "onnx" else export_program
        export(detector, self.output, batch_size=self.batch_size)
        print(f"{self.output}: checked against the detector, {self.output.stat().st_size / 1e6:.1f} MB")
        return 0
