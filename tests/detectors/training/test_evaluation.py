"""COCO's figures equal pycocotools' and do not depend on how images are dealt out."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_runs import write_data

from detectors import SSD
from detectors.cli import main
from detectors.data import DetectionDataset, ImageRecord, SyntheticScales, evaluation_transforms
from detectors.models.postprocess import PostProcess
from detectors.training.evaluation import (
    FIGURES,
    CocoResult,
    Detection,
    Interrupted,
    allow_detections,
    detect,
    detection_limit_warning,
    evaluate,
    evaluate_groups,
    groups_of,
)


def noisy_detections(dataset: DetectionDataset, seed: int = 0, spread: float = 6.0) -> list[Detection]:
    """Ground truth moved about, some of it missing, some of another class, and some boxes of nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for record in dataset.records:
        for box, label in zip(record.boxes, record.labels):
            if rng.random() < 0.15:
                continue
            x1, y1, x2, y2 = box + rng.normal(0, spread, 4)
            number = int(label) if rng.random() < 0.85 else int(rng.integers(1, len(dataset.class_names) + 1))
            category = dataset.category_ids[number - 1]
            bbox = [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
            score = round(rng.random(), 2)  # some scores are equal
            found.append({"image_id": record.image_id, "category_id": category, "bbox": bbox, "score": score})
    return found


def oracle(dataset: DetectionDataset, detections: list[Detection]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset.coco_ground_truth()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(detection) for detection in detections]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def with_crowds(dataset: DetectionDataset) -> DetectionDataset:
    for record in dataset.records[::3]:
        record.crowd[:1] = True
    return dataset


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_equal_pycocotools(seed: int) -> None:
    dataset = with_crowds(SyntheticScales(40, seed=seed))
    detections = noisy_detections(dataset, seed)
    report = CocoResult(dataset, detections).report()
    assert [report[name] for name in FIGURES] == pytest.approx(oracle(dataset, detections), abs=1e-6)
    assert 0 < report["AP"] < report["AP50"] < 1


def test_figures_equal_pycocotools_on_real_annotations(shared: Path) -> None:
    from detectors.data import load_dataset

    dataset = load_dataset(shared / "data" / "coco_cc", "val")  # ids with gaps, crowds, images without boxes
    detections = noisy_detections(dataset)
    report = CocoResult(dataset, detections).report()
    assert [report[name] for name in FIGURES] == pytest.approx(oracle(dataset, detections), abs=1e-6)


def test_classes_follow_labels_whatever_the_order_of_ids() -> None:
    dataset = SyntheticScales.easy(12)
    perfect = noisy_detections(dataset, spread=0.0)
    straight = CocoResult(dataset, perfect).report()["classes"]
    turned = SyntheticScales.easy(12)
    turned.category_ids.reverse()
    swap = dict(zip(dataset.category_ids, turned.category_ids))
    moved = [{**detection, "category_id": swap[detection["category_id"]]} for detection in perfect]
    assert CocoResult(turned, moved).report()["classes"] == straight


def test_no_detections_score_zero() -> None:
    report = CocoResult(SyntheticScales.easy(3), []).report()
    assert report["AP"] == report["AP50"] == report["AR100"] == 0


def test_nothing_to_find_is_minus_one() -> None:
    dataset = SyntheticScales.easy(3)
    for record in dataset.records:
        record.crowd[:] = True
    assert CocoResult(dataset, noisy_detections(dataset)).report()["AP"] == -1


class Oracle(nn.Module):
    """Finds what it was told, image by image, in the order asked."""

    def __init__(self, dataset: DetectionDataset) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.targets = [dataset[i][1] for i in range(len(dataset))]
        self.calls = 0

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        outputs = []
        for _ in images:
            target = self.targets[self.calls]
            boxes = target["boxes"].as_subclass(Tensor)
            outputs.append({"boxes": boxes, "labels": target["labels"], "scores": torch.ones(len(boxes))})
            self.calls += 1
        return outputs


def test_perfect_detector_scores_one_and_keeps_its_mode() -> None:
    dataset = SyntheticScales.easy(5, transforms=evaluation_transforms())
    model = Oracle(dataset).train()
    figures = evaluate(model, dataset, batch_size=2)
    assert figures["AP"] == pytest.approx(1.0)
    assert set(figures["classes"]) == set(dataset.class_names)
    assert model.training


def test_evaluation_can_be_called_off() -> None:
    dataset = SyntheticScales.easy(3, transforms=evaluation_transforms())
    with pytest.raises(Interrupted):
        detect(Oracle(dataset), dataset, batch_size=1, interrupted=lambda: True)


def test_cells_tell_scales_and_complexities_apart() -> None:
    dataset = SyntheticScales(30, transforms=evaluation_transforms())
    # All that is plain and at least 64 px is found, and nothing else.
    found = [
        detection
        for detection in perfect_detections(dataset)
        if detection["category_id"] <= 3 and detection["bbox"][2] * detection["bbox"][3] >= 64**2
    ]
    groups = {(group.complexity, group.scale): group for group in groups_of(found, dataset, edges=(8, 64, 256))}
    assert groups["plain", (64, 256)].ap50 == pytest.approx(1.0)
    assert groups["plain", (8, 64)].ap50 == 0
    assert groups["composite", (64, 256)].ap50 == groups["textured", (64, 256)].ap50 == 0
    assert sum(group.objects for group in groups.values()) == sum(
        8 <= area**0.5 < 256 for record in dataset.records for area in record.areas
    )


def perfect_detections(dataset: DetectionDataset) -> list[Detection]:
    return [
        {
            "image_id": record.image_id,
            "category_id": dataset.category_ids[label - 1],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": 0.9,
        }
        for record in dataset.records
        for box, label in zip(record.boxes.tolist(), record.labels.tolist())
    ]


def test_cells_refuse_edges_that_do_not_increase() -> None:
    dataset = SyntheticScales.easy(1, transforms=evaluation_transforms())
    with pytest.raises(ValueError, match=r"increasing scales: got \(64, 8\)"):
        evaluate_groups(Oracle(dataset), dataset, edges=(64, 8))


def crowded_dataset(objects: int) -> DetectionDataset:
    """One image of many small objects in rows."""
    corners = np.array([[x, y] for y in range(0, 400, 8) for x in range(0, 400, 8)][:objects], dtype=np.float64)
    count = len(corners)
    record = ImageRecord(
        *(Path("crowd.png"), 1, "crowd.png", 400, 400, np.concatenate([corners, corners + 6], axis=1)),
        *(np.ones(count, dtype=np.int64), np.full(count, 36.0), np.zeros(count, dtype=np.bool_)),
    )
    return DetectionDataset([record], ["cell"])


def test_more_objects_than_count_are_told_and_can_count() -> None:
    dataset = crowded_dataset(400)
    perfect = perfect_detections(dataset)
    capped = CocoResult(dataset, perfect).report()
    assert capped["AP"] == pytest.approx(0.257, abs=0.001)
    assert capped["AP"] == pytest.approx(oracle(dataset, perfect)[0], abs=1e-6)
    assert "1 image has more than 100 objects of a class (up to 400)" in detection_limit_warning("val", dataset)
    assert "--max-detections 400" in detection_limit_warning("val", dataset)
    whole = CocoResult(dataset, perfect, max_detections=400).report()
    assert whole["AP"] == pytest.approx(1.0)
    assert whole["AR400"] == pytest.approx(1.0)
    assert not detection_limit_warning("val", dataset, 400)
    assert not detection_limit_warning("val", crowded_dataset(100))


@pytest.mark.parametrize(("classes", "warned"), [(1, "150"), (2, ""), (150, "")])
def test_a_limit_counts_for_each_class(classes: int, warned: str) -> None:
    """A perfect detector of two classes of 75 objects has an AP of 1 at a limit of 100."""
    dataset = crowded_dataset(150)
    dataset.class_names = [f"c{label}" for label in range(1, classes + 1)]
    dataset.category_ids = list(range(1, classes + 1))
    dataset.records[0].labels[:] = 1 + np.arange(150) % classes
    ap = CocoResult(dataset, perfect_detections(dataset)).report()["AP"]
    assert (ap < 0.99) == bool(warned)
    found = detection_limit_warning("val", dataset)
    assert found.endswith(f"--max-detections {warned}") if warned else not found


def test_more_objects_of_all_classes_than_a_detector_gives_are_told() -> None:
    dataset = crowded_dataset(300)
    dataset.class_names = [f"c{label}" for label in range(1, 11)]
    dataset.records[0].labels[:] = 1 + np.arange(300) % 10
    assert detection_limit_warning("val", dataset) == (
        "val: 1 image has more than 200 objects (up to 300), but a detector gives 200 per image: "
        "give --max-detections 300"
    )
    assert not detection_limit_warning("val", dataset, post=PostProcess(max_per_image=300))
    assert "more than 150 objects" in detection_limit_warning("val", dataset, post=PostProcess(max_per_image=150))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_per_image": 50}, "more than 50 objects (up to 80), but the detector gives 50 per image: give --max-det"),
        ({"max_per_image": 79}, "more than 79 objects (up to 80), but the detector gives 79 per image: give --max-det"),
        (
            {"max_per_class": 50},
            "more than 50 objects of a class (up to 80), but the detector gives 50 per image: raise",
        ),
        ({"max_per_class": 70}, "raise its postprocess.max_per_class to 80"),
        ({"candidates_per_class": 50}, "raise its postprocess.candidates_per_class to 80"),
        ({"max_per_image": 80}, ""),
    ],
)
def test_fewer_detections_than_objects_are_told_below_cocos_number_too(limits: dict[str, int], expected: str) -> None:
    warning = detection_limit_warning("val", crowded_dataset(80), post=PostProcess(**limits))
    assert expected in warning
    assert bool(warning) == bool(expected)


