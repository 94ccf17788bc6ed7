"""`predict`: images and videos in, drawings and detections out, in the forms that other tools read."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from detectors import SSD
from detectors.cli import main
from detectors.commands.predict import find_inputs
from detectors.inference.results import as_supervision
from detectors.inference.video import VideoReader, VideoWriter

IDS = [3, 7, 20]


@pytest.fixture
def saved(tiny: Callable[..., nn.Module], tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    tiny("m2det", spread=30, class_names=["cat", "dog", "emu"], category_ids=IDS).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    torch.manual_seed(0)
    for name, size in (("a.jpg", (80, 48)), ("b.png", (64, 64)), ("more/a.png", (50, 90))):
        pixels = (torch.rand(size[1], size[0], 3) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(saved: Path, output: Path, *inputs: Path, more: Sequence[str] = ()) -> int:
    return main(["predict", *map(str, inputs), "--checkpoint", str(saved), "--output", str(output), *more])


def test_predict_on_a_folder(saved: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert predict(saved, output, photos) == 0
    assert "images/s" in capsys.readouterr().out
    content = json.loads((output / "images.json").read_text())
    names = [image["file_name"].removeprefix(f"{photos}/") for image in content["images"]]
    assert names == ["a.jpg", "b.png", "more/a.png"]
    assert [(image["width"], image["height"]) for image in content["images"]] == [(80, 48), (64, 64), (50, 90)]
    assert content["categories"] == [{"id": i, "name": name} for i, name in zip(IDS, ["cat", "dog", "emu"])]
    for image in content["images"]:
        with Image.open(output / image["drawing"]) as drawing:
            assert drawing.size == (image["width"], image["height"])
    assert len({image["drawing"] for image in content["images"]}) == 3


def test_pycocotools_loads_the_results(saved: Path, photos: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    assert predict(saved, tmp_path / "all", photos) == 0
    scores = sorted(row["score"] for row in json.loads((tmp_path / "all/detections.json").read_text()))
    least = scores[len(scores) // 2]
    assert predict(saved, tmp_path / "out", photos, more=["--min-score", str(least)]) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(str(tmp_path / "out/images.json"))
        results = images.loadRes(str(tmp_path / "out/detections.json"))
    found = results.loadAnns(results.getAnnIds())
    assert found
    assert {row["image_id"] for row in found} <= {1, 2, 3}
    assert {row["category_id"] for row in found} <= set(IDS)
    assert len(found) == sum(score >= least for score in scores) < len(scores)
    assert min(row["score"] for row in found) >= least


def test_predictions_are_the_detectors(saved: Path, photos: Path, tmp_path: Path) -> None:
    assert predict(saved, tmp_path / "out", photos / "b.png") == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    from torchvision.io import decode_image

    # Deployed, as the order of near-equal scores is up to rounding.
    [expected] = SSD.from_pretrained(saved).deploy()([decode_image(str(photos / "b.png")).float() / 255])
    assert len(rows) == len(expected["boxes"]) > 0
    for row, box, score, label in zip(rows, expected["boxes"], expected["scores"], expected["labels"]):
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=0.02)
        assert row["score"] == pytest.approx(score.item(), abs=1e-4)
        assert row["category_id"] == IDS[label - 1]


def test_image_ids_of_the_source(saved: Path, photos: Path, tmp_path: Path) -> None:
    known = [{"id": 40, "file_name": "a.jpg"}, {"id": 50, "file_name": "more/a.png"}]
    (tmp_path / "known.json").write_text(json.dumps({"images": known}))
    more = ["--annotations", str(tmp_path / "known.json")]
    assert predict(saved, tmp_path / "out", photos, more=more) == 1  # b.png is not among them
    content = json.loads((tmp_path / "out/images.json").read_text())
    assert [image["id"] for image in content["images"]] == [40, 50]
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert {row["image_id"] for row in rows} <= {40, 50}


def test_csv_and_supervision_tell_the_same(saved: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("csv", "supervision", "coco"):
        assert predict(saved, tmp_path / name, photos, more=["--format", name]) == 0
    with (tmp_path / "csv/detections.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    plain = json.loads((tmp_path / "supervision/detections.json").read_text())
    coco = json.loads((tmp_path / "coco/detections.json").read_text())
    assert len(table) == len(plain) == len(coco) > 0
    for row, other, result in zip(table, plain, coco):
        assert float(row["score"]) == pytest.approx(other["confidence"]) == pytest.approx(result["score"])
        assert row["class_name"] == other["class_name"]
        assert int(row["category_id"]) == result["category_id"] == IDS[other["class_id"]]
        assert float(row["x2"]) - float(row["x1"]) == pytest.approx(result["bbox"][2], abs=1e-3)


def test_detections_as_supervision() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    found = {
        "boxes": torch.tensor([[1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 9.0, 9.0]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.5, 0.25]),
    }
    detections = as_supervision(found, ["cat", "dog"])
    assert detections.xyxy.tolist() == found["boxes"].tolist()
    assert detections.class_id.tolist() == [1, 0]
    assert detections.data["class_name"].tolist() == ["dog", "cat"]
    nothing = {key: value[:0] for key, value in found.items()}
    assert len(as_supervision(nothing, ["cat", "dog"])) == 0


def test_a_video_frame_by_frame(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    shades = torch.tensor([0, 60, 120, 180, 240], dtype=torch.uint8)
    with VideoWriter(tmp_path / "clip.mp4", Fraction(10)) as writer:
        for shade in shades:
            writer.write(shade.expand(3, 49, 80))  # an odd height loses its last row
    frames = list(VideoReader(tmp_path / "clip.mp4"))
    assert [tuple(frame.shape) for frame in frames] == [(3, 48, 80)] * 5
    assert [float(frame.float().mean()) for frame in frames] == pytest.approx(shades.tolist(), abs=6)
    assert predict(saved, tmp_path / "out", tmp_path / "clip.mp4") == 0
    content = json.loads((tmp_path / "out/images.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{tmp_path}/clip.mp4#{i}" for i in range(5)]
    assert {image["drawing"] for image in content["images"]} == {"clip.mp4"}
    drawn = VideoReader(tmp_path / "out/clip.mp4")
    assert drawn.rate == 10
    assert len(list(drawn)) == 5


def test_a_file_that_is_no_video_is_told(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "clip.mp4").write_text("no video")
    assert predict(saved, tmp_path / "out", tmp_path / "clip.mp4") == 1
    assert "clip.mp4 cannot be read as a video" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_predict_in_half_precision(saved: Path, photos: Path, tmp_path: Path, precision: str) -> None:
    found = {}
    for name in ("fp32", precision):
        assert predict(saved, tmp_path / name, photos / "b.png", more=("--precision", name)) == 0
        found[name] = json.loads((tmp_path / name / "detections.json").read_text())
    assert [row["score"] for row in found[precision]] != [row["score"] for row in found["fp32"]]
    assert found[precision][0]["score"] == pytest.approx(found["fp32"][0]["score"], abs=0.05)


@pytest.mark.slow
def test_predict_compiled(saved: Path, photos: Path, tmp_path: Path) -> None:
    found = {}
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        assert predict(saved, tmp_path / name, photos, more=more) == 0
        found[name] = json.loads((tmp_path / name / "detections.json").read_text())
    assert len(found["plain"]) > 0
    for ours, theirs in zip(found["compiled"], found["plain"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)


def test_predict_goes_on_past_broken_files(
    saved: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "a.jpg").read_bytes()
    (photos / "a0.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "a1.png").write_text("no image")
    Image.new("RGB", (1, 1)).save(photos / "a2.png")
    assert predict(saved, tmp_path / "out", photos) == 1
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 3
    errors = capsys.readouterr().err
    assert all(name in errors for name in ("a0.jpg", "a1.png", "a2.png"))


def test_a_defect_is_not_taken_for_a_broken_file(
    saved: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ValueError("of the library's own making")

    monkeypatch.setattr("detectors.commands.predict.detect", defect)
    with pytest.raises(ValueError, match="own making"):
        predict(saved, tmp_path / "out", photos)


def test_predict_takes_patterns_and_does_not_read_its_own_drawings(saved: Path, photos: Path) -> None:
    output = photos / "out"
    assert predict(saved, output, photos / "*.jpg", photos / "*.png") == 0
    assert len(json.loads((output / "images.json").read_text())["images"]) == 2
    assert predict(saved, output, photos) == 0
    assert len(json.loads((output / "images.json").read_text())["images"]) == 3


def test_predict_without_images(saved: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for missing in (photos / "none.jpg", photos / "*.webp"):
        assert predict(saved, tmp_path / "out", missing) == 2
        assert str(missing) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("names", "shown"), [(("x.psd",), "1 .psd"), (("x.EPS", "y.eps", "z.dng"), "2 .eps, 1 .dng")])
def test_files_that_are_skipped_are_counted(
    names: tuple[str, ...], shown: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.txt").unlink()
    for name in names:
        (photos / name).touch()
    output = photos / "output"
    output.mkdir()
    (output / "detections.json").touch()
    assert len(find_inputs((str(photos),), output)) == 3
    note = f"note: {photos}: {len(names)} files that are not images or videos by their names are skipped: {shown}\n"
    assert capsys.readouterr().err == note
    for name in names:
        (photos / name).unlink()
    find_inputs((str(photos),), output)
    assert not capsys.readouterr().err
