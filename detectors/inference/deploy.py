"""A detector made ready for inference: less arithmetic, fewer and wider operations, the same numbers.

What changes: batch norms go into the convolutions before them; the box and class predictors of a map, which read the
same input, become one convolution padded to a width that matrix units like; the reductions of MLFPN's base feature
become one; weights and activations are channels-last and of the wanted precision; default boxes are computed once. On
the CPU wide 3x3 convolutions are computed with less arithmetic (`winograd`), and the weights of the others
are packed once (`packing`), or by the compiler.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import ConvNormAct
from torch import Tensor, nn

from detectors.inference.folding import fold_batch_norms
from detectors.inference.packing import can_pack, pack_convolutions
from detectors.inference.surgery import replace_modules
from detectors.inference.winograd import use_winograd
from detectors.models.head import SSDHead
from detectors.models.inputs import batch_images, check_images, image_sizes
from detectors.models.postprocess import as_detections
from detectors.models.ssd import SSD
from pyramids import MLFPN

_WIDTH = 32  # convolutions whose output channels are a multiple of this run at full speed on CPUs and GPUs
_CPU_SLICE = 128  # outputs of a wide predictor computed at once on a CPU: with more, weights fall out of its cache


class DeployedDetector(nn.Module):
    """What `SSD.deploy` returns: a detector for inference only, with the detector's own contract.

    `model(images)` gives a list of `{boxes, labels, scores}`, `model.forward_fixed(batch, sizes)` the fixed-size form.
    It stays on the device that the detector is on. On the CPU the weights of wide 3x3 convolutions take up to 4 times
    the memory.

    Args:
        detector: the detector, which stays as it is.
        dtype: precision of the network, `torch.float32`, `torch.bfloat16` or `torch.float16`; boxes and scores are
            computed in float32.
        compile: compile the network and the post-processing, on the CPU with frozen weights, on CUDA as CUDA graphs.
            The first image of each shape takes about a minute.

    Raises:
        ValueError: for another dtype.

    >>> import torch
    >>> from detectors import create_detector
    >>> detector = create_detector("ssd", 4, backbone="resnet18", neck="fpn", out_channels=32, image_size=64)
    >>> deployed = detector.deploy()
    >>> len(deployed([torch.rand(3, 48, 80)]))
    1
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, detector: SSD, *, dtype: torch.dtype = torch.float32, compile: bool = False) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is torch.float32, torch.bfloat16 or torch.float16: got {dtype}")
        model = copy.deepcopy(detector).eval().requires_grad_(False)
        self.image_size, self.num_classes, self.class_names = model.image_size, model.num_classes, model.class_names
        self.antialias = model.antialias
        self.dtype = dtype
        size = model.image_size or (320, 320)
        fold_batch_norms(model.pyramid, torch.rand(1, 3, *size, device=model.image_mean.device))
        if isinstance(model.pyramid.neck, MLFPN):
            merge_reductions(model.pyramid.neck)
        self.pyramid = model.pyramid.to(dtype).to(memory_format=torch.channels_last)
        self.head = MergedHead(model.head).to(dtype).to(memory_format=torch.channels_last)
        self.anchors, self.loss, self.postprocess = model.anchors, model.loss, model.postprocess
        self.register_buffer("image_mean", model.image_mean, persistent=False)
        self.register_buffer("image_std", model.image_std, persistent=False)
        priors = None
        if model.image_size is not None:
            sizes = model.pyramid.output_sizes(model.image_size)
            priors = model.anchors(model.image_size, sizes, device=model.image_mean.device)
        self.register_buffer("priors", priors, persistent=False)
        self._compile = compile
        self._run: Any = self._eager
        if model.image_mean.device.type == "cpu":
            self._fit_to_cpu(torch.rand(3, *size), pack=not compile)
        if compile:
            mode = "reduce-overhead" if model.image_mean.is_cuda else None
            self._run = torch.compile(self._eager, fullgraph=True, dynamic=False, mode=mode)
        self.eval()

    def _fit_to_cpu(self, image: Tensor, *, pack: bool) -> None:
        if not can_pack(image.device, self.dtype):
            return
        use_winograd(self, self.dtype, [image])
        plain = [conv for conv in self.head.convs if isinstance(conv, nn.Conv2d)]
        replace_modules(self.head, {conv: SlicedConv2d(conv, _CPU_SLICE) for conv in plain})
        if pack:
            pack_convolutions(self, [image])

    def train(self, mode: bool = True) -> "DeployedDetector":
        """Raises `ValueError` for `True`: a deployed detector has no batch norms left to train."""
        if mode:
            raise ValueError("a deployed detector cannot be trained: train the detector it was made from")
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DeployedDetector":
        moved = fn(self.image_mean)
        if moved.device != self.image_mean.device or moved.dtype != self.image_mean.dtype:
            raise ValueError(
                "a deployed detector keeps its device and precision: move the detector, then call its "
                "deploy(dtype=...) there"
            )
        return super()._apply(fn, recurse)

    def _eager(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = ((batch - self.image_mean) / self.image_std).to(self.dtype, memory_format=torch.channels_last)
        features = self.pyramid(x)
        box_regression, class_logits = self.head(features)
        shape = (batch.shape[2], batch.shape[3])
        priors = self.priors
        if shape != self.image_size or priors is None:
            priors = self.anchors(shape, [(f.shape[2], f.shape[3]) for f in features], device=batch.device)
        found: tuple[Tensor, Tensor, Tensor, Tensor] = self.postprocess(
            box_regression.float(), self.loss.scores(class_logits), priors, sizes
        )
        return found

    @torch.no_grad()
    def forward_fixed(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `SSD.forward_fixed`: images `(N, 3, H, W)` in 0..1 and sizes `(N, 2)` to boxes, scores, labels, valid."""
        if not self._compile:
            return self._eager(batch, sizes)
        if batch.is_cuda:
            boxes, scores, labels, valid = self._run(batch, sizes)
            # A CUDA graph writes its next outputs where these are.
            return boxes.clone(), scores.clone(), labels.clone(), valid.clone()
        from torch._inductor import config

        # An option of torch.compile reaches the compiler alone; the tracer too must know that weights are constants.
        with config.patch(freezing=True):
            found: tuple[Tensor, Tensor, Tensor, Tensor] = self._run(batch, sizes)
        return found

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """As `SSD.forward` in evaluation: images `(3, H, W)` in 0..1 to a list of `{boxes, labels, scores}`."""
        check_images(images)
        device = self.image_mean.device
        batch = batch_images(images, self.image_size, antialias=self.antialias).to(device)
        return as_detections(*self.forward_fixed(batch, image_sizes(images, device)))


class MergedHead(nn.Module):
    """An `SSDHead`, which stays as it is, with one convolution a map for boxes and classes, padded to a multiple of 32
    channels.
    """

    def __init__(self, head: SSDHead) -> None:
        super().__init__()
        self.num_classes = head.num_classes
        self.box_channels = 4 * head.boxes_per_cell
        self.channels = self.box_channels + head.num_classes * head.boxes_per_cell
        self.convs = nn.ModuleList(
            merge_convs((boxes, classes), -(-self.channels // _WIDTH) * _WIDTH)
            for boxes, classes in zip(head.boxes, head.classes)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `SSDHead.forward`: box offsets `(N, P, 4)` and class logits `(N, P, num_classes)`."""
        n = features[0].shape[0]
        maps = [conv(x).permute(0, 2, 3, 1) for conv, x in zip(self.convs, features)]
        boxes = [x[..., : self.box_channels].reshape(n, -1, 4) for x in maps]
        classes = [x[..., self.box_channels : self.channels].reshape(n, -1, self.num_classes) for x in maps]
        return torch.cat(boxes, dim=1), torch.cat(classes, dim=1)


class SlicedConv2d(nn.Module):
    """A convolution as several, each of up to `width` of its output channels: `(N, C, H, W)` to `(N, C', H', W')`."""

    def __init__(self, conv: nn.Conv2d, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            with_outputs(conv, weight, bias)
            for weight, bias in zip(conv.weight.split(width), conv.get_parameter("bias").split(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


def merge_convs(convs: Iterable[Any], width: int | None = None) -> nn.Conv2d:
    """Convolutions of one input and one shape as a single one; zeros fill up to `width` output channels."""
    convs = list(convs)
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([conv.bias for conv in convs])
    padding = (width or len(bias)) - len(bias)
    return with_outputs(convs[0], F.pad(weight, (0, 0, 0, 0, 0, 0, 0, padding)), F.pad(bias, (0, padding)))


def with_outputs(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same hyperparameters with other outputs."""
    other = copy.copy(conv)
    other._parameters = {}
    other.out_channels = len(bias)
    other.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    other.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return other


class MergedReduction(nn.Module):
    """All 1x1 blocks on MLFPN's base feature as one convolution: `(N, C, H, W)` to a list of maps, one a block."""

    def __init__(self, blocks: Sequence[Any]) -> None:
        super().__init__()
        self.conv = merge_convs(block.conv for block in blocks)
        self.act: nn.Module = blocks[0].bn  # what folding left of norm and activation
        self.widths = [block.conv.out_channels for block in blocks]

    def forward(self, base: Tensor) -> list[Tensor]:
        """`(N, C, H, W)` to one map `(N, C_i, H, W)` a block."""
        return list(self.act(self.conv(base)).split(self.widths, dim=1))


class MergedMLFPN(MLFPN):
    """An MLFPN that reduces its base feature for all levels at once."""

    merged: nn.Module

    def reduce_base(self, base: Tensor) -> list[Tensor]:
        return cast(list[Tensor], self.merged(base))


def merge_reductions(neck: MLFPN) -> None:
    """Make an MLFPN of the paper's design, its batch norms folded, a `MergedMLFPN`, in place."""
    blocks: list[Any] = [neck.reduce, *(ffm.reduce for ffm in neck.fuse)]
    folded = all(isinstance(block, ConvNormAct) and block.conv.bias is not None for block in blocks)
    if folded and len(blocks) > 1:
        neck.merged = MergedReduction(blocks)
        del neck.reduce, neck.fuse
        neck.__class__ = MergedMLFPN  # all else stays
