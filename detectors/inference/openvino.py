"""OpenVINO as the engine of a detector: the network runs in OpenVINO, the post-processing in PyTorch.

A network is two byte strings as OpenVINO writes them to files: the graph (`.xml`) and the weights (`.bin`).
"""

import functools
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detectors.errors import InputError
from detectors.inference.agreement import probe
from detectors.inference.deploy import InferenceDetector
from detectors.inference.export import need
from detectors.inference.forms import RawForm, export_size, frozen_copy, trace
from detectors.models.inputs import check_batch, check_sizes
from detectors.models.ssd import SSD

# OpenVINO's names of the precisions: the hint, and the capability that a processor with such instructions has.
_PRECISIONS = {torch.float32: ("f32", "FP32"), torch.bfloat16: ("bf16", "BF16"), torch.float16: ("f16", "FP16")}
_MAX_COMPILED = 4  # batch sizes whose compiled networks are kept, each with its own weights


@functools.cache
def core() -> Any:
    """Process-wide `openvino.Core`, never destroyed.

    A core installs an alternate signal stack for its thread (SigAltStackSetup of OpenVINO's CPU plugin) and restores
    the previous one when it is destroyed. Cores that are destroyed in order of creation leave a freed stack installed,
    and the next signal with a Python handler, such as that of a DataLoader worker, crashes the process.
    """
    import openvino

    return openvino.Core()


