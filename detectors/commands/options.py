"""The options by which commands open a detector, and the detector that they open."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detectors.errors import InputError

if TYPE_CHECKING:
    from detectors.models.detector import Detector
    from detectors.models.ssd import SSD

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(kw_only=True)
class DetectorOptions:
    """Which detector to open, and where and how it runs."""

    checkpoint: str
    """A run's folder (its best checkpoint), a saved detector, a .pth checkpoint of M2Det's authors, or the name of a
    detector on the Hub."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height and width, to which images are stretched: for the authors' checkpoints, by default 512, and for
    detectors that were made without one; others know theirs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU if there is one."""
    engine: Literal["torch", "openvino"] = "torch"
    """Engine that runs the network. openvino, on the CPU, is the faster for small networks; it needs the extra
    `openvino`."""
    network: Path | None = None
    """With the engine openvino: a network of this checkpoint that `export` wrote as .xml, such as one in INT8."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network; auto takes bf16 where the GPU or the processor has instructions for it, and fp32
    elsewhere. Boxes and scores are always computed in fp32."""

    def open(self) -> "SSD":
        """The detector, on its device.

        Raises:
            ValueError: for an image size that is not its own, or a device that is not there or not the engine's.
        """
        from detectors.inference.forms import export_size
        from detectors.saving import load

        if self.engine == "openvino" and self.device == "cuda":
            raise InputError("--engine openvino runs on the CPU: got --device cuda")
        device = "cpu" if self.engine == "openvino" else choose_device(self.device)
        detector = load(self.checkpoint, image_size=self.image_size or 512)
        if self.image_size is not None:
            detector.image_size = export_size(detector, self.image_size)
        return detector.to(device)

    def deploy(self, detector: "SSD", *, compile: bool = False) -> "Detector":
        """The detector made ready for inference, in the engine and the precision that were chosen."""
        import torch

        precision = self.precision
        if precision == "auto":
            precision = choose_precision(detector.image_mean.device.type)
        dtype = getattr(torch, PRECISIONS[precision])
        return detector.deploy(engine=self.engine, dtype=dtype, compile=compile, network=self.network)


def choose_device(name: str) -> str:
    """`auto` as `cuda` or `cpu`.

    Raises:
        ValueError: for `cuda` where there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no CUDA GPU here: use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def choose_precision(device: str) -> Literal["bf16", "fp32"]:
    """`bf16` where a device has instructions for it, `fp32` elsewhere."""
    import torch

    from detectors.inference.deploy import has_instructions

    return "bf16" if has_instructions(torch.device(device), torch.bfloat16) else "fp32"
