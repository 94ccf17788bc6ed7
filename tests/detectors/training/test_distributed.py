"""Processes and parts equal one that takes the whole batch, wait for each other, and evaluate every image once."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import evaluate_into, in_process, in_processes, tiny_config, train_until, write_data

from detectors.training import evaluation, run
from detectors.training.checkpoint import Checkpoints
from detectors.training.config import TrainConfig
from detectors.training.data import Batch, StepBatches
from detectors.training.run import make_accelerator, train
from detectors.training.step import Stepper

NEVER = ("never", 0)


def run_rank(config: object) -> None:
    train(config)  # type: ignore[arg-type]


def close(first: Path, second: Path) -> None:
    one, two = (load_file(run / "last/state.safetensors") for run in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    # 8 images in steps of 4: 6 steps; one process takes 4 at once, two take 2 each.
    options = {"epochs": 3, "batch_size": 4, "batch_norm": "frozen", "optimizer": "sgd", "eval_every": 3}
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
    neck, keep_all = {"num_levels": 1, "num_scales": 3, "channels": 16}, {"score_threshold": 0.0}
    model = create_detector(
        "m2det", 7, backbone="test_resnet", image_size=64, neck_kwargs=neck, postprocess_kwargs=keep_all
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
    assert "a batch has 3 images, since there are only 3" in (config.output / "train.log").read_text()


def step_of(parts: list[Batch]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The report of one step of plain gradient descent, and the gradient that it took."""
    from detectors import create_detector

    torch.manual_seed(0)
    model = create_detector(
        "ssd",
        4,
        backbone="test_resnet",
        neck="fpn",
        neck_kwargs={"out_channels": 16},
        image_size=64,
        frozen_batch_norm=True,
    )
    config = TrainConfig(optimizer="sgd", lr=1.0, weight_decay=0, clip_norm=0, schedule="paper", ema=0, device="cpu")
    stepper = Stepper(model.train(), config, make_accelerator(config), total=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    values = stepper(0, parts)
    return values, {name: before[name] - p.detach() for name, p in model.named_parameters()}


def whole_and_parts(counts: list[int]) -> tuple[Batch, list[Batch]]:
    """A batch of four images with so many boxes, and its halves."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=generator)
    corner = torch.rand(sum(counts), 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 8 + 20 * torch.rand(sum(counts), 2, generator=generator)], dim=1)
    labels = torch.randint(1, 4, (sum(counts),), generator=generator)
    regions = torch.tensor([[0.0, 0, 20, 64], [40, 40, 64, 64]])  # to ignore, in the second and in the last image
    first = sum(counts[:2])
    return Batch(images, boxes, labels, counts, [1, 2, 3, 4], regions, [0, 1, 0, 1]), [
        Batch(images[:2], boxes[:first], labels[:first], counts[:2], [1, 2], regions[:1], [0, 1]),
        Batch(images[2:], boxes[first:], labels[first:], counts[2:], [3, 4], regions[1:], [0, 1]),
    ]


UNEVEN, EMPTY = [6, 5, 1, 0], [0, 0, 0, 0]  # the first half has most of the boxes, or there are none


@pytest.mark.parametrize("counts", [UNEVEN, EMPTY])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(counts: list[int]) -> None:
    whole, parts = whole_and_parts(counts)
    (values, gradient), (values_of_parts, gradient_of_parts) = step_of([whole]), step_of(parts)
    torch.testing.assert_close(values_of_parts, values, rtol=1e-5, atol=1e-5)
    for name, expected in gradient.items():
        torch.testing.assert_close(gradient_of_parts[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def step_of_a_half(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    steps = [step_of([whole_and_parts(counts)[1][rank]]) for counts in (UNEVEN, EMPTY)]
    torch.save(steps, folder / str(rank))


def test_a_step_of_two_processes_is_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    in_processes(2, step_of_a_half, tmp_path)
    for case, counts in enumerate((UNEVEN, EMPTY)):
        values, gradient = step_of([whole_and_parts(counts)[0]])
        assert values.isfinite().all()
        for rank in "01":
            values_of_process, gradient_of_process = torch.load(tmp_path / rank)[case]
            torch.testing.assert_close(values_of_process, values, rtol=1e-5, atol=1e-5)
            for name, expected in gradient.items():
                torch.testing.assert_close(gradient_of_process[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def run_with_a_bad_step(config: TrainConfig, terminate: bool) -> None:
    """Train with a second step that is not finite, at which process 1 alone is due for a checkpoint or terminated."""
    second = os.environ["RANK"] == "1"
    config = dataclasses.replace(config, checkpoint_minutes=0.0 if second else 1e6)
    call = Stepper.__call__

    def spoiled(self: Stepper, step: int, parts: list[Batch], *args: object, **wishes: object) -> torch.Tensor:
        if step == 1:
            parts[0].images[0, 0, 0, 0] = torch.nan
            if second and terminate:
                os.kill(os.getpid(), signal.SIGTERM)
        return call(self, step, parts, *args, **wishes)

    Stepper.__call__ = spoiled  # type: ignore[method-assign, assignment]
    assert train(config) is not terminate


@pytest.mark.parametrize("terminate", [False, True])
def test_processes_do_not_wait_for_each_other_for_ever(data: Path, tmp_path: Path, terminate: bool) -> None:
    config = tiny_config(data, tmp_path / "run", batch_size=2, epochs=1)
    in_processes(2, run_with_a_bad_step, config, terminate, seconds=120)
    _, _, position = Checkpoints(tmp_path / "run").load()
    assert position["skipped"] == 1
    assert position["step"] == (3 if terminate else 4)


def terminated_in_evaluation(config: TrainConfig, folder: Path) -> None:
    """Train; a signal comes to process 1 at its first image of an evaluation. Writes how many images were looked at."""
    done: list[int] = []

    def counted(image_id: int, *args: object) -> list[object]:
        done.append(image_id)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return []

    evaluation.coco_results = counted  # type: ignore[assignment]
    assert not train(config)
    (folder / os.environ["RANK"]).write_text(str(len(done)))


def test_a_signal_calls_off_the_evaluation_of_all_processes(data: Path, tmp_path: Path) -> None:
    # 5 images in batches of 1: process 0 has three of them, process 1 two.
    config = tiny_config(data, tmp_path / "run", epochs=1, batch_size=8, eval_batch_size=1)
    in_processes(2, terminated_in_evaluation, config, tmp_path, seconds=120)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["1", "1"]
    _, _, position = Checkpoints(tmp_path / "run").load()
    assert (position["step"], position["evaluated"]) == (1, 0)


def count_read(config: TrainConfig, folder: Path) -> None:
    """Open the data and write how many splits this process read and checked for it."""
    from detectors.data.loading import DataFolder

    load, read = DataFolder.load, []
    DataFolder.load = lambda *args, **options: read.append(args) or load(*args, **options)  # type: ignore
    make_accelerator(config)
    train_set, val_set = run.open_datasets(config)
    sizes = [len(train_set), len(val_set or []), sum(len(record.labels) for record in train_set.records)]
    (folder / os.environ["RANK"]).write_text(json.dumps([len(read), *sizes]))


def test_one_process_reads_the_data_for_all(data: Path, tmp_path: Path) -> None:
    in_processes(2, count_read, tiny_config(data, tmp_path / "run"), tmp_path)
    (first, *one), (second, *two) = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert (first, second) == (2, 0)
    assert one == two
    assert one[:2] == [8, 5]


def open_missing(config: TrainConfig, folder: Path) -> None:
    make_accelerator(config)
    with pytest.raises(FileNotFoundError, match="there is no data folder"):
        run.open_datasets(config)
    (folder / os.environ["RANK"]).touch()


def test_all_processes_say_that_there_is_no_data(tmp_path: Path) -> None:
    in_processes(2, open_missing, tiny_config(tmp_path / "nowhere", tmp_path / "run"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


@pytest.mark.parametrize(
    ("model", "smaller"),
    [
        ("m2det_320_efficientnet_lite0", ["--image-size", "128", "--settings", "neck.num_scales=4"]),
        ("ssd_320_efficientnet_lite0", ["--image-size", "288"]),
    ],
)
def test_torchrun_trains_the_small_presets(tmp_path: Path, model: str, smaller: list[str]) -> None:
    data = write_data(tmp_path / "data", train=4, val=1)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "detectors"]
    options = ["--data", data, "--model", model, "--output", tmp_path / "run", "--epochs", "1"]
    options += ["--batch-size", "2", "--backbone-weights", "none", "--device", "cpu", "--workers", "0"]
    command = [*launch, "train", *map(str, options), *smaller]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    _, _, position = Checkpoints(tmp_path / "run").load()
    assert (position["step"], position["evaluated"], position["skipped"]) == (2, 1, 0)
