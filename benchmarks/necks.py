"""`python -m benchmarks necks`: cost and speed of every neck on every backbone."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.costs import pyramid_costs
from benchmarks.results import Results
from benchmarks.subjects import TORCHVISION, Subject, peer, registered
from benchmarks.timing import measure
from detectors.errors import InputError
from detectors.inference.deploy import has_instructions
from pyramids import list_necks
from pyramids.backbone import Backbone
from pyramids.source import create_backbone

AGAIN = "again"


@dataclass(frozen=True)
class Mode:
    """One way to run a neck: alone on random maps, or with its backbone on random images (`part="pyramid"`).

    bf16 converts weights and maps in a forward pass, and is autocast where there is a backward pass.
    """

    batch: int
    backward: bool = False
    compiled: bool = False
    precision: str = "fp32"
    layout: str = "contiguous"
    part: str = "neck"

    @property
    def name(self) -> str:
        words = (
            self.part,
            f"b{self.batch}",
            "forward+backward" if self.backward else "forward",
            "compiled" if self.compiled else "eager",
            self.precision,
            self.layout,
        )
        return "-".join(words)


@dataclass(frozen=True)
class Plan:
    """Measurements of a budget: `everywhere`, at the first size on all backbones, or on the first backbone only."""

    backbones: tuple[str, ...]
    sizes: tuple[int, ...]
    seconds: float
    repeats: tuple[int, int]
    everywhere: tuple[Mode, ...]
    first_size: tuple[Mode, ...]
    once: tuple[Mode, ...]

    def modes(self, backbone: int, size: int) -> tuple[Mode, ...]:
        """The modes for the backbone and the size of these places."""
        first = self.first_size if size == 0 else ()
        return self.everywhere + first + (self.once if size == 0 and backbone == 0 else ())

    def without_bf16(self) -> "Plan":
        """This plan without its modes in bf16."""

        def kept(modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
            return tuple(mode for mode in modes if mode.precision != "bf16")

        return replace(self, everywhere=kept(self.everywhere), first_size=kept(self.first_size), once=kept(self.once))


_BACKBONES = ("tf_efficientnet_lite0", "resnet50", "vgg16_reduced")
_FAST = Mode(16, precision="bf16", layout="channels_last")
PLANS = {
    "smoke": Plan(("resnet10t",), (272,), 0.1, (2, 3), (Mode(1),), (), (Mode(2, backward=True),)),
    "cpu": Plan(
        _BACKBONES,
        (320, 512),
        1.0,
        (5, 30),
        (Mode(1), Mode(4)),
        (Mode(1, part="pyramid"), Mode(2, backward=True)),
        (Mode(1, layout="channels_last"), Mode(1, precision="bf16"), Mode(1, compiled=True)),
    ),
    "gpu": Plan(
        _BACKBONES,
        (320, 512),
        0.25,
        (20, 50),
        (Mode(1), Mode(16), replace(_FAST, batch=1), _FAST, replace(_FAST, part="pyramid")),
        (
            Mode(1, part="pyramid"),
            Mode(16, layout="channels_last"),
            Mode(16, precision="bf16"),
            Mode(16, backward=True),
            replace(_FAST, backward=True),
        ),
        (replace(_FAST, batch=1, compiled=True), replace(_FAST, compiled=True)),
    ),
}


@dataclass(kw_only=True)
class Necks(Command):
    """Parameters, operations, latency and memory of every neck, on backbones and at sizes."""

    necks: tuple[str, ...] = ()
    """Names of necks; all of the library's if none is given."""
    backbones: tuple[str, ...] = ()
    """Names of timm models; the budget's if none is given."""
    sizes: tuple[int, ...] = ()
    """Sides of the square images; the budget's if none is given."""
    peer: tuple[str, ...] = (TORCHVISION,)
    """Necks of other libraries, as module:Class."""
    baseline: str = "fpn"
    """The neck that ratios refer to; it is measured once more after all others, to show the noise."""

    def run(self) -> int:
        device = self.open_device()
        names = self.necks or tuple(list_necks())
        subjects = [registered(self.baseline)]  # first, and again last
        subjects += [registered(name) for name in names if name != self.baseline]
        subjects += [peer(path) for path in self.peer]
        subjects.append(replace(subjects[0], name=f"{self.baseline} {AGAIN}"))
        plan = PLANS[self.budget]
        plan = replace(plan, backbones=self.backbones or plan.backbones, sizes=self.sizes or plan.sizes)
        for backbone in plan.backbones:
            if not timm.is_model(backbone):
                raise InputError(f"timm has no model named {backbone!r}")
        settings = {"seconds": plan.seconds, "repeats": list(plan.repeats), "baseline": self.baseline}
        if not has_instructions(device, torch.bfloat16):
            plan = plan.without_bf16()
            print("necks: bf16 is skipped, this processor has no instructions for it")
        results = Results(self.output, "necks", device, settings)
        take_measurements(results, list(self._measurements(plan, subjects, device)), "necks")
        _print_table(results.rows, self.baseline)
        return 0

    def _measurements(self, plan: Plan, subjects: Sequence[Subject], device: torch.device) -> Iterator[Measurement]:
        build = lru_cache(maxsize=1)(_build)  # modes of one neck follow each other
        # Compilation takes long and comes last, so that an interrupted run has the rest.
        late: list[Measurement] = []
        for b, backbone in enumerate(plan.backbones):
            for subject in subjects:
                for s, size in enumerate(plan.sizes):
                    columns = {"neck": subject.name, "backbone": backbone, "size": size}
                    key = f"{backbone}/{size}/{subject.name}"
                    if AGAIN not in subject.name.split():
                        yield Measurement(f"{key}/costs", {"kind": "costs", **columns}, _costs(backbone, subject, size))
                    for mode in plan.modes(b, s):
                        take = _timing(build, backbone, subject, size, mode, plan, device)
                        measurement = Measurement(
                            f"{key}/{mode.name}", {"kind": "time", **columns, **asdict(mode)}, take
                        )
                        if mode.compiled:
                            late.append(measurement)
                        else:
                            yield measurement
        yield from late


