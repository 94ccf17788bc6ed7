"""A detector with its post-processing as one file: ONNX for ONNX Runtime, or a `torch.export` program.

A file is compared with the detector before it takes its name, so that none is left that is wrong or half written.
"""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detectors.atomic import write_atomically
from detectors.errors import InputError
from detectors.models.inputs import as_size
from detectors.models.ssd import SSD

INPUT_NAMES = ("images", "sizes")
OUTPUT_NAMES = ("boxes", "scores", "labels", "valid")

Run = Callable[[Tensor, Tensor], Sequence[Tensor]]


class FixedForm(nn.Module):
    """`forward_fixed` of a detector as a module's forward, which is what exporters take."""

    def __init__(self, detector: SSD) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.detector.forward_fixed(images, sizes)


def export_onnx(
    detector: SSD,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 1,
    image_size: int | tuple[int, int] | None = None,
) -> None:
    """Write a detector as ONNX with its post-processing inside, checked in ONNX Runtime.

    Inputs are `images` `(N, 3, H, W)` float32 in 0..1, already stretched, and `sizes` `(N, 2)` int64, the heights and
    widths that boxes are scaled to; outputs are those of `SSD.forward_fixed`: `boxes`, `scores`, `labels`, `valid`.
    `H` and `W` are the detector's own; `image_size` names them for a detector without a size of its own.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is missing; says what to install.
        ValueError: for a batch size below 1, a folder that does not exist, or a missing or contradicting image size.
        RuntimeError: if the exported model does not agree with the detector; nothing is written then.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> from detectors.inference.export import export_onnx
    >>> detector = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64)
    >>> path = Path(tempfile.mkdtemp()) / "detector.onnx"
    >>> export_onnx(detector, path)
    >>> path.exists()
    True
    """
    _need("onnx", "onnxscript", "onnxruntime")
    import onnxruntime

    from detectors.ops.nms_onnx import onnx_translation_table

    def write(form: FixedForm, inputs: tuple[Tensor, Tensor], target: Path) -> Run:
        program = torch.onnx.export(
            form,
            inputs,
            input_names=INPUT_NAMES,
            output_names=OUTPUT_NAMES,
            custom_translation_table=onnx_translation_table(),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(target, external_data=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; its warnings tell of its own optimizations
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

        def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
            feed = dict(zip(INPUT_NAMES, (images.numpy(), sizes.numpy())))
            return [torch.from_numpy(np.asarray(value)) for value in session.run(list(OUTPUT_NAMES), feed)]

        return run

    _export(detector, Path(path), write, batch_size, image_size)


def export_program(
    detector: SSD,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 1,
    image_size: int | tuple[int, int] | None = None,
) -> None:
    """Write a detector as a `torch.export` program (`.pt2`); inputs and outputs as those of `export_onnx`.

    The program is loaded by `torch.export.load` after `import detectors`, which brings its suppression operator.

    Raises:
        ValueError, RuntimeError: as `export_onnx`.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> from detectors.inference.export import export_program
    >>> detector = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64)
    >>> path = Path(tempfile.mkdtemp()) / "detector.pt2"
    >>> export_program(detector, path)
    >>> path.exists()
    True
    """

    def write(form: FixedForm, inputs: tuple[Tensor, Tensor], target: Path) -> Run:
        torch.export.save(torch.export.export(form, inputs), target)
        run: Run = torch.export.load(target).module()
        return run

    _export(detector, Path(path), write, batch_size, image_size)


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"ONNX export needs {', '.join(missing)}: pip install 'feature-pyramids[export]'", name=missing[0]
        )


def _export(
    detector: SSD,
    path: Path,
    write: Callable[[FixedForm, tuple[Tensor, Tensor], Path], Run],
    batch_size: int,
    image_size: int | tuple[int, int] | None,
) -> None:
    if not isinstance(detector, SSD):
        raise TypeError(f"export takes the SSD or M2Det itself: got a {type(detector).__name__}")
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1: got {batch_size}")
    size, given = detector.image_size, as_size(image_size)
    if size is None and given is None:
        raise InputError(
            "this detector takes images of any size, and an exported one takes a single one: give image_size"
        )
    if size is not None and given not in (None, size):
        raise InputError(f"this detector takes images of {size}, not of {given}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")
    model = copy.deepcopy(detector).cpu().float().eval().requires_grad_(False)
    inputs = _probe(batch_size, len(model.image_mean), size or given or (0, 0))

    def fill(partial: Path) -> None:
        if check(model, write(FixedForm(model).eval(), inputs, partial), inputs):
            return
        # Nothing is detected in the probe, so its suppression saw nothing. A twin that keeps every score shows it.
        twin = copy.deepcopy(model)
        twin.postprocess.score_threshold = 0.0
        check(twin, write(FixedForm(twin).eval(), inputs, partial), inputs)
        write(FixedForm(model).eval(), inputs, partial)

    with torch.no_grad():
        write_atomically(path, fill)


def _probe(batch_size: int, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images with structure at every scale, and sizes that differ from them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(batch_size, channels, *size)
    for points in (2, 8, 32, min(size)):
        noise = torch.rand(batch_size, channels, points, points, generator=generator)
        images += nn.functional.interpolate(noise, size=size, mode="bilinear") / 4
    sizes = torch.tensor([[size[0] + 7 * i + 3, size[1] * 2 - 5 * i] for i in range(batch_size)])
    return images, sizes.clamp(min=2)


def check(detector: SSD, run: Run, inputs: tuple[Tensor, Tensor]) -> int:
    """Compare an exported model's detections with the detector's; returns how many there were.

    Detections are compared as sets, since scores that differ in the last bits may change places.

    Raises:
        RuntimeError: if they disagree.
    """
    expected = detector.forward_fixed(*inputs)
    got = run(*inputs)
    for name, one, other in zip(OUTPUT_NAMES, got, expected):
        if one.shape != other.shape:
            raise RuntimeError(f"the exported model gives {name} of {tuple(one.shape)}: expected {tuple(other.shape)}")
    total = lost = 0
    for i, size in enumerate(inputs[1].tolist()):
        theirs, ours = ([value[i][: int(side[3][i])] for value in side[:3]] for side in (got, expected))
        total += len(ours[0])
        limit = len(expected[1][i])
        lost += _unmatched(_above_cut(ours, limit), theirs, max(size))
        lost += _unmatched(_above_cut(theirs, limit), ours, max(size))
        if min(len(ours[1]), len(theirs[1])) == limit:  # whichever detections they are at the cut, they score as much
            lost += int(((got[1][i] - expected[1][i]).abs() > 1e-3).sum())
    # A box at the very edge of a threshold may fall to either side.
    if lost > 0.01 * total + 1e-9 and lost > 2:
        raise RuntimeError(f"the exported model disagrees with the detector on {lost} of {total} detections")
    return total


def _above_cut(found: list[Tensor], limit: int) -> list[Tensor]:
    """Detections (boxes, scores, labels) without those that score as the last one of a full list: of many with equal
    scores, as an untrained network gives, the last bits choose which ones stay.
    """
    keep = found[1] > found[1].min() + 1e-3 if len(found[1]) == limit else torch.ones(len(found[1]), dtype=torch.bool)
    return [value[keep] for value in found]


def _unmatched(ours: list[Tensor], theirs: list[Tensor], side: int) -> int:
    """Number of `ours` (boxes, scores, labels) that lack a counterpart within a thousandth of image and score."""
    if len(ours[0]) == 0 or len(theirs[0]) == 0:
        return len(ours[0])
    boxes = (ours[0][:, None] - theirs[0][None]).abs().amax(-1) < 1e-3 * side
    scores = (ours[1][:, None] - theirs[1][None]).abs() < 1e-3
    labels = ours[2][:, None] == theirs[2][None]
    return int((~(boxes & scores & labels).any(1)).sum())
