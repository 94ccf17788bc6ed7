"""A detector made ready for inference: less arithmetic, fewer operations, the same numbers.

Re-parameterizable blocks become single convolutions, and batch norms go into the convolutions before them; weights and
activations are channels-last and of the chosen precision; anchors are computed once; one convolution per map predicts
boxes and classes (`merging`). On the CPU wide 3x3 convolutions are computed with less arithmetic (`winograd`), and the
weights of wide ones are packed (`packing`). Each module names its gain.

Channels-last takes 0.87 of the time of M2Det-320 with VGG-16 on one thread and 0.83 on two (one image, float32, AVX2).
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from detectors.inference.folding import fold_batch_norms
from detectors.inference.merging import merge_predictors
from detectors.inference.packing import can_pack, pack_convolutions
from detectors.inference.winograd import use_winograd
from detectors.models.detector import Detector
from detectors.models.inputs import check_batch, check_sizes
from detectors.models.ssd import SSD
from pyramids import fuse_reparameterized


class InferenceDetector(Detector):
    """Base of detectors for inference only: fixed device and precision, no training.

    Args:
        detector: a private copy of the detector that it is made from, on its final device.
    """

    def __init__(self, detector: SSD) -> None:
        super().__init__()
        self.num_classes, self.class_names = detector.num_classes, detector.class_names
        self.image_size, self.antialias = detector.image_size, detector.antialias
        self.anchors, self.loss, self.postprocess = detector.anchors, detector.loss, detector.postprocess
        self.register_buffer("image_mean", detector.image_mean, persistent=False)
        self.register_buffer("image_std", detector.image_std, persistent=False)

    def train(self, mode: bool = True) -> "InferenceDetector":
        """Raises `ValueError` for `True`: a deployed detector has nothing left to train."""
        if mode:
            raise ValueError("a deployed detector cannot be trained: train the detector it was made from")
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InferenceDetector":
        moved = fn(self.image_mean)
        if moved.device != self.image_mean.device or moved.dtype != self.image_mean.dtype:
            raise ValueError(
                "a deployed detector keeps its device and precision: move the detector, then call its "
                "deploy(dtype=...) there"
            )
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """As `SSD.forward` in evaluation: images `(3, H, W)` in 0..1 to a list of `{boxes, labels, scores}`."""
        detections: list[dict[str, Tensor]] = super().forward(images)
        return detections


class DeployedDetector(InferenceDetector):
    """A detector for inference only, as `SSD.deploy` returns it, with the detector's own contract.

    `model(images)` gives a list of `{boxes, labels, scores}`, `model.forward_fixed(batch, sizes)` the fixed-size form.
    It is the faster engine for wide networks: on VGG-16 M2Det-320 of the authors' design is 1.95 times as fast as
    undeployed here, 2.20 times compiled, and 1.23 times in `OpenVINODetector`. For small networks, of depthwise
    convolutions and cheap layers, that is the faster: on EfficientNet-lite0 it is 1.83 times here and 2.43 times there
    (network alone, float32, two threads, AVX-512).

    It stays on the device that the detector is on. On the CPU the weights of wide 3x3 convolutions take about 4 times
    the memory. It can be copied and pickled; to save or export, use the detector that it was made from.

    Args:
        detector: the detector, which stays as it is; its own precision does not matter.
        dtype: precision of the network, `torch.float32`, `torch.bfloat16` or `torch.float16`; boxes and scores are
            computed in float32. Warns where the processor has no instructions for it.
        compile: compile the network and the post-processing, on the CPU with frozen weights, on CUDA as CUDA graphs.
            The first image of each shape takes about a minute.

    Raises:
        TypeError: for anything but an `SSD`, such as a detector that is deployed already.
        ValueError: for another dtype.

    >>> import torch
    >>> from detectors import create_detector
    >>> detector = create_detector("ssd", 4, backbone="resnet18", neck="fpn", image_size=64)
    >>> deployed = detector.deploy()
    >>> len(deployed([torch.rand(3, 48, 80)]))
    1
    """

    own_priors: Tensor | None

    def __init__(self, detector: SSD, *, dtype: torch.dtype = torch.float32, compile: bool = False) -> None:
        if not isinstance(detector, SSD):
            raise TypeError(f"only an SSD or M2Det can be deployed: got a {type(detector).__name__}")
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is torch.float32, torch.bfloat16 or torch.float16: got {dtype}")
        model = copy.deepcopy(detector).float().eval().requires_grad_(False)
        super().__init__(model)
        if not has_instructions(model.image_mean.device, dtype):
            warnings.warn(
                f"this processor has no instructions for {dtype}, only {torch.backends.cpu.get_cpu_capability()}: the "
                "network is slower than in torch.float32, by several times on AVX2",
                stacklevel=4,
            )
        self.dtype, self.compiled = dtype, compile
        device = model.image_mean.device
        blank = torch.zeros(1, len(model.image_mean), *(model.image_size or (320, 320)), device=device)
        try:
            fuse_reparameterized(model.pyramid)
        except ValueError as error:
            warnings.warn(f"re-parameterizable blocks keep their branches: {error}", stacklevel=3)
        fold_batch_norms(model.pyramid, blank)
        self.pyramid = model.pyramid.to(dtype).to(memory_format=torch.channels_last)
        self.head = merge_predictors(model.head).to(dtype).to(memory_format=torch.channels_last)
        boxes = None
        if model.image_size is not None:
            boxes = model.anchors(model.image_size, model.pyramid.output_sizes(model.image_size), device=device)
        self.register_buffer("own_priors", boxes, persistent=False)
        self._run: Callable[..., Any] = super().forward_fixed
        if device.type == "cpu":
            use_winograd(self, dtype, blank)
            if not compile:  # the compiler packs by itself
                pack_convolutions(self, blank)
        self._run = self._compile()
        self.eval()

    def _compile(self) -> Callable[..., Any]:
        if not self.compiled:
            return super().forward_fixed
        mode = "reduce-overhead" if self.image_mean.is_cuda else None
        return torch.compile(super().forward_fixed, fullgraph=True, dynamic=False, mode=mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._run = self._compile()

    def normalize(self, batch: Tensor) -> Tensor:
        """Images in 0..1 as the network takes them, in its precision and channels-last."""
        return super().normalize(batch).to(self.dtype, memory_format=torch.channels_last)

    def anchor_boxes(self, image_size: tuple[int, int], features: Sequence[Tensor]) -> Tensor:
        """Anchors `(P, 4)`: the cached ones, or new ones for another image size."""
        if self.own_priors is not None and image_size == self.image_size:
            return self.own_priors
        return super().anchor_boxes(image_size, features)

    @torch.no_grad()
    def forward_fixed(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `SSD.forward_fixed`: images `(N, 3, H, W)` in 0..1 and sizes `(N, 2)` to boxes, scores, labels, valid."""
        if not self.compiled:
            return super().forward_fixed(batch, sizes)
        check_batch(batch, len(self.image_mean), values=True)
        check_sizes(sizes, batch.shape[0])
        if batch.is_cuda:
            boxes, scores, labels, valid = self._run(batch, sizes)
            # A CUDA graph writes its next outputs where these are.
            return boxes.clone(), scores.clone(), labels.clone(), valid.clone()
        from torch._inductor import config

        # An option of torch.compile reaches the compiler alone; the tracer too must know that weights are constant.
        with config.patch(freezing=True):
            found: tuple[Tensor, Tensor, Tensor, Tensor] = self._run(batch, sizes)
        return found


def has_instructions(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has native instructions for convolutions in this dtype."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype != torch.bfloat16 or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    # oneDNN takes bfloat16 on every processor with AVX-512, of which the older ones convert it.
    native = "AVX512" not in torch.backends.cpu.get_cpu_capability() or torch.cpu._is_avx512_bf16_supported()
    return native and can_pack(dtype)
