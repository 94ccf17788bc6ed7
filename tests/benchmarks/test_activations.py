"""Activations by level and scale."""

import pytest
import torch
from PIL import Image

from benchmarks.activations import level_activations
from benchmarks.cli import main
from benchmarks.results import read_results
from detectors import create_detector


def build(**changes):
    torch.manual_seed(0)
    neck = {"num_levels": 2, "num_scales": 3, "channels": 16, **changes}
    return create_detector("m2det", 4, backbone="resnet10t", image_size=64, neck_kwargs=neck).eval()


@pytest.mark.parametrize("changes", [{}, {"sfam": False}, {"design": "released"}, {"num_levels": 1}], ids=str)
def test_the_levels_terms_add_up_to_the_logits(changes):
    detector = build(**changes)
    image = torch.rand(3, 64, 64)
    found = level_activations(detector, image)
    levels = changes.get("num_levels", 2)
    assert [len(maps) for maps in found.maps] == [3] * levels
    assert [tuple(x.shape) for x in found.maps[0]] == [(8, 8), (4, 4), (2, 2)]
    assert len(found.attention) == (0 if changes.get("sfam") is False else 3)
    assert all(0 <= weight <= 1 for weights in found.attention for weight in weights)
    if levels == 1:  # then the one term and the bias are the logit
        conv = detector.head.classes[0]
        _, logits, _ = detector.forward_head(image[None])
        bias = conv.bias.view(-1, 4)
        largest = (logits[0, : 8 * 8 * 6].view(8, 8, 6, 4) - bias)[..., 1:].amax(dim=(2, 3))
        torch.testing.assert_close(found.maps[0][0], largest, rtol=1e-4, atol=1e-4)


def test_only_an_mlfpn_has_levels():
    detector = create_detector("ssd", 4, backbone="resnet10t", neck="fpn", image_size=64)
    with pytest.raises(ValueError, match="only an MLFPN has levels: this detector is on a FPN"):
        level_activations(detector, torch.rand(3, 64, 64))


def test_a_checkpoint_and_a_picture(tmp_path):
    build().save_pretrained(tmp_path / "model")
    Image.new("RGB", (90, 70), (200, 30, 30)).save(tmp_path / "picture.png")
    words = ["activations", "--output", tmp_path, "--model", tmp_path / "model", "--image", tmp_path / "picture.png"]
    assert main(list(map(str, words))) == 0
    content = read_results(tmp_path / "activations.json")
    assert content["settings"] == {"model": "model", "image": "picture.png"}
    assert [row["key"] for row in content["rows"]] == [f"level{i}/scale{j}" for i in (1, 2) for j in (1, 2, 3)]
    with Image.open(tmp_path / "activations.png") as picture:
        assert picture.width > picture.height > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "m2det_321"), "--model names neither a file or folder nor a preset"),
        (("--budget", "cpu"), "--model is required"),
        (("--image", "nowhere.png"), "there is no picture nowhere.png"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, message):
    assert main(["activations", "--output", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


def test_smoke(tmp_path):
    assert main(["activations", "--output", str(tmp_path)]) == 0
    assert main(["activations", "--output", str(tmp_path)]) == 0
    assert len(read_results(tmp_path / "activations.json")["rows"]) == 6
