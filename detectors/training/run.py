"""A training session from a configuration to pictures of the result: a new run, or more of an old one."""

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from detectors.data import DetectionDataset, mosaic
from detectors.models.ssd import SSD
from detectors.models.zoo import create_detector
from detectors.training.allocator import keep_freed_memory
from detectors.training.backbone_weights import load_backbone_weights, package_for
from detectors.training.config import TrainConfig, differences, given, read_config
from detectors.training.data import augmentation, fingerprint, open_datasets, warn_of_small_boxes
from detectors.training.loop import Loop
from detectors.training.metrics import Metrics, Progress
from detectors.training.pictures import draw_results
from detectors.training.run_log import (
    CONFIG,
    ENVIRONMENT,
    LOG,
    LOGGER,
    RunLog,
    check_folder,
    environment,
    make_folder,
    write_json,
)

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    previous: bool = False,
    datasets: tuple[DetectionDataset, DetectionDataset | None] | None = None,
    prepare: Callable[[SSD], None] | None = None,
) -> bool:
    """Train as `config` says; true if the run came to its end, false if a signal stopped it after a checkpoint.

    On the CPU this process keeps freed memory from then on (`allocator`), which makes training faster.

    Args:
        config: with `resume`, options at their defaults are taken from the run.
        resume: go on with the run in `config.output`.
        overwrite: delete the run in `config.output` first.
        previous: with `resume`, go on from the checkpoint before the last.
        datasets: to learn from and to evaluate on, in place of `config.data`; the first gets its transforms here.
        prepare: called with the new detector before its training, to change its initial weights; not with `resume`.

    Raises:
        ValueError, OSError: for options, data or a run folder that cannot be used; says what and why.
        TrainingStopped: for what ends a run before its time.
    """
    if resume:
        if overwrite:
            raise ValueError("--resume and --overwrite exclude each other")
        config = resumed(config)
    config.check(needs_data=datasets is None)
    folder = config.output
    assert folder is not None  # by the check
    check_folder(folder, resume=resume, overwrite=overwrite)
    accelerator = make_accelerator(config)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    with RunLog(accelerator.is_main_process) as log:
        train_set, val_set = datasets or open_datasets(config)
        if resume:
            check_data(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["data"], train_set, val_set)
        model = build_detector(config, train_set.class_names)
        if prepare is not None and not resume:
            prepare(model)
        if model.image_size is None:
            raise ValueError(f"{config.model} has no image size of its own: give --image-size")
        warn_of_small_boxes(train_set, model.image_size)
        train_set.transforms = augmentation(config, model.image_size)
        loop = Loop(config, accelerator, model, train_set, val_set, folder)
        if resume:
            loop.restore(previous=previous)
        elif accelerator.is_main_process:
            make_folder(folder)
            data = {"train": fingerprint(train_set), "val": fingerprint(val_set)}
            write_json(folder / CONFIG, {"train": config.to_json(), "detector": model.config, "data": data})
            write_json(folder / ENVIRONMENT, environment())
            mosaic(train_set, folder / "samples.png")
        accelerator.wait_for_everyone()
        return _run(loop, accelerator, log)


def _run(loop: Loop, accelerator: "Accelerator", log: RunLog) -> bool:
    config, position, main = loop.config, loop.position, accelerator.is_main_process
    metrics = Metrics(loop.folder, step=position.step, metrics_bytes=position.metrics_bytes, enabled=main)
    progress = Progress(config.epochs, loop.batches.steps, first=position.step, enabled=main)
    if main:
        log.write_to(loop.folder / LOG)
    log.screen.show = progress.print
    with progress:
        LOGGER.info(
            "%s on %s: %d epochs of %d steps of %d images, %s, %s at %g",
            *(config.model, accelerator.device, config.epochs, loop.batches.steps, loop.batches.batch_size),
            *(accelerator.mixed_precision.replace("no", "fp32"), config.optimizer, config.peak_lr()),
        )
        try:
            finished = loop.run(metrics, progress)
        except Exception as error:
            LOGGER.error("%s: %s", type(error).__name__, error)
            raise
        finally:
            metrics.close()
        if not finished:
            LOGGER.warning("stopped at step %d by a signal: go on with --resume", position.step)
            return False
        accelerator.wait_for_everyone()  # for the best checkpoint to be there
        draw_results(loop.folder, loop.val, accelerator.device, write=main)
        if loop.val is None:
            LOGGER.info("done, without a split to evaluate on: %s", loop.folder)
        else:
            LOGGER.info("done: best AP %.3f after epoch %d, in %s", position.best, position.best_epoch, loop.folder)
    return True


