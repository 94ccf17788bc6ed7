"""Two processes equal one with the same images a step, and evaluation deals out every image once."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import evaluate_into, in_process, in_processes, tiny_config, train_until, write_data

from detectors.training.distributed import StepBatches
from detectors.training.run import train

NEVER = ("never", 0)


def run_rank(config: object) -> None:
    train(config)  # type: ignore[arg-type]


def close(first: Path, second: Path) -> None:
    one, two = (load_file(run / "last/state.safetensors") for run in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-4)


def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    # 8 images in steps of 4: 20 steps; one process takes 4 at once, two take 2 each.
    options = {"epochs": 10, "batch_size": 4, "batch_norm": "frozen", "optimizer": "sgd", "eval_every": 10}
    one, two = tiny_config(data, tmp_path / "one", **options), tiny_config(data, tmp_path / "two", **options)
    assert in_process(train_until, one, False, *NEVER) == 0
    in_processes(2, run_rank, two)
    close(one.output, two.output)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one.output, two.output)]
    for first, second in zip(*(map(json.loads, part) for part in lines)):
        assert first["step"] == second["step"]
        assert first.get("classification", 0) == pytest.approx(second.get("classification", 0), abs=1e-4)


def test_uneven_evaluation_loses_and_repeats_no_image(data: Path, tmp_path: Path) -> None:
    from detectors import create_detector

    # 5 images in batches of 2 over 2 processes. A bias makes every image yield detections.
    model = create_detector(
        "m2det", 7, backbone="test_resnet", image_size=64, num_levels=1, num_scales=3, channels=16, score_threshold=0.0
    )
    model.save_pretrained(tmp_path / "model")
    in_processes(2, evaluate_into, data, tmp_path / "model", tmp_path / "two.json")
    evaluate_into(data, tmp_path / "model", tmp_path / "one.json")
    shares = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in (0, 1)]
    alone = json.loads((tmp_path / "one.0").read_text())
    assert shares[0] == shares[1]  # both have the whole
    assert {found["image_id"] for found in alone} == {1, 2, 3, 4, 5}
    key = [(found["image_id"], found["category_id"]) for found in alone]
    assert [(found["image_id"], found["category_id"]) for found in shares[0]] == key
    assert [found["score"] for found in shares[0]] == pytest.approx([found["score"] for found in alone], abs=1e-5)


def test_parts_and_processes_take_the_same_images() -> None:
    whole = StepBatches(10, 4)
    parts = StepBatches(10, 4, accumulate=2)
    ranks = [StepBatches(10, 4, rank=rank, world=2) for rank in (0, 1)]
    flat = [index for batch in whole for index in batch]
    assert [index for batch in parts for index in batch] == flat
    assert [index for pair in zip(*ranks) for batch in pair for index in batch] == flat
    assert len(set(flat)) == len(flat) == 8


def test_batches_go_on_from_any_step() -> None:
    batches = StepBatches(11, 2)
    batches.epoch = 3
    everything = list(batches)
    batches.first_step = 2
    assert list(batches) == everything[2:]
    assert len(batches) == len(everything) - 2
    batches.first_step, batches.epoch = 0, 4
    assert list(batches) != everything


def test_batches_refuse_what_does_not_divide() -> None:
    with pytest.raises(ValueError, match="a batch of 6 does not divide into 2 parts on each of 2 processes"):
        StepBatches(100, 6, accumulate=2, world=2)
    with pytest.raises(ValueError, match="1 training images do not divide over 2 processes"):
        StepBatches(1, 4, world=2)


def test_fewer_images_than_a_step_make_a_smaller_step(tmp_path: Path) -> None:
    assert StepBatches(3, 8).batch_size == 3
    config = tiny_config(write_data(tmp_path / "data", train=3, val=1), tmp_path / "run", batch_size=8, epochs=1)
    assert train(config)
    assert "3 images make a batch of 3" in (config.output / "train.log").read_text()
