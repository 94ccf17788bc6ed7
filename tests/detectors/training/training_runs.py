"""Small runs for the tests of training, in this process, in another one, or in two."""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detectors.data import SyntheticScales, export_coco
from detectors.training import TrainConfig, checkpoint, evaluation, run

# What takes long to import, so that a new process starts in a fraction of a second.
PRELOAD = ["detectors.training.run", "accelerate", "torch.utils.tensorboard", "faster_coco_eval"]
TINY = ["neck.num_levels=1", "neck.num_scales=3", "neck.channels=16", "neck.base_channels=[16,16]"]


def write_data(folder: Path, train: int = 8, val: int = 5) -> Path:
    """A small synthetic data set in COCO layout."""
    splits = {"train": (train, 0), "val": (val, 1)}
    pictures = {name: SyntheticScales.easy(n, image_size=192, seed=seed) for name, (n, seed) in splits.items() if n}
    export_coco(folder, pictures)
    return folder


def tiny_config(data: Path, output: Path, **changes: Any) -> TrainConfig:
    """Two epochs of a detector that takes some milliseconds an image."""
    config = TrainConfig(
        data=data,
        model="m2det",
        output=output,
        backbone="test_resnet",
        image_size=64,
        settings=list(TINY),
        epochs=2,
        batch_size=2,
        workers=0,
        log_steps=3,
        device="cpu",
        lr=1e-3,
    )
    return replace(config, **changes)


def no_pictures(*args: Any, **kwargs: Any) -> None:
    """In the place of what draws a run's pictures."""


def in_process(target: Callable[..., None], *args: Any) -> int | None:
    """Run a function in a fresh process and give its exit code, negative for a signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=target, args=args)
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{target.__name__}{args} did not end")
    return process.exitcode


def train_until(config: TrainConfig, resume: bool, place: str, count: int) -> None:
    """Train, and at the `count`-th time at `place` (step, sync, rename, image, term or never) end this process."""
    torch.set_num_threads(1)
    # As in a user's process: workers that a fork server started would outlive one that is killed.
    multiprocessing.set_start_method("fork", force=True)
    run.draw_results = no_pictures
    left = [count]

    def passing(function: Callable[..., Any], number: int = signal.SIGKILL) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)
            return function(*args, **kwargs)

        return wrapped

    if place == "sync":  # inside the writing of a checkpoint
        checkpoint._sync = passing(checkpoint._sync)
    elif place == "rename":  # between the writing and the new name
        Path.rename = passing(Path.rename)  # type: ignore[method-assign]
    elif place == "image":  # inside an evaluation
        evaluation.coco_results = passing(evaluation.coco_results)
    elif place in ("step", "term"):
        from detectors.training.step import Stepper

        number = signal.SIGKILL if place == "step" else signal.SIGTERM
        Stepper.__call__ = passing(Stepper.__call__, number)  # type: ignore[method-assign]
    finished = run.train(config, resume=resume)
    raise SystemExit(0 if finished else 143)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_rank(rank: int, world: int, port: int, target: Callable[..., None], *args: Any) -> None:
    """Run a function as one of several processes that accelerate finds in its environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ["LOCAL_WORLD_SIZE"] = str(world)
    torch.set_num_threads(1)
    target(*args)
    torch.distributed.destroy_process_group()


def in_processes(world: int, target: Callable[..., None], *args: Any, seconds: float = 200) -> None:
    """Run a function in several processes of a group; an error if one ends otherwise than with 0, or not in time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    port = free_port()
    processes = [context.Process(target=as_rank, args=(rank, world, port, target, *args)) for rank in range(world)]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    if codes != [0] * world:
        raise RuntimeError(f"{target.__name__} ended with {codes}")


def evaluate_into(data: Path, checkpoint_folder: Path, file: Path) -> None:
    """Evaluate a checkpoint on the validation split and write the result of this rank."""
    from accelerate import Accelerator

    from detectors.data import evaluation_transforms, load_dataset
    from detectors.models.ssd import SSD

    accelerator = Accelerator(cpu=True)
    dataset = load_dataset(data, "val", transforms=evaluation_transforms())
    detections = evaluation.detect(SSD.from_pretrained(checkpoint_folder), dataset, batch_size=2)
    file.with_suffix(f".{accelerator.process_index}").write_text(json.dumps(detections))
