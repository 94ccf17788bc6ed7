"""The benchmark of trained runs: what it reads from a run's folder, and what it measures."""

import json

import pytest

from benchmarks.cli import main
from benchmarks.training import run_history


def test_a_run_is_measured_and_drawn(tmp_path):
    assert main(["training", "--budget", "smoke", "--output", str(tmp_path)]) == 0
    [row] = json.loads((tmp_path / "training.json").read_text())["rows"]
    assert "error" not in row
    assert (row["views"], row["images"]) == (8, 8)
    assert -1 <= row["AP"] <= 1
    assert row["classes"]
    assert (tmp_path / row["picture"]).stat().st_size > 1000


def write_run(folder, speeds):
    config = {"train": {"model": "m", "epochs": 2, "batch_size": 10}}
    environment = {"command": ["detectors/__main__.py", "train", "--model", "m"], "threads": 2, "gpus": []}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speeds))


def speed(step, rate, waiting):
    return {"step": step, "images_per_second": rate, "waiting_for_data": waiting}


def test_history_weighs_epochs_by_their_time_and_counts_a_step_once(tmp_path):
    # The middle line is of steps that were done again after a resume.
    write_run(tmp_path / "run", [speed(5, 1.0, 0.0), speed(10, 5.0, 0.9), speed(10, 2.5, 0.2)])
    found = run_history(tmp_path / "run")
    assert found["command"] == "python -m detectors train --model m"
    assert found["trained_on"] == "CPU, 2 threads"
    assert found["views"] == 100
    assert found["train_minutes"] == pytest.approx((50 + 20) / 60, abs=0.01)
    assert found["images_per_second"] == pytest.approx(100 / 70, abs=0.01)
    assert found["waiting_for_data"] == pytest.approx(0.2 * 20 / 70, abs=1e-4)


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    arguments = ["training", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--budget", "cpu"]) == 2
    assert "--run-folder and --data are required" in capsys.readouterr().err
    assert main([*arguments, "--run-folder", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert f"{tmp_path} is not the folder of a training run" in capsys.readouterr().err
    write_run(tmp_path / "run", [])
    assert main([*arguments, "--run-folder", str(tmp_path / "run"), "--data", str(tmp_path)]) == 2
    assert "has not trained an epoch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