class Network(NamedTuple):
    """A network as OpenVINO's two files hold it."""

    graph: bytes
    weights: bytes

    @classmethod
    def of(cls, model: Any) -> "Network":
        """The network of an `openvino.Model`."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.xml"
            openvino.save_model(model, file, compress_to_fp16=False)
            return cls.read(file)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Network":
        """The network in `path`, an `.xml` file with its `.bin` beside it.

        Raises:
            FileNotFoundError: if one of the two is missing.
            ValueError: for a file with another suffix.
        """
        path = Path(path)
        if path.suffix != ".xml":
            raise InputError(f"a network of OpenVINO is an .xml file with a .bin beside it: got {path}")
        files = (path, path.with_suffix(".bin"))
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"no file {file}: a network of OpenVINO is an .xml file with a .bin beside it")
        return cls(*(file.read_bytes() for file in files))

    def model(self) -> Any:
        """The network as an `openvino.Model`."""
        return core().read_model(self.graph, self.weights)


class OpenVINODetector(InferenceDetector):
    """A detector whose network runs in OpenVINO on the CPU, as `SSD.deploy(engine="openvino")` returns it.

    `model(images)` gives a list of `{boxes, labels, scores}`, `model.forward_fixed(batch, sizes)` the fixed-size form.
    Images have one size, the detector's own; each batch size is compiled when it first comes. OpenVINO uses as many
    threads as `torch.get_num_threads()` says then. It can be copied and pickled; to save or export, use the detector
    that it was made from. Needs the extra `openvino`.

    Args:
        detector: the detector, which stays as it is.
        dtype: precision of the network, `torch.float32`, `torch.bfloat16` or `torch.float16`. Where the processor has
            no instructions for it OpenVINO computes in float32, with a warning. Layers that were quantized to INT8 stay
            so.
        network: an `.xml` file that `export_openvino` wrote from this detector, such as one in INT8; if None, the
            network is converted, which takes seconds.

    Raises:
        ImportError: if openvino is missing; says what to install.
        TypeError: for anything but an `SSD`.
        ValueError: for another dtype, a detector without an image size, or a network that is damaged or of
            another detector.

    >>> import torch
    >>> from detectors import create_detector
    >>> detector = create_detector("ssd", 4, backbone="test_resnet", neck="fpn", image_size=64)
    >>> deployed = detector.deploy(engine="openvino")
    >>> len(deployed([torch.rand(3, 48, 80)]))
    1
    """

    def __init__(
        self,
        detector: SSD,
        *,
        dtype: torch.dtype = torch.float32,
        network: str | os.PathLike[str] | None = None,
    ) -> None:
        need("openvino", "openvino")
        model = frozen_copy(detector)
        if dtype not in _PRECISIONS:
            raise InputError(f"dtype is torch.float32, torch.bfloat16 or torch.float16: got {dtype}")
        if model.image_size is None:
            raise InputError("the engine openvino takes images of one size: create the detector with an image_size")
        capability = _PRECISIONS[dtype][1]
        if capability not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            warnings.warn(f"this processor has no instructions for {dtype}: OpenVINO computes in float32", stacklevel=3)
        super().__init__(model)
        self.dtype = dtype
        self.network = Network.of(convert(model)) if network is None else Network.read(network)
        if network is not None:
            self._check_network(model, network)
        self._compiled: dict[int, Any] = {}
        self.eval()

    def _check_network(self, detector: SSD, path: str | os.PathLike[str]) -> None:
        import openvino

        try:
            model = self.network.model()
        except RuntimeError as error:  # all that OpenVINO raises
            reason = str(error).strip().rpartition("\n")[2]
            raise InputError(f"{path} and its .bin are not a complete OpenVINO network: {reason}") from error
        height, width = export_size(detector, None)
        num_anchors = len(RawForm(detector, (height, width)).anchors)
        shapes = [port.partial_shape for port in (*model.inputs, *model.outputs)]
        expected = [
            openvino.PartialShape(shape)
            for shape in (
                [-1, len(self.image_mean), height, width],
                [-1, num_anchors, 4],
                [-1, num_anchors, self.num_classes - 1],
            )
        ]
        # A shape may be known in part, as [?,12804..,3].
        if len(shapes) != len(expected) or not all(map(openvino.PartialShape.compatible, shapes, expected)):
            raise InputError(
                f"{path} is a network of another detector: it has {[str(shape) for shape in shapes]}, this detector "
                f"{[str(shape) for shape in expected]}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": {}}

    def run_network(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """A batch to boxes `(N, P, 4)` as fractions and scores `(N, P, C)`, in memory of their own."""
        if len(batch) not in self._compiled:
            while len(self._compiled) >= _MAX_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[len(batch)] = self._compile(batch)
        # A request of its own, so that threads do not meet in one.
        request = self._compiled[len(batch)].create_infer_request()
        boxes, scores = request.infer([batch.numpy()], share_inputs=True).values()
        return torch.from_numpy(boxes), torch.from_numpy(scores)

    def _compile(self, batch: Tensor) -> Any:
        model = self.network.model()
        model.reshape(list(batch.shape))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO takes bfloat16 by itself where the processor has it.
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.dtype][0],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core().compile_model(model, "CPU", settings)

    @torch.no_grad()
    def forward_fixed(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `SSD.forward_fixed`: images `(N, 3, H, W)` in 0..1 and sizes `(N, 2)` to boxes, scores, labels, valid.

        Raises:
            TypeError: for a batch that is not a tensor of floating-point numbers.
            ValueError: for a batch of another shape or image size, an image that is not finite or leaves 0..1, or sizes
                that are not one positive height and width per image.
        """
        check_batch(batch, len(self.image_mean), values=True)
        check_sizes(sizes, batch.shape[0])
        if tuple(batch.shape[2:]) != self.image_size:
            raise InputError(
                f"this engine takes images of {self.image_size}: got {tuple(batch.shape[2:])}; for other sizes deploy "
                "with engine='torch'"
            )
        boxes, scores = self.run_network(batch.float().contiguous())
        detections: tuple[Tensor, Tensor, Tensor, Tensor] = self.postprocess.select(boxes, scores, sizes)
        return detections


def convert(detector: SSD) -> Any:
    """The network of a detector as an `openvino.Model` with any batch size, normalization of images included.

    Its input is `images` `(N, 3, H, W)` in 0..1; outputs are `boxes` and `scores` of `RawForm`.

    Raises:
        TypeError, ValueError: as `export_onnx`.
    """
    # convert_model would do the same, and report its use over the network where nobody has opted out.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    model = frozen_copy(detector)
    size = export_size(model, None)
    images, _ = probe(2, len(model.image_mean), size)
    form = RawForm(model, size).eval()
    program = trace(form, (images,), dynamic_batch=True)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs decompositions that this torch does not have
    try:
        decoder = TorchFXPythonDecoder.from_exported_program(program)
    finally:
        logging.disable(before)
    frontend = FrontEndManager().load_by_framework("pytorch")
    network = frontend.convert(frontend.load(decoder))
    for port, name in zip(network.outputs, form.output_names):
        port.get_tensor().set_names({name})
    network.reshape([-1, *images.shape[1:]])
    return network