@pytest.mark.parametrize(
    ("objects", "count", "expected"),
    [
        (600, 1000, ""),
        (450, 450, ""),
        (600, 500, "more than 500 objects of a class (up to 600), but AP counts 500 per image: give --max-detections"),
    ],
)
def test_the_limits_of_a_detector_are_those_that_a_number_of_detections_brings(
    objects: int, count: int, expected: str, tiny: Callable[..., SSD]
) -> None:
    dataset, model = crowded_dataset(objects), tiny("ssd", 2)
    warning = detection_limit_warning("val", dataset, count)
    assert expected in warning
    assert bool(warning) == bool(expected)
    counted = allow_detections(model, count)
    assert bool(detection_limit_warning("val", dataset, counted, model.postprocess)) == bool(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "more than 50 objects (up to 80), but the detector gives 50 per image: give --max-detections 80"),
        (["--max-detections", "60"], "more than 60 objects of a class (up to 80), but AP counts 60 per image"),
        (["--max-detections", "100"], ""),
    ],
)
def test_eval_tells_fewer_detections_than_objects_or_has_them_given(
    words: list[str], expected: str, tiny: Callable[..., SSD], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = write_data(tmp_path / "data", train=0, val=1), tmp_path / "data/val.json"
    content = json.loads(file.read_text())
    box = {"image_id": content["images"][0]["id"], "category_id": 1, "area": 100, "iscrowd": 0}
    places = [(index % 16 * 12, index // 16 * 12) for index in range(80)]
    content["annotations"] = [{**box, "id": i + 1, "bbox": [*place, 10, 10]} for i, place in enumerate(places)]
    file.write_text(json.dumps(content))
    settings = {"score_threshold": 0.0, "max_per_image": 50}
    tiny("ssd", 7, spread=30, postprocess_kwargs=settings).save_pretrained(tmp_path / "saved")
    found = tmp_path / "found.json"
    command = ["eval", "--data", str(data), "--checkpoint", str(tmp_path / "saved"), "--detections", str(found)]
    assert main([*command, *words]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "more than" in line]
    assert len(warnings) == bool(expected)
    assert expected in "".join(warnings)
    assert len(json.loads(found.read_text())) == int((words or ["50"])[-1])


@pytest.mark.parametrize(("count", "given"), [(None, 5), (3, 5), (100, 100), (101, 101), (150, 150)])
def test_a_detector_gives_at_least_the_detections_that_are_asked_for(
    tiny: Callable[..., SSD], count: int | None, given: int
) -> None:
    model = tiny("ssd", 4, spread=30, postprocess_kwargs={"score_threshold": 0.0, "max_per_image": 5}).eval()
    allow_detections(model, count)
    [found] = model([torch.rand(3, 64, 64)])
    assert len(found["scores"]) == given


def test_a_picture_too_narrow_for_a_detector_is_named() -> None:
    def narrow(image: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return image[..., :1].float() / 255, target

    dataset = SyntheticScales.easy(1, transforms=narrow)
    with pytest.raises(ValueError, match=r"000001.png is 1x320 pixels"):
        detect(Oracle(dataset), dataset)


def test_evaluation_keeps_no_gradients(tiny: Callable[..., SSD]) -> None:
    model = tiny("ssd", 7)
    modes = []
    model.pyramid.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    detect(model, SyntheticScales.easy(2, transforms=evaluation_transforms()), batch_size=1)
    assert modes == [False, False]
