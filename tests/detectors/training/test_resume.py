"""A run cut off at any moment ends as if it had never been; a damaged checkpoint is refused."""

import json
from pathlib import Path

import pytest
from training_runs import in_process, tiny_config, train_until

from detectors.training.checkpoint import Checkpoints, DamagedCheckpoint
from detectors.training.run import train

NEVER = ("never", 0)
# Before the first checkpoint, some steps in, in the third checkpoint's writing, between two renames, inside an
# evaluation, and late in the run.
KILLS = [("step", 1), ("step", 3), ("sync", 9), ("rename", 3), ("image", 3), ("step", 4)]
COMPARED = ("last/state.safetensors", "last/model.safetensors", "best/model.safetensors", "metrics.jsonl")


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in COMPARED}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing cut off."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert in_process(train_until, tiny_config(data, run), False, *NEVER) == 0
    return run


def test_killed_run_ends_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", checkpoint_minutes=0)
    codes = [in_process(train_until, config, number > 0, *kill) for number, kill in enumerate(KILLS)]
    assert codes == [-9] * len(KILLS)
    assert in_process(train_until, config, True, *NEVER) == 0
    assert contents(config.output) == contents(whole)


def test_terminated_run_saves_and_ends_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run")
    assert in_process(train_until, config, False, "term", 6) == 143
    assert Checkpoints(config.output).load()[2]["step"] == 6
    assert in_process(train_until, config, True, *NEVER) == 0
    assert contents(config.output) == contents(whole)


@pytest.mark.slow
def test_killed_run_ends_the_same_with_workers(data: Path, whole: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", checkpoint_minutes=0, workers=2)
    kills = [(place, count) for place in ("step", "sync", "rename", "image") for count in (1, 2, 5)]
    codes = [in_process(train_until, config, (tmp_path / "run/config.json").exists(), *kill) for kill in kills]
    assert codes.count(-9) >= 5
    assert in_process(train_until, config, True, *NEVER) == 0
    assert contents(config.output) == contents(whole)


def test_resume_of_a_finished_run_changes_nothing(data: Path, whole: Path) -> None:
    before = contents(whole)
    assert train(tiny_config(data, whole), resume=True)
    assert contents(whole) == before


def test_damaged_checkpoint_is_refused_and_the_one_before_offered(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run")
    assert train(config)
    state = config.output / "last/state.safetensors"
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    state.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"state.safetensors is not what was written.*--resume --previous"):
        train(config, resume=True)
    (config.output / "previous").rename(config.output / "gone")
    with pytest.raises(DamagedCheckpoint, match="there is no intact one before it"):
        train(config, resume=True)
    (config.output / "gone").rename(config.output / "previous")
    assert train(config, resume=True, previous=True)
    assert Checkpoints(config.output).load()[2]["evaluated"] == 2


def test_unfinished_write_is_never_seen(data: Path, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(lambda folder: None, {}, {"step": 1})

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(fail, {}, {"step": 2})
    assert checkpoints.load()[2] == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]


def test_resume_with_other_options_says_what_differs(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size was 2 and is now 4; model was 'm2det' and is now 'ssd'"):
        train(tiny_config(data, whole, model="ssd", batch_size=4), resume=True)


def test_resume_with_other_data_says_what_differs(data: Path, whole: Path, tmp_path: Path) -> None:
    from training_runs import write_data

    with pytest.raises(ValueError, match=r"train data is not that of the run: it had images 8, now 6"):
        train(tiny_config(write_data(tmp_path / "other", train=6), whole), resume=True)


def test_metrics_hold_no_times(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {key for line in lines for key in line} >= {"AP", "AP50", "classification", "lr", "gradient_norm"}
    assert not {key for line in lines for key in line} & {"time", "seconds", "images_per_second"}
