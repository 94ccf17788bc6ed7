"""A training session, from a configuration to pictures of the result: a new run, or a resumed one."""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from detectors.data import DetectionDataset, mosaic
from detectors.errors import InputError
from detectors.models.ssd import SSD
from detectors.saving import build, describe
from detectors.training.checkpoint import Checkpoints
from detectors.training.config import TrainConfig, differences, read_config, set_options
from detectors.training.data import augmentation, fingerprint, open_datasets, warn_of_small_boxes
from detectors.training.evaluation import MAX_DETECTIONS, allow_detections, detection_limit_warning
from detectors.training.loop import Loop
from detectors.training.memory import keep_freed_memory
from detectors.training.metrics import Metrics, Progress
from detectors.training.pictures import draw_results
from detectors.training.run_log import (
    CONFIG,
    ENVIRONMENT,
    HELD_OUT,
    LOG,
    LOGGER,
    RunLog,
    check_folder,
    environment,
    make_folder,
    write_json,
)
from detectors.training.start import channels_of, new_detector, planned_channels, synchronized

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    previous: bool = False,
    explicit: Collection[str] | None = None,
    datasets: tuple[DetectionDataset, DetectionDataset | None] | None = None,
    prepare: Callable[[SSD], None] | None = None,
) -> bool:
    """Train by `config`; true if the run came to its end, false if a signal stopped it after a checkpoint.

    On the CPU this process keeps freed memory from then on (`memory`), which makes training faster.

    Args:
        config: the options.
        resume: go on with the run in `config.output`.
        overwrite: delete the run in `config.output` first.
        previous: with `resume`, go on from the checkpoint before the last.
        explicit: names of the options that were chosen, whatever their values; those that are not at their defaults if
            None. The others are the run's with `resume`, and may depend on the data set's size without.
        datasets: to learn from and to evaluate on, in place of `config.data`; the first gets its transforms here.
        prepare: called with the new detector before its first step, to change its initial weights.

    Raises:
        ValueError, OSError: for options, data or a run folder that cannot be used; says what and why.
        TrainingStopped: for what ends a run before its time.
    """
    if resume:
        if overwrite:
            raise InputError("--resume and --overwrite exclude each other")
        config = resumed(config, explicit)
    config.check(needs_data=datasets is None)
    folder = config.output
    assert folder is not None  # by the check
    check_folder(folder, resume=resume, overwrite=overwrite)
    check_trackers(config.log_with)
    accelerator = make_accelerator(config)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    with RunLog(accelerator.is_main_process) as log:
        text = (folder / CONFIG).read_text(encoding="utf-8") if resume else ""
        train_set, val_set = datasets or open_datasets(
            config, channels_of(text) if resume else planned_channels(config)
        )
        if resume:
            check_data(json.loads(text)["data"], train_set, val_set)
        else:
            config, chosen = config.resolved(len(train_set), explicit)
            if chosen:
                LOGGER.info("chosen for %d training images: %s", len(train_set), chosen)
        if resume and Checkpoints(folder).exist():
            model = build(text, folder / CONFIG)  # whose weights come from the checkpoint
        else:
            model, config = new_detector(config, train_set)
            check_detections(config)
            allow_detections(model, config.max_detections)
            if prepare is not None:
                prepare(model)
        if model.image_size is None:
            raise InputError(f"{config.model} has no image size of its own: give --image-size")
        warn_of_small_boxes(train_set, model.image_size)
        if val_set is not None:
            counted = config.max_detections or MAX_DETECTIONS
            warning = detection_limit_warning("val", val_set, counted, model.postprocess)
            if warning:
                LOGGER.warning(warning)
        train_set.transforms = augmentation(config, model.image_size)
        loop = Loop(config, accelerator, synchronized(model, config), train_set, val_set, folder)
        if resume:
            loop.restore(previous=previous)
        elif accelerator.is_main_process:
            make_folder(folder)
            data = {"train": fingerprint(train_set), "val": fingerprint(val_set)}
            write_json(folder / CONFIG, {"train": config.to_json(), "detector": describe(model), "data": data})
            write_json(folder / ENVIRONMENT, environment())
            if config.val_fraction is not None and val_set is not None:
                write_json(folder / HELD_OUT, [record.file_name for record in val_set.records])
            mosaic(train_set, folder / "samples.png")
        accelerator.wait_for_everyone()
        return _run(loop, accelerator, log)


