"""The loader benchmark counts what a loader gives."""

import json

import pytest
import torch

from benchmarks.cli import main
from benchmarks.loader import RECIPES, images_per_second
from benchmarks.reading import FORMATS, WRITERS, _measure
from detectors.data import SyntheticScales, training_transforms
from detectors.data.dataset import Sample, Target


@pytest.mark.parametrize("name", FORMATS)
def test_what_reading_costs(tmp_path, name):
    WRITERS[name](tmp_path / name, 20)
    found = _measure(tmp_path / name, name)
    assert found["boxes"] == 140
    assert found["seconds"] > 0
    assert found["parser_seconds"] > 0
    assert found["peak_mebibytes"] > found["mebibytes"] >= 0


@pytest.mark.slow
def test_every_amount_of_work_is_measured_for_every_count(tmp_path, capsys):
    assert main(["loader", "--budget", "smoke", "--output", str(tmp_path), "--image-size", "64"]) == 0
    content = json.loads((tmp_path / "loader.json").read_text())
    loaded = [row for row in content["rows"] if "workers" in row]
    assert {(row["workers"], row["work"]) for row in loaded} == {(n, name) for n in (0, 1) for name in RECIPES}
    assert all(row["images"] == 16 and row["images_per_second"] > 0 for row in loaded)
    read = [row for row in content["rows"] if "reading" in row]
    assert [(row["reading"], row["images"], row["boxes"]) for row in read] == [(name, 50, 350) for name in FORMATS]
    assert "Loader" in capsys.readouterr().out


def test_every_image_of_the_second_epoch_is_counted_once():
    seen: list[int] = []

    def noting(image: torch.Tensor, target: Target) -> Sample:
        seen.append(int(target["image_id"]))
        return training_transforms(32)(image, target)

    dataset = SyntheticScales(8, image_size=64, max_size=32, transforms=noting)
    found = images_per_second(dataset, 4, 0, pin=False)
    assert found["images"] == 8
    assert sorted(seen[8:]) == sorted(seen[:8]) == list(range(1, 9))
    assert found["images_per_second"] == pytest.approx(8 / found["seconds"])
