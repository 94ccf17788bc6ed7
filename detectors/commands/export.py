"""`python -m detectors export`: a detector as one file for a runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detectors.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detectors.models.ssd import SSD


@dataclass
class Export:
    """Export a detector to ONNX, torch.export or OpenVINO, and check the file against the detector."""

    checkpoint: str
    """A run's folder, a saved detector, a .pth checkpoint of M2Det's authors, or a detector's name on the Hub."""
    output: Path
    """The file to write."""
    format: Literal["onnx", "pt2", "openvino"] | None = None
    """onnx for ONNX Runtime and most others, pt2 for torch.export, openvino for the network that `predict --engine
    openvino --network FILE.xml` takes. If not given, by the suffix of the output: .onnx, .pt2 or .xml."""
    batch_size: int | None = 1
    """Images in a batch of the exported model; None leaves the number open, as it always is with openvino."""
    without_postprocessing: bool = False
    """End with the boxes and scores of all anchors: for TensorRT, Core ML, ExecuTorch and OpenCV. openvino always
    does."""
    int8: bool = False
    """Quantize the network to INT8, with OpenVINO's format and the extra `openvino`; needs --data."""
    data: Path | None = None
    """Data folder whose images calibrate INT8: its split train, or else the first that it has."""
    calibration_images: int = 300
    """Number of images that calibrate, at most."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height and width, to which images are stretched: for the authors' checkpoints, by default 512, and for
    detectors that were made without one; others know theirs."""

    def run(self) -> int:
        from detectors.atomic import check_target
        from detectors.inference.export import export_onnx, export_program
        from detectors.inference.forms import export_size
        from detectors.inference.quantize import export_openvino
        from detectors.saving import load

        format = self._format()
        if self.int8 and format != "openvino":
            raise InputError(f"--int8 needs OpenVINO's format, an .xml file: got --output {self.output}")
        if self.int8 != (self.data is not None):
            raise InputError("--int8 and --data go together: the images of a data folder calibrate INT8")
        if self.calibration_images < 1:
            raise InputError(f"--calibration-images is at least 1: got {self.calibration_images}")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"--batch-size is at least 1, or None for any: got {self.batch_size}")
        files = [self.output, *([self.output.with_suffix(".bin")] if format == "openvino" else [])]
        for file in files:
            check_target(file)
        detector = load(self.checkpoint, image_size=self.image_size or 512)
        detector.image_size = export_size(detector, self.image_size)
        if format == "openvino":
            images = None if self.data is None else calibration(detector, self.data, self.calibration_images)
            export_openvino(detector, self.output, calibration=images)
        else:
            export = export_onnx if format == "onnx" else export_program
            post = not self.without_postprocessing
            export(detector, self.output, batch_size=self.batch_size, postprocess=post)
        what = "checked against the detector before it was quantized" if self.int8 else "checked against the detector"
        size = sum(file.stat().st_size for file in files)
        print(f"{' and '.join(map(str, files))}: {what}, {size / 1e6:.1f} MB")
        return 0

    def _format(self) -> str:
        known = {".onnx": "onnx", ".pt2": "pt2", ".xml": "openvino"}
        format = self.format or known.get(self.output.suffix)
        if format is None:
            raise InputError(f"--output ends with .onnx, .pt2 or .xml, or --format is given: got {self.output}")
        return format


def calibration(detector: "SSD", folder: Path, most: int) -> "list[Tensor]":
    """Batches of one image, as the network takes them, spread evenly over a split of a data folder."""
    from detectors.data import evaluation_transforms, find_splits, load_dataset
    from detectors.data.images import as_channels

    splits = find_splits(folder)
    split = "train" if "train" in splits else splits[0]
    channels = as_channels(len(detector.image_mean))
    dataset = load_dataset(folder, split, transforms=evaluation_transforms(), channels=channels)
    count = min(most, len(dataset))
    chosen = [len(dataset) * i // count for i in range(count)]
    print(f"calibration: {count} of the {len(dataset)} images of {split}")
    return [detector.preprocess([dataset[i][0]]) for i in chosen]
