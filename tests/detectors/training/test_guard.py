"""A step that is not finite changes nothing and is told; many in a row end the run with a good checkpoint."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import tiny_config

from detectors import create_detector
from detectors.training import TrainConfig
from detectors.training.checkpoint import TrainingStopped
from detectors.training.data import Batch
from detectors.training.metrics import Means
from detectors.training.run import make_accelerator, train
from detectors.training.step import VALUES, GuardedOptimizer, Stepper, WeightAverage


def make_stepper(optimizer: str, **changes: Any) -> Stepper:
    torch.manual_seed(0)
    neck = {"num_levels": 1, "num_scales": 3, "channels": 16}
    model = create_detector("m2det", 3, backbone="test_resnet", image_size=64, neck_kwargs=neck).train()
    config = TrainConfig(optimizer=optimizer, device="cpu", batch_size=2, **changes)  # type: ignore[arg-type]
    return Stepper(model, config, make_accelerator(config), total=100)


def make_batch(value: float | None = None) -> Batch:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if value is not None:
        images[1, 0, 5, 5] = value
    return Batch(
        images,
        torch.tensor([[4.0, 4, 40, 40], [20, 8, 60, 60]]),
        torch.tensor([1, 2]),
        [1, 1],
        [7, 8],
        torch.empty(0, 4),
        [0, 0],
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_step_leaves_everything_untouched(optimizer: str, first: bool, bad: float) -> None:
    stepper = make_stepper(optimizer)
    if not first:
        stepper(0, [make_batch()], stop=False)
    before = {name: tensor.clone() for name, tensor in stepper.state().items()}
    *_, skipped, stop, save = stepper(1, [make_batch(bad)], stop=False).tolist()
    assert (skipped, stop, save) == (1, 0, 0)
    after = stepper.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    *_, skipped, stop, save = stepper(2, [make_batch()], stop=True).tolist()
    assert (skipped, stop, save) == (0, 1, 0)
    now = stepper.state()
    assert all(tensor.isfinite().all() for tensor in now.values())
    moved = {name.split("/")[0] for name in before if not torch.equal(before[name], now[name])}
    assert moved == {"model", "average", "optimizer"}


def test_bad_gradient_alone_is_enough() -> None:
    stepper = make_stepper("adamw")
    parameter = next(iter(stepper.optimizer.named.values()))
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    before = {name: tensor.clone() for name, tensor in stepper.state().items()}
    report = stepper(0, [make_batch()], stop=False)
    assert report[:2].isfinite().all()
    assert report[3] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in stepper.state().items())


def test_bad_part_spoils_the_whole_step() -> None:
    stepper = make_stepper("sgd", accumulate=2)
    before = {name: tensor.clone() for name, tensor in stepper.state().items()}
    assert stepper(0, [make_batch(torch.nan), make_batch()], stop=False)[3] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in stepper.state().items())


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    call = Stepper.__call__

    def spoiled(self: Stepper, step: int, parts: list[Batch], **wishes: bool) -> torch.Tensor:
        if step in steps:
            parts[0].images[0, 0, 0, 0] = torch.nan
        return call(self, step, parts, **wishes)

    monkeypatch.setattr(Stepper, "__call__", spoiled)


def test_bad_steps_are_counted_and_logged_with_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 4})
    config = tiny_config(data, tmp_path / "run")
    assert train(config)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    skipped = [line for line in lines if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [(2, 1), (5, 2)]
    assert all(len(line["images"]) == 2 for line in skipped)
    assert f"images {skipped[0]['images']}" in (config.output / "train.log").read_text()
    assert all(line["classification"] == line["classification"] for line in lines if "classification" in line)


def test_many_bad_steps_in_a_row_stop_with_a_good_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(data, tmp_path / "run", max_skipped=3)
    with monkeypatch.context() as patch:
        spoil(patch, set(range(2, 8)))
        with pytest.raises(TrainingStopped, match=r"3 steps in a row.*See images \[.*try a lower --lr"):
            train(config)
    assert train(config, resume=True)
    from safetensors.torch import load_file

    assert all(tensor.isfinite().all() for tensor in load_file(config.output / "last/state.safetensors").values())


def test_average_follows_and_forgets_its_start() -> None:
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.9)
    for number in range(200):
        model.weight.data.fill_(5.0)
        model.num_batches_tracked += 1
        average.update(model, number, torch.zeros(()))
    assert average.model.weight.item() == pytest.approx(5.0, abs=1e-4)
    assert average.model.num_batches_tracked == 200
    assert not average.model.weight.requires_grad


def test_average_forgets_quickly_at_first_and_slowly_later() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.99)
    model.weight.data.fill_(1.0)
    left = {0: 1 / 10, 8: 9 / 18, 10_000: 0.99}  # (1 + n) / (10 + n), at most the decay
    for number, share in left.items():
        before = average.model.weight.item()
        average.update(model, number, torch.zeros(()))
        assert 1 - average.model.weight.item() == pytest.approx(share * (1 - before), rel=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_the_gradient_is_clipped_to_its_largest_norm(clip_norm: float) -> None:
    # The first step of gradient descent with momentum is the gradient times the learning rate.
    stepper = make_stepper("sgd", clip_norm=clip_norm, lr=1e-3, weight_decay=0.0, ema=0.0)
    before = {name: p.detach().clone() for name, p in stepper.model.named_parameters()}
    norm = dict(zip(VALUES, stepper(0, [make_batch()]).tolist()))["gradient_norm"]
    moved = torch.cat([(p.detach() - before[name]).flatten() for name, p in stepper.model.named_parameters()])
    assert norm > 1
    assert moved.norm().item() / stepper.lr(0) == pytest.approx(clip_norm or norm, rel=1e-3)


def test_norms_and_biases_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.Linear(1, 1, bias=False))
    optimizer = GuardedOptimizer(model, TrainConfig(optimizer="sgd"))
    decays = {len(group["params"]): group["weight_decay"] for group in optimizer.inner.param_groups}
    assert decays == {2: 5e-4, 3: 0.0}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_optimizer_is_torchs_with_the_usual_settings(kind: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(2, 3, 1)
    other = copy.deepcopy(model)
    optimizer = GuardedOptimizer(model, TrainConfig(optimizer=kind))  # type: ignore[arg-type]
    usual: dict[str, Any] = {"sgd": {"momentum": 0.9}, "adamw": {"betas": (0.9, 0.999)}}[kind]
    decay = {"sgd": 5e-4, "adamw": 0.05}[kind]
    groups = [{"params": [other.weight], "weight_decay": decay}, {"params": [other.bias], "weight_decay": 0.0}]
    plain = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[kind](groups, lr=0.1, **usual)
    for _ in range(4):
        x = torch.rand(1, 2, 3, 3)
        for one in (model, other):
            one(x).square().sum().backward()
        optimizer.step(0.1, torch.zeros(()))
        plain.step()
        plain.zero_grad()
    for ours, theirs in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(ours, theirs)
        assert ours.grad is None


def test_a_step_without_boxes_reports_the_loss_as_it_is() -> None:
    stepper = make_stepper("sgd")
    empty = dataclasses.replace(make_batch(), boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), counts=[0, 0])
    model = copy.deepcopy(stepper.model)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    expected = model(list(empty.images), [nothing, nothing])
    found = dict(zip(VALUES, stepper(0, [empty]).tolist()))
    assert found["bbox_regression"] == 0
    assert found["classification"] == pytest.approx(expected["classification"].item(), rel=1e-5)


@pytest.mark.parametrize("wish", ["stop", "save"])
def test_each_wish_is_reported_by_its_own_name(wish: str) -> None:
    report = make_stepper("sgd")(0, [make_batch()], **{wish: True})
    assert {name: value for name, value in zip(VALUES, report.tolist()) if name in ("skipped", "stop", "save")} == {
        "skipped": 0,
        "stop": int(wish == "stop"),
        "save": int(wish == "save"),
    }


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_and_images_have_the_wanted_memory_format(channels_last: bool) -> None:
    stepper = make_stepper("sgd", channels_last=channels_last)
    wide = [p for p in stepper.model.parameters() if p.dim() == 4 and min(p.shape) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) == channels_last for p in wide)
    seen: list[bool] = []
    stepper.model.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    stepper(0, [make_batch()])
    assert seen == [channels_last]


def test_means_start_over_when_taken() -> None:
    means = Means()
    means.add({"loss": 1.0})
    means.add({"loss": 3.0})
    assert means.take() == {"loss": 2.0}
    assert means.take() == {}
