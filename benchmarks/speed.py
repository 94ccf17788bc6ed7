"""`python -m benchmarks speed`: from an image to its boxes, one image at a time, and where the time goes.

The paper's Fig. 5 (M2Det, arXiv 1811.04533, section 4.3): network and NMS at batch 1, averaged over images. Weights are
random, so the score threshold sets the load of NMS: at 0 it is the maximum, with every class full; at the models' own
thresholds it is smaller. The table has both.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import detection as torchvision_detection

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.results import Results
from benchmarks.roofline import roofline
from benchmarks.speed_ways import DTYPES, Opened, Way, open_way, possible
from benchmarks.timing import compare, measure
from detectors import SSD, DeployedDetector, create_detector, list_detectors
from detectors.errors import InputError

PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
SMALL = "m2det_320_efficientnet_lite0"
OURS_CPU = ("m2det_320_vgg16", "m2det_320_vgg16 released", "ssd_320_vgg16", SMALL)
OURS_GPU = (
    *OURS_CPU,
    "m2det_512_vgg16",
    "m2det_800_vgg16",
    "m2det_320_resnet101",
    "m2det_512_resnet101",
    "ssd_300_vgg16",
    "ssd_512_vgg16",
    "dssd_320_vgg16",
)
COMPILED_BF16 = Way("deploy", "bf16", compiled=True)
# torchvision's detectors, and the size that each resizes a square image to.
THEIRS = {
    "ssd300_vgg16": 300,
    "retinanet_resnet50_fpn_v2": 800,
    "fcos_resnet50_fpn": 800,
    "fasterrcnn_resnet50_fpn": 800,
}


@dataclass(frozen=True)
class Plan:
    """Measurements of a budget: presets of ours, models of torchvision's, presets that are compiled and that run in
    other runtimes, images and batch sizes.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    compiled: tuple[str, ...]
    images: int
    batches: tuple[int, ...] = ()
    runtimes: tuple[str, ...] = ()


PLANS = {
    "smoke": Plan(("ssd_320_efficientnet_lite0",), (), (), 2, (), ("ssd_320_efficientnet_lite0",)),
    "cpu": Plan(
        OURS_CPU,
        ("ssd300_vgg16", "retinanet_resnet50_fpn_v2"),
        (*OURS_CPU[:2], SMALL),
        12,
        (),
        ("m2det_320_vgg16 released", SMALL),
    ),
    "gpu": Plan(
        OURS_GPU, tuple(THEIRS), ("m2det_320_vgg16", "m2det_320_vgg16 released", "m2det_512_vgg16"), 100, (32,)
    ),
}


def build_ours(name: str, threshold: float | None) -> SSD:
    """A preset by name, `... released` for the authors' design, with another score threshold if one is given."""
    preset, *rest = name.split()
    neck = {"design": "released"} if rest else {}
    postprocess = {} if threshold is None else {"score_threshold": threshold}
    torch.manual_seed(0)
    return create_detector(preset, 81, neck_kwargs=neck, postprocess_kwargs=postprocess).eval()


def build_theirs(name: str, threshold: float | None) -> nn.Module:
    """A model of torchvision's without weights, with another score threshold if one is given."""
    torch.manual_seed(0)
    key = "box_score_thresh" if name.startswith("faster") else "score_thresh"
    extra = {} if threshold is None else {key: threshold}
    model: nn.Module = getattr(torchvision_detection, name)(weights=None, weights_backbone=None, **extra)
    return model.eval()


