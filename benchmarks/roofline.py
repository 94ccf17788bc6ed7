"""The roofline of a detector: the machine's peak rates, and the share of them that each part of the network reaches."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.timing import measure
from detectors.inference.deploy import DeployedDetector
from detectors.inference.packing import PackedConv2d
from pyramids import MLFPN


def measured_peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Peak rates of this machine: a large matrix product in GFLOP/s and a large copy in GB/s (read and written)."""
    large = device.type == "cuda"
    side = 8192 if large else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = measure(torch.mm, [(a, b), (b, a)], device=device, repeats=10).median_ms
    source = torch.randn((512 if large else 64) * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    copy = measure(target.copy_, [(source,)], device=device, repeats=10).median_ms
    return {"gflops": 2 * side**3 / product / 1e6, "gbytes": 2 * source.numel() * 4 / copy / 1e6}


class _Chain(nn.Module):
    """The part of MLFPN between FFMv1 and SFAM."""

    def __init__(self, neck: MLFPN) -> None:
        super().__init__()
        self.tums = neck.tums  # for the weights' bytes
        self.forward = neck.levels_of


def detector_parts(
    model: DeployedDetector, batch: Tensor, sizes: Tensor
) -> list[tuple[str, nn.Module, tuple[Any, ...]]]:
    """The parts of a deployed detector with the inputs that they get of `batch`: backbone, neck's parts, head, NMS."""
    x = ((batch - model.image_mean) / model.image_std).to(model.dtype, memory_format=torch.channels_last)
    backbone, neck = model.pyramid.backbone, model.pyramid.neck
    maps = backbone(x)
    parts: list[tuple[str, nn.Module, tuple[Any, ...]]] = [("backbone", backbone, (x,))]
    if isinstance(neck, MLFPN):
        base = neck.ffm(*maps)
        chain = _Chain(neck)
        levels = chain(base)
        parts += [("FFMv1", neck.ffm, tuple(maps)), ("FFMv2 and TUMs", chain, (base,))]
        if neck.sfam is not None:
            parts.append(("SFAM", neck.sfam, (levels,)))
    else:
        parts.append((type(neck).__name__, neck, (maps,)))
    features = neck(maps)
    box_regression, class_logits = model.head(features)
    scores = model.loss.scores(class_logits)
    anchors = model.anchor_boxes((batch.shape[2], batch.shape[3]), features)
    return [
        *parts,
        ("head", model.head, (features,)),
        ("post-processing", model.postprocess, (box_regression.float(), scores, anchors, sizes)),
    ]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def count_flops(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, Any]:
    """FLOPs of `part(*inputs)`, those of packed convolutions among them, and its outputs."""

    def packed(x: list[int], weight: list[int], *rest: Any, out_shape: list[int], **kwargs: Any) -> int:
        return int(conv_flop_count(x, weight, out_shape))

    with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._convolution_pointwise: packed}) as counter:
        outputs = part(*inputs)
    return counter.get_total_flops(), outputs


def _weights(part: nn.Module) -> list[Tensor]:
    """Parameters and buffers; packed weights are neither."""
    packed = [module.weight for module in part.modules() if isinstance(module, PackedConv2d)]
    return [*part.parameters(), *part.buffers(), *packed]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@torch.no_grad()
def roofline(
    model: DeployedDetector, batch: Tensor, sizes: Tensor, *, repeats: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """FLOPs, minimum bytes, time and share of the peak of each part of a detector.

    The minimum bytes are those of inputs, outputs and weights, each moved once. The time of a part cannot fall below
    `floor_ms`: its FLOPs over the peak rate, or its bytes over the peak bandwidth, whichever is longer.
    """
    peaks = measured_peaks(batch.device, model.dtype)
    rows: list[Mapping[str, Any]] = []
    for name, part, inputs in detector_parts(model, batch, sizes):
        progress(name)
        flops, outputs = count_flops(part, inputs)
        moved = _bytes([*_tensors(inputs), *_tensors(outputs), *_weights(part)])
        timing = measure(part, [inputs], device=batch.device, repeats=repeats)
        gflop, gbyte = flops / 1e9, moved / 1e9
        floor = max(gflop / peaks["gflops"], gbyte / peaks["gbytes"]) * 1e3
        rows.append(
            {
                "part": name,
                "gflop": gflop,
                "gbyte": gbyte,
                **timing.as_row(),
                "floor_ms": floor,
                "bound": "arithmetic" if gflop / peaks["gflops"] > gbyte / peaks["gbytes"] else "memory",
                "share_of_peak_flops": gflop / timing.median_ms * 1e3 / peaks["gflops"],
                "share_of_floor": floor / timing.median_ms,
            }
        )
    return {"peaks": peaks, "parts": rows}