def _costs(backbone: str, subject: Subject, size: int) -> Callable[[], Mapping[str, Any]]:
    return lambda: pyramid_costs(backbone, subject, size)


def _build(backbone: str, subject: Subject, size: int, device: torch.device) -> tuple[Backbone, nn.Module]:
    torch.manual_seed(0)
    source = create_backbone(backbone, subject.strides, image_size=(size, size))
    neck = subject.build(source.feature_info.channels(), source.feature_info.reduction())
    return source.to(device), neck.to(device)


def _timing(
    build: Callable[[str, Subject, int, torch.device], tuple[Backbone, nn.Module]],
    backbone: str,
    subject: Subject,
    size: int,
    mode: Mode,
    plan: Plan,
    device: torch.device,
) -> Callable[[], Mapping[str, Any]]:
    def take() -> Mapping[str, Any]:
        source, neck = build(backbone, subject, size, device)
        return time_mode(source, neck, size, mode, device, seconds=plan.seconds, repeats=plan.repeats)

    return take


def time_mode(
    source: Backbone,
    neck: nn.Module,
    size: int,
    mode: Mode,
    device: torch.device,
    *,
    seconds: float,
    repeats: tuple[int, int],
) -> dict[str, Any]:
    """Latency and memory of a neck, or of backbone and neck, in one mode.

    Args:
        source: the backbone, which says what maps the neck gets.
        neck: takes these maps.
        size: side of the square images.
        mode: how to run.
        device: where both modules are.
        seconds: time to spend, within the limits of `repeats`.
        repeats: minimum and maximum number of timed calls.

    Raises:
        ValueError: for a size that the neck does not take.
    """
    whole = mode.part == "pyramid"
    module: nn.Module = nn.Sequential(source, neck) if whole else neck
    module.train(mode.backward)
    dtype = torch.bfloat16 if mode.precision == "bf16" and not mode.backward else torch.float32
    layout = torch.channels_last if mode.layout == "channels_last" else torch.contiguous_format
    module.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    shapes = [(3, size, size)]
    if not whole:
        sizes = source.output_sizes((size, size))
        shapes = [(channels, *hw) for channels, hw in zip(source.feature_info.channels(), sizes)]
    inputs = [_maps(shapes, mode, dtype, layout, device) for _ in range(3)]
    call = torch.compile(module) if mode.compiled else module
    step = _training_step(call, module, mode) if mode.backward else _inference(call, whole)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    # The first call loads kernels or compiles, the second tells how many calls there is time for.
    measure(step, inputs, device=device, repeats=1, warmup=0)
    trial = measure(step, inputs, device=device, repeats=1, warmup=0).median_ms / 1e3
    count = min(max(round(seconds / trial), repeats[0]), repeats[1])
    timing = measure(step, inputs, device=device, repeats=count, warmup=0)
    values = {**timing.as_row(), "images_per_s": mode.batch / timing.median_ms * 1e3}
    if device.type == "cuda":
        # Weights and inputs are allocated before; this is the memory of the run beyond them.
        values["peak_mib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if mode.compiled:
        torch.compiler.reset()
    module.to(dtype=torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.zero_grad(set_to_none=True)
    return values


def _maps(
    shapes: Sequence[tuple[int, ...]], mode: Mode, dtype: torch.dtype, layout: torch.memory_format, device: torch.device
) -> tuple[Tensor, ...]:
    maps = [torch.randn(mode.batch, *shape, device=device).to(dtype, memory_format=layout) for shape in shapes]
    # A backbone in training needs the gradients of its maps; images need none.
    return tuple(x.requires_grad_(mode.backward and mode.part == "neck") for x in maps)


def _inference(call: Callable[..., Any], whole: bool) -> Callable[..., Any]:
    @torch.inference_mode()
    def step(*maps: Tensor) -> Any:
        return call(maps[0] if whole else list(maps))

    return step


def _training_step(call: Callable[..., Any], module: nn.Module, mode: Mode) -> Callable[..., Any]:
    gradients: list[Tensor] = []

    def step(*maps: Tensor) -> None:
        module.zero_grad(set_to_none=True)
        for x in maps:
            x.grad = None
        with torch.autocast(maps[0].device.type, dtype=torch.bfloat16, enabled=mode.precision == "bf16"):
            outputs = call(maps[0] if mode.part == "pyramid" else list(maps))
        if not gradients:
            gradients.extend(torch.randn_like(x) for x in outputs)
        torch.autograd.backward(outputs, gradients)

    return step


def ratios(rows: Sequence[Mapping[str, Any]], baseline: str) -> dict[str, float]:
    """For the key of every timed row: its median over that of the baseline in the same mode."""

    def mode(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("backbone", "size", *Mode.__dataclass_fields__))

    timed = [row for row in rows if row["kind"] == "time" and "error" not in row]
    base = {mode(row): row["median_ms"] for row in timed if row["neck"] == baseline}
    return {row["key"]: row["median_ms"] / base[mode(row)] for row in timed if mode(row) in base}


def _print_table(rows: Sequence[Mapping[str, Any]], baseline: str) -> None:
    """Print the first mode of every neck, over backbones and sizes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Batch 1, forward, fp32: latency over that of {baseline}")
    table.add_column("neck")
    table.add_column("median ratio", justify="right")
    by_neck: dict[str, list[float]] = {}
    ratio, name = ratios(rows, baseline), Mode(1).name
    for row in rows:
        if row["key"].endswith(f"/{name}") and row["key"] in ratio:
            by_neck.setdefault(row["neck"], []).append(ratio[row["key"]])
    for neck, values in by_neck.items():
        table.add_row(neck, f"{statistics.median(values):.2f}")
    Console().print(table)