def _run(loop: Loop, accelerator: "Accelerator", log: RunLog) -> bool:
    config, position, main = loop.config, loop.position, accelerator.is_main_process
    metrics = Metrics(
        loop.folder,
        step=position.step,
        metrics_bytes=position.metrics_bytes,
        trackers=start_trackers(config, accelerator),
        enabled=main,
    )
    progress = Progress(config.epochs, loop.batches.steps, first=position.step, enabled=main)
    if main:
        log.write_to(loop.folder / LOG)
    log.screen.show = progress.print
    with progress:
        LOGGER.info(
            "%s on %s: %d epochs of %d steps of %d images, %s, %s at %g",
            *(
                config.model or config.weights,
                accelerator.device,
                config.epochs,
                loop.batches.steps,
                loop.batches.batch_size,
            ),
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
        counted = config.max_detections or MAX_DETECTIONS
        draw_results(loop.folder, loop.val, accelerator.device, max_detections=counted, write=main)
        if loop.val is None:
            LOGGER.info("done, without a split to evaluate on: %s", loop.folder)
        else:
            LOGGER.info("done: best AP %.3f after epoch %d, in %s", position.best, position.best_epoch, loop.folder)
    return True


def make_accelerator(config: TrainConfig) -> "Accelerator":
    """The process of this session, and the others if a launcher started several.

    Raises:
        ValueError: for a device or precision that is not available here.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import InitProcessGroupKwargs

    device = resolve_device(config)
    precision = resolve_precision(config, device)
    # Precision is part of a state that all accelerators of a process share, and an earlier run may have set it.
    AcceleratorState._reset_state()
    # Processes wait for the first one while it checks all pictures of a data set.
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=1))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device.type == "cpu",
        kwargs_handlers=[timeout],
    )


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate has trackers of these names, and that their packages are installed.

    Raises:
        ValueError: for others; says which there are, or what to install.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    ready = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise InputError(f"--log-with takes trackers of accelerate, {', '.join(known)}: got {name!r}")
        if name not in ready:
            raise InputError(f"--log-with {name} needs its package, which is not installed: pip install {name}")


def start_trackers(config: TrainConfig, accelerator: "Accelerator") -> list[Any]:
    """The trackers of `--log-with`, with the options of the run; project and run are named after the run's folder."""
    if not config.log_with:
        return []
    assert config.output is not None  # by TrainConfig.check
    folder = config.output.resolve()
    accelerator.log_with = list(config.log_with)
    options = {
        name: value if isinstance(value, int | float) else str(value) for name, value in config.to_json().items()
    }
    wandb = {"name": folder.name, "dir": str(folder)}
    accelerator.init_trackers(folder.parent.name or "detectors", config=options, init_kwargs={"wandb": wandb})
    return list(accelerator.trackers)


def resumed(config: TrainConfig, names: Collection[str] | None = None) -> TrainConfig:
    """The configuration of the run in `config.output`, where `config` does not contradict it.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: it was trained otherwise; says what differs.
    """
    if config.output is None:
        raise InputError("--output is required: the folder of the run to resume")
    check_folder(config.output, resume=True, overwrite=False)
    before = read_config(config.output / CONFIG)
    chosen = set_options(config, names)
    for name in ("weights", "backbone_weights", "pretrained"):
        value = chosen.get(name)
        if value not in (None, False, "auto") and str(value) != str(before[name]):
            option = name.replace("_", "-")
            raise InputError(
                f"--{option} {value} is for the start of a run: {config.output} goes on from its checkpoint"
            )
    now = {**before, **chosen}
    changed = differences(before, now)
    if changed:
        raise InputError(
            f"{config.output} cannot be resumed with other options: {'; '.join(changed)}. A new run can start from its "
            f"weights: --weights {config.output}"
        )
    return dataclasses.replace(config, **now)


def check_detections(config: TrainConfig) -> None:
    """Check that a setting does not keep the detector below the detections that are to count.

    Raises:
        ValueError: names both limits.
    """
    limit = config.detector_settings().get("postprocess_kwargs", {}).get("max_per_image")
    if limit is not None and config.max_detections is not None and limit < config.max_detections:
        raise InputError(f"--max-detections {config.max_detections} and postprocess.max_per_image={limit}: give one")


def check_data(before: dict[str, Any], train_set: DetectionDataset, val_set: DetectionDataset | None) -> None:
    """Check that a run is resumed with the data that it began with.

    Raises:
        ValueError: says what differs.
    """
    for split, now in (("train", fingerprint(train_set)), ("val", fingerprint(val_set))):
        then = before[split]
        if then == now:
            continue
        if then is None or now is None:
            raise InputError(f"the data is not that of the run: it had {'no' if then is None else 'a'} {split} split")
        changed = [f"{k} {then[k]!r}, now {now[k]!r}" for k in ("images", "boxes", "classes") if then[k] != now[k]]
        what = "; ".join(changed) or "as many images and boxes, but other ones"
        raise InputError(f"the {split} data is not that of the run: it had {what}")


def resolve_device(config: TrainConfig) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: for `cuda` where there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no CUDA GPU here: use --device cpu")
    return torch.device("cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda")


def resolve_precision(config: TrainConfig, device: torch.device) -> str:
    """fp32, bf16 or fp16.

    Raises:
        ValueError: for fp16 on the CPU.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 needs CUDA: on the CPU use bf16 or fp32")
    if config.precision is not None:
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