@dataclass(kw_only=True)
class Speed(Command):
    """Images per second from image to boxes, of our presets and of torchvision's detectors in the same run."""

    models: tuple[str, ...] = ()
    """Presets to measure in place of the budget's; `"NAME released"` is the authors' design."""
    roofline: bool = False
    """Also measure the machine's peaks, and each part of the first preset against them."""

    def run(self) -> int:
        device = self.open_device()
        plan = PLANS[self.budget]
        unknown = [name for name in self.models if name.split()[0] not in list_detectors()]
        if unknown:
            raise InputError(f"no detectors are named {unknown}: expected names of {list_detectors()}")
        names = self.models or plan.ours
        results = Results(self.output, "speed", device, {"images": plan.images, "budget": self.budget})
        measurements = list(self._measurements(names, plan, device))
        if self.roofline:
            for precision in PRECISIONS:
                take = partial(self._roofline, names[0], precision, plan, device)
                measurements.append(
                    Measurement(f"roofline/{names[0]}/{precision}", {"kind": "roofline", "model": names[0]}, take)
                )
        take_measurements(results, measurements, "speed")
        _print_table(results)
        return 0

    def _measurements(self, names: tuple[str, ...], plan: Plan, device: torch.device) -> Iterator[Measurement]:
        original = lru_cache(maxsize=1)(build_ours)  # thresholds and ways of one model follow each other
        # Compilation takes about a minute each and comes last, so that an interrupted run has the rest.
        late: list[Measurement] = []
        for name in names:
            for threshold, load in ((None, "own threshold"), (0.0, "full")):
                ways = [Way("eager"), *(Way("deploy", precision) for precision in PRECISIONS)]
                if name in plan.compiled and load == "full":
                    ways += [Way("deploy", precision, compiled=True) for precision in PRECISIONS]
                if name in plan.runtimes and load == "own threshold":
                    ways += [Way("onnxruntime"), *(Way("openvino", kind) for kind in ("fp32", "bf16", "int8"))]
                for way in possible(ways, device):
                    columns = {"kind": "speed", "model": name, "load": load, "way": str(way), "batch": 1}
                    take = partial(self._ours, original, name, threshold, way, 1, plan, device)
                    measurement = Measurement(f"{name}/{load}/{way}/1", columns, take)
                    if way.compiled:
                        late.append(measurement)
                    else:
                        yield measurement
            for batch in plan.batches if name in plan.compiled else ():
                columns = {
                    "kind": "speed",
                    "model": name,
                    "load": "full",
                    "way": str(COMPILED_BF16),
                    "batch": batch,
                }
                take = partial(self._ours, original, name, 0.0, COMPILED_BF16, batch, plan, device)
                late.append(Measurement(f"{name}/full/{COMPILED_BF16}/{batch}", columns, take))
        for name in plan.theirs:
            for threshold, load in ((None, "own threshold"), (0.0, "full")):
                columns = {
                    "kind": "speed",
                    "model": f"torchvision {name}",
                    "load": load,
                    "way": "eager fp32",
                    "batch": 1,
                }
                take = partial(self._theirs, name, threshold, plan, device)
                yield Measurement(f"torchvision {name}/{load}/eager fp32/1", columns, take)
        yield from late

    def _ours(
        self,
        build: Callable[[str, float | None], SSD],
        name: str,
        threshold: float | None,
        way: Way,
        batch: int,
        plan: Plan,
        device: torch.device,
    ) -> Mapping[str, Any]:
        detector = build(name, threshold).to(device)
        size = (detector.image_size or (320, 320))[0]
        model, eager = open_way(way, detector), open_way(Way("eager"), detector)
        baseline = None if way.runtime == "eager" else eager
        row = _time(model.whole, size, batch, plan.images, device, baseline=baseline.whole if baseline else None)
        inputs = [(torch.rand(batch, 3, size, size, device=device),) for _ in range(4)]
        return {"size": size, **row, **_time_network(model, baseline, inputs, plan.images, device)}

    def _theirs(self, name: str, threshold: float | None, plan: Plan, device: torch.device) -> Mapping[str, Any]:
        return {
            "size": THEIRS[name],
            **_time(build_theirs(name, threshold).to(device), THEIRS[name], 1, plan.images, device),
        }

    def _roofline(self, name: str, precision: str, plan: Plan, device: torch.device) -> Mapping[str, Any]:
        model = build_ours(name, 0.0).to(device)
        deployed = DeployedDetector(model, dtype=DTYPES[precision])
        batch = 32 if device.type == "cuda" else 1
        images = torch.rand(batch, 3, *model.image_size, device=device)  # type: ignore[misc]
        sizes = torch.tensor([model.image_size] * batch, device=device)
        result = roofline(deployed, images, sizes, repeats=max(3, plan.images // 2), progress=lambda part: None)
        return {"precision": precision, "batch": batch, **result}


def _time_network(
    model: Opened, baseline: Opened | None, inputs: list[tuple[Tensor]], images: int, device: torch.device
) -> Mapping[str, Any]:
    """Latency of the network alone, all anchors and scores its result, and how many times faster it is."""
    if model.network is None:
        return {}
    with torch.no_grad():
        if baseline is None or baseline.network is None:
            return {"network_ms": measure(model.network, inputs, device=device, repeats=images).median_ms}
        timing, ratio = compare(baseline.network, model.network, inputs, device=device, repeats=images)
    return {"network_ms": timing.median_ms, "network_times_faster": ratio}


def _time(
    model: Callable[[list[Tensor]], list[dict[str, Tensor]]],
    size: int,
    batch: int,
    images: int,
    device: torch.device,
    baseline: Callable[[list[Tensor]], list[dict[str, Tensor]]] | None = None,
) -> Mapping[str, Any]:
    """Latency of `model(images)`, images as they lie on the device, how many detections it gave, and how many times
    faster it is than a baseline.
    """
    inputs = [([*torch.rand(batch, 3, size, size, device=device)],) for _ in range(4)]
    counts: list[int] = []

    def detect(images: list[Tensor]) -> None:
        counts.append(sum(len(detections["boxes"]) for detections in model(images)))

    faster = {}
    with torch.no_grad():
        if baseline is None:
            timing = measure(detect, inputs, device=device, repeats=images, warmup=2)
        else:
            timing, ratio = compare(baseline, detect, inputs, device=device, repeats=images, warmup=2)
            faster = {"times_faster": ratio}
    return {
        **timing.as_row(),
        **faster,
        "images_per_second": batch * 1e3 / timing.median_ms,
        "detections": sum(counts) / len(counts) / batch,
    }


def _print_table(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="From image to boxes: median latency, and how many times faster than eager")
    for name in ("model", "NMS load", "way", "batch", "ms", "times faster", "network ms", "times faster"):
        table.add_column(name, justify="left" if name in ("model", "NMS load", "way") else "right")
    for row in results.rows:
        if row["kind"] == "speed" and "median_ms" in row:
            times = f"{row['times_faster']:.2f}" if "times_faster" in row else ""
            numbers = (str(row["batch"]), f"{row['median_ms']:.1f}", times)
            network = [f"{row[key]:.2f}" if key in row else "" for key in ("network_ms", "network_times_faster")]
            table.add_row(row["model"], row["load"], row["way"], *numbers, *network)
    Console().print(table)
