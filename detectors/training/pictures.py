"""Pictures at the end of a run: curves of losses and AP, precision over recall, detections beside ground truth."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectors.data import DetectionDataset
from detectors.drawing import compare, drawable
from detectors.saving import load
from detectors.training.evaluation import CocoResult, detect, device_of
from detectors.training.metrics import METRICS, read_lines

# Classes in one plot.
MAX_CURVES = 20


def draw_results(
    folder: Path, val: DetectionDataset | None, device: torch.device, *, max_detections: int, write: bool
) -> None:
    """Write `curves.png`, and with a split to evaluate on, `pr.png` and `detections.png` of the best checkpoint.

    Every process takes part in the evaluation; the one with `write` draws.
    """
    if write:
        draw_curves(read_lines(folder / METRICS), folder / "curves.png")
    if val is None:
        return
    best = load(folder / "best", map_location=device)
    detections = detect(best, val)
    if write:
        draw_precision(CocoResult(val, detections, max_detections=max_detections), folder / "pr.png")
        draw_comparison(best, val, folder / "detections.png")


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def draw_curves(lines: list[dict[str, Any]], file: Path) -> None:
    """Losses, learning rate and AP over the steps of a run, from the lines of its `metrics.jsonl`."""
    figure, (left, middle, right) = _figure(3)
    steps = [line for line in lines if "classification" in line]
    for name in ("classification", "bbox_regression"):
        left.plot([line["step"] for line in steps], [line[name] for line in steps], label=name)
    middle.plot([line["step"] for line in steps], [line["lr"] for line in steps])
    evaluations = [line for line in lines if "AP50" in line]
    for name in ("AP", "AP50", "AP75"):
        right.plot([e["step"] for e in evaluations], [e[name] for e in evaluations], marker=".", label=name)
    right.set_ylim(0, 1)
    for axes, title in ((left, "loss"), (middle, "learning rate"), (right, "average precision")):
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
    left.legend()
    right.legend()
    figure.savefig(file, dpi=110)


def draw_precision(result: CocoResult, file: Path) -> None:
    """Precision over recall of each class at IoU 0.5, of many the worst, and of all classes at IoU 0.5 to 0.95."""
    from matplotlib.font_manager import FontProperties

    figure, (left, right) = _figure(2)
    precision = result.precision[..., 0]  # [IoU thresholds, recalls, classes]
    recall = np.linspace(0, 1, precision.shape[1])
    names, font = drawable(result.row_names)
    # Of many classes, the worst; classes without objects, whose precision is -1, are left out.
    areas = precision[0].mean(axis=0)
    worst = [number for number in areas.argsort(kind="stable").tolist() if areas[number] >= 0][:MAX_CURVES]
    for number in sorted(worst):
        # matplotlib leaves out labels that begin with an underscore.
        label = f" {names[number]}" if names[number].startswith("_") else names[number]
        left.plot(recall, precision[0, :, number], label=label)
    has_objects = (precision > -1).all(axis=(0, 1))
    if has_objects.any():
        for number in range(0, precision.shape[0], 2):
            label = f"IoU {0.5 + 0.05 * number:.2f}"
            right.plot(recall, precision[number][:, has_objects].mean(axis=1), label=label)
    shown = "classes at IoU 0.5" if len(names) <= MAX_CURVES else f"the worst {len(worst)} of {len(names)} at IoU 0.5"
    for axes, title in ((left, shown), (right, "mean over classes")):
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            legend = axes.legend(prop=FontProperties(fname=font, size="small"))
            for text in legend.get_texts():
                text.set_parse_math(False)  # a dollar sign is one
    figure.savefig(file, dpi=110)


@torch.inference_mode()
def draw_comparison(model: nn.Module, dataset: DetectionDataset, file: Path, *, rows: int = 6) -> None:
    """Detections to the left and ground truth to the right, for images evenly spread over a data set."""
    from PIL import Image

    device = device_of(model)
    model.eval()
    pairs = []
    for index in np.linspace(0, len(dataset) - 1, min(rows, len(dataset))).round().astype(int).tolist():
        image, target = dataset[index]
        plain = image.as_subclass(Tensor)
        [detections] = model([plain.to(device)])
        truth = {"boxes": target["boxes"], "labels": target["labels"]}
        pair = Image.fromarray(compare(plain, detections, truth, dataset.class_names).permute(1, 2, 0).numpy())
        pairs.append(pair.resize((800, max(round(pair.height * 800 / pair.width), 1))))
    sheet = Image.new("RGB", (800, sum(pair.height for pair in pairs)), "white")
    top = 0
    for pair in pairs:
        sheet.paste(pair, (0, top))
        top += pair.height
    sheet.save(file)
