"""COCO's figures for a detector on a data set, in one process or gathered over several.

Microsoft COCO (arXiv 1405.0312); the figures are those of its detection challenge, by faster-coco-eval.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from detectors.data import DetectionDataset, SyntheticScales, collate
from detectors.errors import InputError
from detectors.inference.results import coco_results
from detectors.models.detector import Detector
from detectors.models.postprocess import PostProcess
from detectors.training.data import is_distributed, start_worker

MAX_DETECTIONS = 100
"""COCO's number of detections per image that count."""
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Detection = dict[str, Any]


class Interrupted(Exception):
    """An evaluation was interrupted."""


def evaluate(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    max_detections: int = MAX_DETECTIONS,
    interrupted: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """COCO's twelve figures, and `classes`: AP and AP50 of each class by its name.

    All figures are in 0..1, or -1 where there is nothing to find. Under `torch.distributed` every process takes its
    share of the images and gets the whole result.

    Args:
        model: of torchvision's detection contract; runs where its parameters are, and is left in its mode.
        dataset: with `evaluation_transforms()`.
        batch_size: images at once.
        workers: processes that load images; 0 loads in this one.
        max_detections: detections per image that count for AP, highest scores first. AR100 is named after it.
        interrupted: called before each batch, equally often in every process.

    Raises:
        Interrupted: when `interrupted` returns true.
        ValueError: for an image that the model cannot take; names its file.

    >>> from detectors import create_detector
    >>> from detectors.data import SyntheticScales, evaluation_transforms
    >>> small = {"num_levels": 1, "channels": 16}
    >>> model = create_detector("m2det", 7, backbone="resnet10t", image_size=320, neck_kwargs=small)
    >>> figures = evaluate(model, SyntheticScales.easy(2, transforms=evaluation_transforms()))
    >>> 0 <= figures["AP50"] <= 1
    True
    """
    detections = detect(model, dataset, batch_size=batch_size, workers=workers, interrupted=interrupted)
    return CocoResult(dataset, detections, max_detections=max_detections).report()


def figure_text(value: float) -> str:
    """A figure of a report for people: "-" for -1, where there is no object of its kind."""
    return "-" if value < 0 else f"{value:.3f}"


def allow_detections(detector: Detector, count: int | None) -> int:
    """Have a detector give at least `count` detections per image, and return how many count for AP.

    It takes them from as many candidates as that needs. Without a `count`, its own limit stays and COCO's 100 count.
    """
    if count is None:
        return MAX_DETECTIONS
    _raise_limits(detector.postprocess, count)
    return count


def _raise_limits(post: PostProcess, count: int) -> PostProcess:
    """The post-processing itself, with limits under which it gives at least `count` detections per image."""
    if post.max_per_image < count:
        post.max_per_class = count if post.max_per_class == post.max_per_image else post.max_per_class
        post.max_per_image = count
        post.candidates_per_class = max(post.candidates_per_class, 4 * count)
    return post


def detection_limit_warning(
    split: str, dataset: DetectionDataset, max_detections: int = MAX_DETECTIONS, post: PostProcess | None = None
) -> str:
    """A warning where images have more objects than can be found; empty where none has.

    AP counts `max_detections` of a class per image. A detector gives what its post-processing allows, of a class and of
    all; without `post`, that of a detector with the defaults after `allow_detections`.

    >>> from detectors.data import SyntheticScales
    >>> detection_limit_warning("val", SyntheticScales.easy(9), max_detections=1)
    'val: 5 images have more than 1 object of a class (up to 2), but AP counts 1 per image: give --max-detections 2'
    """
    labels = [record.labels[~record.crowd] for record in dataset.records]
    of_a_class = [int(np.bincount(values).max()) if len(values) else 0 for values in labels]
    of_all = [len(values) for values in labels]
    gives = "a detector gives" if post is None else "the detector gives"
    post = post or _raise_limits(PostProcess(), max_detections)
    option, setting = "give --max-detections", "raise its postprocess."
    cases = [
        (max_detections, of_a_class, " of a class", "AP counts", option),
        (post.max_per_image, of_all, "", gives, option),
        (post.max_per_class, of_a_class, " of a class", gives, f"{setting}max_per_class to"),
        (post.candidates_per_class, of_a_class, " of a class", gives, f"{setting}candidates_per_class to"),
    ]
    for limit, counts, words, reason, advice in sorted(cases, key=lambda case: case[0]):
        above = sum(count > limit for count in counts)
        if above:
            images = "1 image has" if above == 1 else f"{above} images have"
            objects = f"{limit} object{'s' * (limit > 1)}{words}"
            but = f"(up to {max(counts)}), but {reason} {limit} per image"
            return f"{split}: {images} more than {objects} {but}: {advice} {max(counts)}"
    return ""


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters, or of its buffers, as an engine for inference keeps no parameters."""
    return next(itertools.chain(model.parameters(), model.buffers())).device


@torch.inference_mode()
def detect(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    interrupted: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Detection]:
    """Every detection in COCO's form (`image_id`, `category_id`, `bbox` as xywh in pixels, `score`), by image.

    Arguments and errors as of `evaluate`; `progress` is called after each batch with its number of images.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
    device = device_of(model)
    loader = DataLoader(
        Subset(dataset, range(rank, len(dataset), world)),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    batches = iter(loader)
    was_training = model.training
    model.eval()
    detections: list[Detection] = []
    try:
        for _ in range(-(-len(dataset) // (world * batch_size))):  # the batches of the first process, which has most
            if interrupted is not None and interrupted():
                raise Interrupted
            images, targets = next(batches, ((), ()))
            if not images:
                continue
            for image, target in zip(images, targets):
                _check_image(image, int(target["image_id"]), dataset)
            outputs = model([image.as_subclass(Tensor).to(device, non_blocking=True) for image in images])
            for target, output in zip(targets, outputs):
                detections += coco_results(int(target["image_id"]), output, dataset.category_ids)
            if progress is not None:
                progress(len(images))
    finally:
        model.train(was_training)
    return _gather(detections, world)


def _check_image(image: Tensor, image_id: int, dataset: DetectionDataset) -> None:
    if min(image.shape[-2:]) < 2:
        [path] = (record.path for record in dataset.records if record.image_id == image_id)
        height, width = image.shape[-2:]
        raise InputError(f"{path} is {width}x{height} pixels: a detector needs at least 2x2")


def _gather(detections: list[Detection], world: int) -> list[Detection]:
    if world > 1:
        shares: list[list[Detection]] = [[] for _ in range(world)]
        dist.all_gather_object(shares, detections)
        detections = [detection for share in shares for detection in share]
    # The order in which equal scores are counted must not depend on how the images were dealt out.
    return sorted(detections, key=lambda detection: detection["image_id"])


class CocoResult:
    """Detections matched with a data set's boxes: COCO's figures and the curves below them.

    Args:
        dataset: the ground truth.
        detections: as `detect` gives them.
        area_ranges: areas in square pixels, by name, to tell apart; COCO's if None.
        max_detections: per image that count, highest scores first.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Sequence[Detection],
        area_ranges: dict[str, tuple[float, float]] | None = None,
        *,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        from faster_coco_eval import COCO, COCOeval_faster

        self.class_names = dataset.class_names
        # Classes of one name are told apart by their ids in the source.
        self.row_names = [
            name if dataset.class_names.count(name) == 1 else f"{name} (id {number})"
            for name, number in zip(dataset.class_names, dataset.category_ids)
        ]
        truth = COCO(dataset.coco_ground_truth())
        # The evaluator numbers detections and adds areas: it gets its own copies.
        results = truth.loadRes([dict(detection) for detection in detections]) if detections else None
        self.class_order = [sorted(dataset.category_ids).index(category) for category in dataset.category_ids]
        self.evaluator = COCOeval_faster(truth, results if results is not None else _nothing(dataset), "bbox")
        params = self.evaluator.params
        if area_ranges is not None:
            params.areaRng = [list(bounds) for bounds in area_ranges.values()]
            params.areaRngLbl = list(area_ranges)
        self.area_names = list(params.areaRngLbl)
        self.max_detections = max_detections
        params.maxDets = [min(1, max_detections), min(10, max_detections), max_detections]
        self.evaluator.evaluate()
        self.evaluator.accumulate()

    @property
    def precision(self) -> NDArray[np.float64]:
        """[10 IoU thresholds, 101 recalls, classes by label, areas] at `max_detections`; -1 where nothing is."""
        return np.asarray(self.evaluator.eval["precision"])[..., -1][:, :, self.class_order]

    def average_precision(self, classes: Sequence[int], area: int = 0, iou: float | None = None) -> float:
        """Mean precision over classes (from 0) in an area range, at one IoU or, as COCO's AP, over 0.5 to 0.95."""
        chosen = self.precision[:, :, list(classes), area]
        if iou is not None:
            chosen = chosen[np.isclose(self.evaluator.params.iouThrs, iou)]
        chosen = chosen[chosen > -1]
        return float(chosen.mean()) if chosen.size else -1.0

    def report(self) -> dict[str, Any]:
        """The twelve figures, and AP and AP50 by class; only with COCO's own areas."""
        recall = np.asarray(self.evaluator.eval["recall"])  # [IoU thresholds, classes, areas, most detections]
        everything = range(len(self.class_names))

        def average_recall(area: int, limit: int) -> float:
            values = recall[:, :, area, limit]
            values = values[values > -1]
            return float(values.mean()) if values.size else -1.0

        ap = self.average_precision
        values = [ap(everything), ap(everything, iou=0.5), ap(everything, iou=0.75)]
        values += [ap(everything, area=area) for area in (1, 2, 3)]
        values += [average_recall(0, limit) for limit in (0, 1, 2)]
        values += [average_recall(area, 2) for area in (1, 2, 3)]
        by_class = {name: {"AP": ap([i]), "AP50": ap([i], iou=0.5)} for i, name in enumerate(self.row_names)}
        names = [f"AR{self.max_detections}" if name == f"AR{MAX_DETECTIONS}" else name for name in FIGURES]
        return {**dict(zip(names, values)), "classes": by_class}


def _nothing(dataset: DetectionDataset) -> Any:
    """A result without detections, which `loadRes` does not take."""
    from faster_coco_eval import COCO

    return COCO({**dataset.coco_ground_truth(), "annotations": []})


# AP by object scale and appearance complexity on `SyntheticScales`. M2Det (arXiv 1811.04533), section 1, claims that
# several levels help with complex appearance at the same scale.
COMPLEXITIES = ("plain", "textured", "composite")


class ObjectGroup(NamedTuple):
    """AP of a detector on the objects of one complexity and one range of scales (pixels, upper end excluded)."""

    complexity: str
    scale: tuple[float, float]
    objects: int
    ap: float
    ap50: float


def evaluate_groups(
    model: nn.Module,
    dataset: SyntheticScales,
    *,
    edges: Sequence[float] = (8, 16, 32, 64, 128, 256),
    batch_size: int = 16,
    workers: int = 0,
) -> list[ObjectGroup]:
    """AP and AP50 for each complexity and each range between two of the `edges`; -1 where there is no object.

    Arguments as of `evaluate`.

    >>> from detectors import create_detector
    >>> from detectors.data import evaluation_transforms
    >>> small = {"num_levels": 1, "channels": 16}
    >>> model = create_detector("m2det", 7, backbone="resnet10t", image_size=320, neck_kwargs=small)
    >>> dataset = SyntheticScales.easy(2, transforms=evaluation_transforms())
    >>> groups = evaluate_groups(model, dataset, edges=(24, 64, 192))
    >>> [(group.complexity, group.scale) for group in groups]
    [('plain', (24, 64)), ('plain', (64, 192)), ('textured', (24, 64)), ('textured', (64, 192))]
    """
    return groups_of(detect(model, dataset, batch_size=batch_size, workers=workers), dataset, edges=edges)


def groups_of(
    detections: Sequence[Detection], dataset: SyntheticScales, *, edges: Sequence[float] = (8, 16, 32, 64, 128, 256)
) -> list[ObjectGroup]:
    """The groups of existing detections. As with COCO's areas, what is outside a range is ignored."""
    ranges = list(itertools.pairwise(edges))
    if not ranges or any(low >= high for low, high in ranges):
        raise ValueError(f"edges must be two or more increasing scales: got {tuple(edges)}")
    # Scales are sides of whole pixels: just below the upper edge leaves that edge to the next range.
    areas = {f"{low:g}-{high:g}": (low**2, high**2 - 1e-3) for low, high in ranges}
    result = CocoResult(dataset, detections, areas)
    groups = []
    for level, name in enumerate(COMPLEXITIES):
        # Complexity follows from the class: three classes per level, by category id.
        classes = [i for i, category in enumerate(dataset.category_ids) if (category - 1) // 3 == level]
        if not classes:
            continue
        for area, (bounds, scale) in enumerate(zip(areas.values(), ranges)):
            objects = sum(
                (label - 1) in classes and bounds[0] <= size <= bounds[1]
                for record in dataset.records
                for label, size in zip(record.labels.tolist(), record.areas.tolist())
            )
            ap, ap50 = result.average_precision(classes, area), result.average_precision(classes, area, iou=0.5)
            groups.append(ObjectGroup(name, scale, objects, ap, ap50))
    return groups
