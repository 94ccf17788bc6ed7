"""Model cards of saved detectors, and detectors of the Hub, whose files come from a folder here."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from detectors import SSD, saving
from detectors.card import model_card
from detectors.cli import main

NAMES = ["cat", "dog|wolf", "émeu"]
REPORT = {
    **{"AP": 0.4316, "AP50": 0.7, "AP75": 0.5, "APs": -1.0, "APm": 0.25, "APl": 0.6, "split": "test", "images": 36},
    "classes": {"cat": {"AP": 0.5, "AP50": 0.75}, "dog|wolf": {"AP": -1.0, "AP50": -1.0}},
}


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.fixture
def run(tmp_path):
    """A training run as far as a card reads it."""
    folder = tmp_path / "run"
    folder.mkdir()
    train = {"data": "/home/me/secret/bccd", "train_split": "train", "epochs": 30, "batch_size": 8, "weights": None}
    (folder / "config.json").write_text(json.dumps({"train": train}))
    lines = [{"step": 1, "lr": 0.1}, {**REPORT, "AP": 0.4}, {**REPORT, "AP": 0.45}, {**REPORT, "AP": 0.44}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (8, 8), "red").save(folder / "detections.png")
    return folder


@pytest.fixture
def detector(tiny):
    return tiny("m2det", class_names=NAMES)


def test_a_card_states_everything_that_is_given(detector, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    Image.new("RGB", (8, 8)).save(tmp_path / "drawn.jpg")
    about = {"license": "cc-by-4.0", "data": "36 pictures of pets.", "report": tmp_path / "report.json"}
    detector.save_pretrained(tmp_path / "saved", model_card_kwargs={**about, "picture": tmp_path / "drawn.jpg"})
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "object-detection"
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("mean_average_precision", 0.4316, "test")
    assert "| 1 | cat | 50.0 | 75.0 |" in section(card.text, "Classes")
    assert "| 2 | dog\\|wolf | - | - |" in card.text
    assert "| 3 | émeu | - | - |" in card.text
    assert "36 pictures of pets." in section(card.text, "Data")
    precision = section(card.text, "Average precision")
    assert "`test` of 36 images" in precision
    assert "| 43.2 | 70.0 | 50.0 | - | 25.0 | 60.0 |" in precision
    assert "cc-by-4.0" in section(card.text, "Licence")
    assert "(detections.jpg)" in card.text
    assert Image.open(tmp_path / "saved" / "detections.jpg").size == (8, 8)


def test_the_card_of_a_run(detector, run, tmp_path):
    detector.save_pretrained(tmp_path / "saved", model_card_kwargs={"run": run})
    text = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "| 45.0 |" in section(text, "Average precision")  # of the best checkpoint, not the last
    assert "`train` of `bccd`: 30 epochs in batches of 8." in section(text, "Data")
    assert "secret" not in text
    assert "(detections.png)" in text
    assert Image.open(tmp_path / "saved" / "detections.png").getpixel((0, 0)) == (255, 0, 0)


def test_what_is_not_known_is_said_to_be_so(tiny, tmp_path):
    tiny("ssd").save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None
    assert card.data.eval_results is None
    assert section(card.text, "Licence").strip().startswith("Not stated")
    assert section(card.text, "Average precision").strip() == "Not measured."
    assert section(card.text, "Data").strip() == "Not stated."
    assert "| 3 | class 3 |" in card.text
    assert "![" not in card.text


def test_the_code_of_a_card_runs(detector, tmp_path, monkeypatch):
    detector.save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "saved"))
    namespace = {"image": torch.rand(3, 80, 100)}
    exec(code, namespace)
    assert {"boxes", "labels", "scores"} == set(namespace["detections"])


def test_a_card_that_is_there_stays(detector, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    detector.save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("about", "error", "message"),
    [
        ({"report": {"AP50": 1.0}}, ValueError, "has no AP"),
        ({"report": {"AP": 0.5, "classes": {"tree": {}}}}, ValueError, "other classes than the detector's: tree"),
        ({"report": "nothing.json"}, FileNotFoundError, r"nothing\.json"),
        ({"picture": "nothing.png"}, FileNotFoundError, r"no picture at nothing\.png"),
        ({"run": "nothing"}, FileNotFoundError, "nothing"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(detector, tmp_path, about, error, message):
    with pytest.raises(error, match=message):
        detector.save_pretrained(tmp_path / "saved", model_card_kwargs=about)
    assert not (tmp_path / "saved").exists()


def test_a_report_that_is_no_json(detector, tmp_path):
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        model_card(detector, report=tmp_path / "report.json")


def test_pushed_and_detected_with_by_name(detector, run, tmp_path, monkeypatch):
    """The Hub is a folder: what is uploaded is what is downloaded."""
    hub = tmp_path / "hub"

    def upload(self, *, repo_id, folder_path, **kwargs):
        shutil.copytree(folder_path, hub / repo_id)
        return f"uploaded {repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(saving, "hf_hub_download", lambda name, file, **options: str(hub / name / file))
    assert detector.push_to_hub("me/pets", model_card_kwargs={"license": "mit", "run": run}) == "uploaded me/pets"
    card = ModelCard.load(hub / "me" / "pets" / "README.md")
    assert (card.data.model_name, card.data.license) == ("me/pets", "mit")
    assert 'load("me/pets")' in card.text
    assert "detect --checkpoint me/pets" not in card.text
    assert "python -m detectors predict --checkpoint me/pets --output drawn photos" in card.text
    assert (hub / "me" / "pets" / "detections.png").is_file()
    assert SSD.from_pretrained("me/pets").class_names == NAMES

    Image.new("RGB", (90, 60), "green").save(tmp_path / "photo.png")
    command = ["predict", "--checkpoint", "me/pets", "--output", str(tmp_path / "drawn"), str(tmp_path / "photo.png")]
    assert main(command) == 0
    listed = json.loads((tmp_path / "drawn" / "images.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in listed["categories"]] == NAMES
    assert Path(tmp_path / "drawn" / "photo.png").is_file()


def test_a_name_that_the_hub_does_not_know_is_one_line(tmp_path, monkeypatch, capsys):
    def absent(name, file, **options):
        raise OSError(f"no repository {name}")

    monkeypatch.setattr(saving, "hf_hub_download", absent)
    Image.new("RGB", (90, 60)).save(tmp_path / "photo.png")
    command = ["predict", "--checkpoint", "me/pets", "--output", str(tmp_path / "drawn"), str(tmp_path / "photo.png")]
    assert main(command) == 2
    assert "no such detector on the Hub: no repository me/pets" in capsys.readouterr().err
