"""A detector's network in OpenVINO's files, in float32 or quantized to INT8.

Quantization is NNCF's, after training: weights and activations of convolutions become 8-bit integers, with ranges
measured on calibration images. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, arXiv 1712.05877.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detectors.atomic import check_target, write_atomically
from detectors.errors import InputError
from detectors.inference.agreement import check_raw, probe
from detectors.inference.export import need
from detectors.inference.forms import RawForm, export_size, frozen_copy
from detectors.inference.openvino import Network, convert, core
from detectors.models.inputs import check_batch
from detectors.models.ssd import SSD


def export_openvino(
    detector: SSD, path: str | os.PathLike[str], *, calibration: Iterable[Tensor] | None = None
) -> None:
    """Write a detector's network as OpenVINO's `.xml` with a `.bin` beside it, as `deploy(network=path)` takes it.

    Inputs and outputs are those of `export_onnx(postprocess=False)`, with any batch size. Needs the extra `openvino`.

    Args:
        detector: an `SSD` or `M2Det` with an image size; it stays as it is.
        path: the `.xml` file to write.
        calibration: batches `(N, 3, H, W)` in 0..1, as `detector.preprocess` gives them, of a few hundred images like
            those that the detector will see; the network is then quantized to INT8. None keeps float32.

    Raises:
        ImportError: if openvino or nncf is missing; says what to install.
        TypeError: for anything but an `SSD`, such as a deployed detector.
        ValueError: for a path without the suffix `.xml`, an empty calibration, or batches of another shape.
        OSError: for a folder in the place of one of the files, or a path in a folder that does not exist.
        RuntimeError: if the float32 network does not agree with the detector; nothing is written then.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> from detectors.inference.quantize import export_openvino
    >>> detector = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64)
    >>> path = Path(tempfile.mkdtemp()) / "detector.xml"
    >>> export_openvino(detector, path)
    >>> sorted(file.name for file in path.parent.iterdir())
    ['detector.bin', 'detector.xml']
    """
    need("openvino", "openvino", *([] if calibration is None else ["nncf"]))
    path = Path(path)
    if path.suffix != ".xml":
        raise InputError(f"OpenVINO's files are an .xml and a .bin beside it: got {path}")
    for file in (path, path.with_suffix(".bin")):
        check_target(file)
    model = frozen_copy(detector)
    size = export_size(model, None)
    samples = None if calibration is None else _samples(calibration, size, len(model.image_mean))
    network = convert(model)
    form = RawForm(model, size).eval()
    images, _ = probe(1, len(model.image_mean), size)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    outputs = core().compile_model(network, "CPU", exact)([images.numpy()])
    with torch.no_grad():
        check_raw(form(images), [torch.from_numpy(value) for value in outputs.values()])
    if samples is not None:
        network = _quantize(network, samples)
    graph, weights = Network.of(network)
    # The graph comes last: without it there is no network to open.
    write_atomically(path.with_suffix(".bin"), lambda partial: partial.write_bytes(weights))
    write_atomically(path, lambda partial: partial.write_bytes(graph))


def _samples(calibration: Iterable[Tensor], size: tuple[int, int], channels: int) -> list[Any]:
    """Calibration batches as arrays `(1, C, H, W)`, one per image."""
    samples = []
    for batch in calibration:
        check_batch(batch, channels, values=True)
        if tuple(batch.shape[2:]) != size:
            raise InputError(f"calibration batches are of the network's size {size}: got {tuple(batch.shape[2:])}")
        samples += [image[None].float().numpy() for image in batch]
    if not samples:
        raise InputError("calibration needs at least one image")
    return samples


def _quantize(network: Any, samples: list[Any]) -> Any:
    import nncf

    nncf.set_log_level(logging.WARNING)  # else it names each operation that it leaves alone
    return nncf.quantize(
        network,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,  # activations may be asymmetric, as those of SiLU are
        subset_size=len(samples),
        # Eight bits of an image's width are too coarse for a box: what follows the predictors stays in float32.
        ignored_scope=nncf.IgnoredScope(names=_after_convolutions(network), validate=False),
    )


def _after_convolutions(network: Any) -> list[str]:
    """Names of the operations between the last convolutions of a network and its outputs."""
    names: dict[str, None] = {}
    pending = [port.get_node() for port in network.outputs]
    while pending:
        node = pending.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name in names or kind in ("Convolution", "GroupConvolution", "Constant", "Parameter"):
            continue
        names[name] = None
        pending += [port.get_source_output().get_node() for port in node.inputs()]
    return list(names)
