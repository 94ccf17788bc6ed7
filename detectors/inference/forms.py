"""A detector as a module with tensors as its only inputs and outputs, as exporters and engines take it.

`FixedForm` has the post-processing inside. `RawForm` ends before it, for runtimes without loops or sorting.
"""

import copy

import torch
from torch import Tensor, nn

from detectors.errors import InputError
from detectors.models.inputs import as_size
from detectors.models.ssd import SSD


class FixedForm(nn.Module):
    """Images `(N, 3, H, W)` in 0..1 and sizes `(N, 2)` to boxes, scores, labels, valid: `SSD.forward_fixed`."""

    input_names = ("images", "sizes")
    output_names = ("boxes", "scores", "labels", "valid")

    def __init__(self, detector: SSD) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.detector.forward_fixed(images, sizes)


class RawForm(nn.Module):
    """Images `(N, 3, H, W)` in 0..1 to every anchor's decoded box and class scores.

    Boxes `(N, P, 4)` are xyxy as fractions of the image, not clipped to it; scores `(N, P, num_classes - 1)` are those
    of the foreground classes, in 0..1.

    Args:
        detector: in evaluation mode.
        image_size: height and width of the images, which the anchors are computed for once.
    """

    input_names = ("images",)
    output_names = ("boxes", "scores")
    anchors: Tensor

    def __init__(self, detector: SSD, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        maps = detector.pyramid.output_sizes(image_size)
        anchors = detector.anchors(image_size, maps, device=detector.image_mean.device)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        box_regression, class_logits = self.detector.head(self.detector.features(images))
        boxes = self.detector.postprocess.box_coder.decode(box_regression, self.anchors)
        return boxes, self.detector.loss.scores(class_logits)


def frozen_copy(detector: SSD) -> SSD:
    """A copy of a detector on the CPU in float32, for inference only.

    Raises:
        TypeError: for anything but an `SSD`; says what to take in place of a deployed detector.
    """
    if not isinstance(detector, SSD):
        raise TypeError(
            f"export takes the SSD or M2Det itself: got a {type(detector).__name__}; what was deployed was made from "
            "one, and runtimes fold batch norms by themselves"
        )
    return copy.deepcopy(detector).cpu().float().eval().requires_grad_(False)


def export_size(detector: SSD, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of an exported detector's images: the detector's own, or the requested ones where it has none.

    Raises:
        ValueError: if there is neither, or the two differ.
    """
    size, requested = detector.image_size, as_size(image_size)
    if size is not None and requested not in (None, size):
        raise InputError(f"this detector takes images of {size}, not of {requested}")
    size = size or requested
    if size is None:
        raise InputError(
            "this detector takes images of any size, and an exported one takes a single one: give image_size"
        )
    return size


def trace(form: nn.Module, inputs: tuple[Tensor, ...], *, dynamic_batch: bool) -> torch.export.ExportedProgram:
    """A form as a `torch.export` program, for batches of the inputs' size or of any size.

    With `dynamic_batch` the inputs hold at least two images, since a batch of one is taken for a constant.
    """
    batch = {0: torch.export.Dim("batch")} if dynamic_batch else None
    with torch.no_grad():
        return torch.export.export(form, inputs, dynamic_shapes=(batch,) * len(inputs))