def make_accelerator(config: TrainConfig) -> "Accelerator":
    """The process of this session, and the others if a launcher started several.

    Raises:
        ValueError: for a device or precision that is not to be had here.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    device = resolve_device(config)
    precision = resolve_precision(config, device)
    # Precision is part of a state that all accelerators of a process share, and an earlier run may have set it.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")


def resumed(config: TrainConfig) -> TrainConfig:
    """The configuration of the run in `config.output`, where `config` does not contradict it.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: it was trained otherwise; says what differs.
    """
    if config.output is None:
        raise ValueError("--output is required: the folder of the run to resume")
    check_folder(config.output, resume=True, overwrite=False)
    before = read_config(config.output / CONFIG)
    now = {**before, **given(config)}
    changed = differences(before, now)
    if changed:
        raise ValueError(f"{config.output} cannot be resumed with other options: {'; '.join(changed)}")
    return dataclasses.replace(config, **now)


def check_data(before: dict[str, Any], train_set: DetectionDataset, val_set: DetectionDataset | None) -> None:
    """See that a run goes on with the data that it began with.

    Raises:
        ValueError: says what differs.
    """
    for split, now in (("train", fingerprint(train_set)), ("val", fingerprint(val_set))):
        then = before[split]
        if then == now:
            continue
        if then is None or now is None:
            raise ValueError(f"the data is not that of the run: it had {'no' if then is None else 'a'} {split} split")
        changed = [f"{k} {then[k]!r}, now {now[k]!r}" for k in ("images", "boxes", "classes") if then[k] != now[k]]
        what = "; ".join(changed) or "as many images and boxes, but other ones"
        raise ValueError(f"the {split} data is not that of the run: it had {what}")


def build_detector(config: TrainConfig, class_names: list[str]) -> SSD:
    """The detector, with its backbone's ImageNet weights where they are to be had."""
    assert config.model is not None  # by TrainConfig.check
    torch.manual_seed(config.seed)
    model = create_detector(
        config.model,
        len(class_names) + 1,
        pretrained_backbone=config.pretrained,
        class_names=class_names,
        **config.detector_settings(),
    )
    backbone = str(model.config["backbone"]) if model.config else ""
    source = config.backbone_weights
    if source == "auto":
        source = package_for(backbone) or "none"
        if source == "none" and not config.pretrained:
            LOGGER.warning("backbone %s starts from random weights: see --backbone-weights and --pretrained", backbone)
    if source != "none" and not config.pretrained:
        unused = load_backbone_weights(model.pyramid.backbone.body, source)
        LOGGER.info("backbone %s starts from %s (%d keys without use)", backbone, source, len(unused))
    if config.batch_norm == "sync":
        if not torch.cuda.is_available() or config.device == "cpu":
            raise ValueError("--batch-norm sync needs CUDA: on the CPU use frozen, or batch")
        from timm.layers import convert_sync_batchnorm

        model = convert_sync_batchnorm(model)
    return model


def resolve_device(config: TrainConfig) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: for `cuda` where there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but torch sees no CUDA GPU here: use --device cpu")
    return torch.device("cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda")


def resolve_precision(config: TrainConfig, device: torch.device) -> str:
    """fp32, bf16 or fp16.

    Raises:
        ValueError: for fp16 on the CPU.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs CUDA: on the CPU use bf16 or fp32")
    if config.precision is not None:
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
