"""Ways to run a detector: eager, deployed, compiled, in OpenVINO and in ONNX Runtime, whole and without suppression."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from detectors import SSD, OpenVINODetector
from detectors.inference.deploy import has_instructions
from detectors.inference.export import export_onnx
from detectors.inference.quantize import export_openvino
from detectors.models.detector import Detector
from detectors.models.inputs import image_sizes
from detectors.models.postprocess import as_detections

Precision = Literal["fp32", "bf16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
_CALIBRATION = 8  # images; speed does not depend on the ranges that they give


@dataclass(frozen=True)
class Way:
    """A runtime and its precision."""

    runtime: Literal["eager", "deploy", "openvino", "onnxruntime"]
    precision: Precision = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        return " ".join([self.runtime, self.precision, *(["compiled"] if self.compiled else [])])


@dataclass(frozen=True)
class Opened:
    """A detector opened in one way: from images to detections, and from a batch to all anchors and scores.

    `network` is None where it would have to be compiled once more, on a GPU.
    """

    whole: Callable[[list[Tensor]], list[dict[str, Tensor]]]
    network: Callable[[Tensor], Any] | None


def possible(ways: list[Way], device: torch.device) -> list[Way]:
    """The ways that the packages and the processor allow: other runtimes on the CPU, bf16 where it has instructions."""
    packages = {"openvino": ["openvino"], "onnxruntime": ["onnx", "onnxscript", "onnxruntime"]}
    return [
        way
        for way in ways
        if (way.runtime in ("eager", "deploy") or device.type == "cpu")
        and all(find_spec(name) is not None for name in packages.get(way.runtime, []))
        and (way.precision != "int8" or find_spec("nncf") is not None)
        and (way.precision != "bf16" or has_instructions(device, torch.bfloat16))
    ]


def open_way(way: Way, detector: SSD) -> Opened:
    """Prepare a detector to run in one way, on as many threads as torch has."""
    if way.runtime == "onnxruntime":
        return _in_onnxruntime(detector)
    if way.runtime == "openvino":
        return _in_openvino(way, detector)
    if way.runtime == "eager":
        return Opened(detector, lambda batch: raw(detector, batch))
    model = detector.deploy(dtype=DTYPES[way.precision], compile=way.compiled)
    if not way.compiled:
        return Opened(model, lambda batch: raw(model, batch))
    if detector.image_mean.is_cuda:
        return Opened(model, None)
    plain = detector.deploy(dtype=DTYPES[way.precision])
    compiled = torch.compile(lambda batch: raw(plain, batch), fullgraph=True, dynamic=False)

    def network(batch: Tensor) -> Any:
        from torch._inductor import config

        with config.patch(freezing=True):  # as the deployed detector compiles itself
            return compiled(batch)

    return Opened(model, network)


def raw(detector: Detector, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes as fractions and foreground scores of all anchors, as the networks of other runtimes give them."""
    box_regression, class_logits, anchors = detector.forward_head(batch)
    boxes = detector.postprocess.box_coder.decode(box_regression.float(), anchors)
    return boxes, detector.loss.scores(class_logits)


def _in_openvino(way: Way, detector: SSD) -> Opened:
    with tempfile.TemporaryDirectory() as folder:
        file = None
        if way.precision == "int8":
            file = Path(folder) / "int8.xml"
            height, width = detector.image_size or (320, 320)
            images = torch.rand(_CALIBRATION, len(detector.image_mean), height, width)
            export_openvino(detector, file, calibration=[images])
        model = OpenVINODetector(detector, dtype=DTYPES[way.precision], network=file)
    return Opened(model, model.run_network)


def _in_onnxruntime(detector: SSD) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for postprocess in (True, False):
            file = Path(folder) / "detector.onnx"
            export_onnx(detector, file, postprocess=postprocess)
            sessions.append(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))
    full_session, raw_session = sessions

    def whole(images: list[Tensor]) -> list[dict[str, Tensor]]:
        batch = detector.preprocess(images)
        sizes = image_sizes(images, batch.device)
        outputs = full_session.run(None, {"images": batch.numpy(), "sizes": sizes.numpy()})
        boxes, scores, labels, valid = map(torch.from_numpy, outputs)
        return as_detections(boxes, scores, labels, valid)

    return Opened(whole, lambda batch: raw_session.run(None, {"images": batch.numpy()}))
