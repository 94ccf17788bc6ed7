"""A detector as one file: ONNX, or a `torch.export` program; with its post-processing inside or without.

A file is compared with the detector before it takes its name, so that none is left that is wrong or half written.
"""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detectors.atomic import check_target, write_atomically
from detectors.errors import InputError
from detectors.inference.agreement import Run, check_detections, check_raw, probe
from detectors.inference.forms import FixedForm, RawForm, export_size, frozen_copy, trace
from detectors.models.ssd import SSD

Form = FixedForm | RawForm
Write = Callable[[Form, tuple[Tensor, ...], bool, Path], Run]


def export_onnx(
    detector: SSD,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    postprocess: bool = True,
) -> None:
    """Write a detector as ONNX, checked in ONNX Runtime.

    Inputs are `images` `(N, 3, H, W)` float32 in 0..1, already stretched, and `sizes` `(N, 2)` int64, the heights and
    widths that boxes are scaled to; outputs are those of `SSD.forward_fixed`: `boxes`, `scores`, `labels`, `valid`.

    With `postprocess=False` `images` is the only input, and the outputs are all anchors: `boxes` `(N, P, 4)` xyxy
    as fractions of the image, not clipped to it, and `scores` `(N, P, num_classes - 1)` of the foreground classes in
    0..1. That graph has no loop and no sorting, which TensorRT, Core ML, ExecuTorch and OpenCV lack in part.

    Args:
        detector: an `SSD` or `M2Det`; it stays as it is.
        path: the file to write.
        batch_size: images in a batch; None leaves the number open.
        image_size: `H` and `W`, for a detector without a size of its own.
        postprocess: write score threshold, suppression and the choice of the best detections too.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is missing; says what to install.
        TypeError: for anything but an `SSD`, such as a deployed detector.
        ValueError: for a batch size below 1, or a missing or contradicting image size.
        OSError: for a folder as `path`, or a path in a folder that does not exist.
        RuntimeError: if the exported model does not agree with the detector; nothing is written then.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> from detectors.inference.export import export_onnx
    >>> detector = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64)
    >>> path = Path(tempfile.mkdtemp()) / "detector.onnx"
    >>> export_onnx(detector, path, postprocess=False)
    >>> path.exists()
    True
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    _export(detector, Path(path), _write_onnx, batch_size, image_size, postprocess)


def export_program(
    detector: SSD,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    postprocess: bool = True,
) -> None:
    """Write a detector as a `torch.export` program (`.pt2`); arguments, inputs and outputs as those of `export_onnx`.

    The program is loaded by `torch.export.load`; with post-processing after `import detectors`, which brings its
    suppression operator.

    Raises:
        TypeError, ValueError, OSError, RuntimeError: as `export_onnx`.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> from detectors.inference.export import export_program
    >>> detector = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64)
    >>> path = Path(tempfile.mkdtemp()) / "detector.pt2"
    >>> export_program(detector, path)
    >>> path.exists()
    True
    """

    def write(form: Form, inputs: tuple[Tensor, ...], dynamic_batch: bool, target: Path) -> Run:
        torch.export.save(trace(form, inputs, dynamic_batch=dynamic_batch), target)
        run: Run = torch.export.load(target).module()
        return run

    _export(detector, Path(path), write, batch_size, image_size, postprocess)


def need(extra: str, *packages: str) -> None:
    """Raises `ImportError` if a package is missing; names the extra that brings it."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"this needs {', '.join(missing)}: pip install 'feature-pyramids[{extra}]'",
            name=missing[0],
        )


def _write_onnx(form: Form, inputs: tuple[Tensor, ...], dynamic_batch: bool, target: Path) -> Run:
    import onnx
    import onnxruntime

    from detectors.ops.nms_onnx import onnx_translation_table

    program = torch.onnx.export(
        trace(form, inputs, dynamic_batch=dynamic_batch),
        input_names=form.input_names,
        output_names=form.output_names,
        custom_translation_table=onnx_translation_table(),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    # OpenVINO reads a loop only where the values that it carries have types, which shape inference gives them.
    onnx.save(onnx.shape_inference.infer_shapes(program.model_proto), target)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings tell of its own optimizations
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> list[Tensor]:
        feed = dict(zip(form.input_names, (value.numpy() for value in values)))
        return [torch.from_numpy(np.asarray(value)) for value in session.run(list(form.output_names), feed)]

    return run


def _export(
    detector: SSD,
    path: Path,
    write: Write,
    batch_size: int | None,
    image_size: int | tuple[int, int] | None,
    postprocess: bool,
) -> None:
    model = frozen_copy(detector)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is at least 1, or None for any: got {batch_size}")
    size = export_size(detector, image_size)
    check_target(path)
    images, sizes = probe(batch_size or 2, len(model.image_mean), size)
    # A batch of any size is shown one that tracing did not see.
    others = [probe(3, len(model.image_mean), size)] if batch_size is None else []

    def fill_raw(partial: Path) -> None:
        form = RawForm(model, size).eval()
        run = write(form, (images,), batch_size is None, partial)
        for batch, _ in [(images, sizes), *others]:
            check_raw(form(batch), run(batch))

    def fill(partial: Path) -> None:
        if _fill_and_check(model, partial):
            return
        # Nothing is detected in the probe, so its suppression saw nothing. A twin that keeps every score shows it.
        twin = copy.deepcopy(model)
        twin.postprocess.score_threshold = 0.0
        _fill_and_check(twin, partial)
        write(FixedForm(model).eval(), (images, sizes), batch_size is None, partial)

    def _fill_and_check(one: SSD, partial: Path) -> int:
        run = write(FixedForm(one).eval(), (images, sizes), batch_size is None, partial)
        return sum(check_detections(one, run, inputs) for inputs in [(images, sizes), *others])

    with torch.no_grad():
        write_atomically(path, fill if postprocess else fill_raw)
