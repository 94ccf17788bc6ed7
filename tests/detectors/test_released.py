"""Checkpoints of the authors' code: golden outputs, every name and shape, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from detectors import SSD, M2Det, load_released_checkpoint
from detectors.released import coco_names

GOLDEN = Path(__file__).parents[1] / "golden"


def weights_of(file):
    stored = load_file(file)
    half = {name[3:]: value for name, value in stored.items() if name.startswith("sd.")}
    return {n: v.float() if v.dtype == torch.float16 else v for n, v in half.items()}, stored


@pytest.fixture
def official(shared):
    return weights_of(shared / "golden" / "m2det_tiny.safetensors")


@pytest.fixture
def maps():
    stream = np.random.RandomState(109)
    shapes = ((1, 512, 40, 40), (1, 1024, 20, 20))
    return [torch.from_numpy(stream.random_sample(shape).astype(np.float32)) for shape in shapes]


def with_backbone(weights):
    """The weights with a random VGG-16 of the official names."""
    official = json.loads((GOLDEN / "official_state_dict_keys.json").read_text())["m2det512_vgg_sfam_false"]
    generator = torch.Generator().manual_seed(0)
    base = {n: torch.randn(shape, generator=generator) * 0.01 for n, shape in official if n.startswith("base.")}
    return {**base, **weights}


@pytest.mark.parametrize("sfam", [False, True])
def test_golden(shared, official, maps, sfam):
    weights, stored = official
    torch.testing.assert_close(maps[0][0, :4, 0, :4], stored["check.shallow"])
    torch.testing.assert_close(maps[1][0, :4, 0, :4], stored["check.deep"])
    if sfam:
        attention, stored = weights_of(shared / "golden" / "m2det_tiny_sfam.safetensors")
        weights = {**weights, **attention}
    model = load_released_checkpoint(weights, require_backbone=False)
    assert isinstance(model, M2Det)
    assert not model.training
    with torch.no_grad():
        loc, conf = model.head(model.pyramid.neck(maps))
    for got, expected in ((loc, stored["loc"]), (conf, stored["conf"])):
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("variant", ["m2det512_vgg_sfam_false", "m2det512_vgg_sfam_true"])
@pytest.mark.parametrize("change", [None, "module.", "no counters"])
def test_every_name_and_shape(variant, change):
    names = json.loads((GOLDEN / "official_state_dict_keys.json").read_text())[variant]
    weights = {name: torch.zeros(1).expand(shape) if shape else torch.tensor(0) for name, shape in names}
    if change == "module.":
        weights = {f"module.{name}": value for name, value in weights.items()}
    if change == "no counters":
        weights = {name: value for name, value in weights.items() if "num_batches_tracked" not in name}
    with torch.device("meta"), pytest.warns(UserWarning, match="meta"):  # names and shapes are checked, nothing copied
        model = load_released_checkpoint(weights, image_size=512)
    counts = {"m2det512_vgg_sfam_false": 132_633_140, "m2det512_vgg_sfam_true": 133_159_604}
    assert sum(p.numel() for p in model.parameters()) == counts[variant]
    assert model.num_classes == 81
    assert model.class_names == coco_names()


def test_what_the_authors_code_does_around_the_network(official):
    weights = with_backbone(official[0])
    model = load_released_checkpoint(weights, image_size=320)
    assert (model.postprocess.score_threshold, model.postprocess.iou_threshold) == (0.1, 0.3)
    assert model.postprocess.extra_pixel
    picture = torch.rand(3, 100, 150)
    # Their way: BGR in 0..255, minus the mean, stretched without anti-aliasing.
    stretched = torch.nn.functional.interpolate(picture[None], size=(320, 320), mode="bilinear")
    bgr = stretched.flip(1) * 255 - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(model.preprocess([picture]), stretched)
    expected = torch.nn.functional.conv2d(bgr, weights["base.0.weight"], weights["base.0.bias"], padding=1)
    ours = (model.preprocess([picture]) - model.image_mean) / model.image_std
    first = next(m for m in model.pyramid.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    torch.testing.assert_close(first(ours), expected, atol=1e-3, rtol=1e-4)
    assert len(model([picture])) == 1


def test_without_image_size_anchors_follow(official):
    model = load_released_checkpoint(official[0], require_backbone=False)
    assert model.image_size is None
    assert model.forward_head(torch.rand(1, 3, 320, 320))[2].shape == (12_810, 4)


def test_can_be_saved(official, tmp_path):
    model = load_released_checkpoint(with_backbone(official[0]), image_size=320)
    model.save_pretrained(tmp_path)
    loaded = SSD.from_pretrained(tmp_path)
    assert loaded.postprocess.extra_pixel
    picture = [torch.rand(3, 320, 320)]
    torch.testing.assert_close(loaded(picture), model(picture))


def test_files(official, tmp_path):
    file = tmp_path / "m2det.pth"
    for legacy in (True, False):
        torch.save(with_backbone(official[0]), file, _use_new_zipfile_serialization=not legacy)
        assert load_released_checkpoint(file).num_classes == 3
        whole = file.read_bytes()
        for kept in (len(whole) // 2, len(whole) - 1000, 10, 0):
            file.write_bytes(whole[:kept])
            with pytest.raises(ValueError, match="refused: it is damaged"):
                load_released_checkpoint(file)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path(__file__).with_name("was_run"),))


def test_a_pickle_that_would_run_code(tmp_path):
    file = tmp_path / "harmful.pth"
    for dump in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        dump({"reduce.conv.weight": Harmful()}, file)
        with pytest.raises(ValueError, match="could run code") as refusal:
            load_released_checkpoint(file)
        assert "weights_only" not in str(refusal.value)  # torch's own words advise to load it all the same
        if dump is torch.save:
            assert "(it calls for " in str(refusal.value)
        assert not Path(__file__).with_name("was_run").exists()


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_released_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (3, TypeError, "got a int"),
        ({"conv1.weight": torch.zeros(1)}, ValueError, "it lacks reduce.conv.weight"),
        ({"epoch": 3}, ValueError, "not a state dict"),
        ({}, ValueError, "it lacks"),
    ],
)
def test_other_contents(content, error, message):
    with pytest.raises(error, match=message):
        load_released_checkpoint(content)


def test_other_weights(official):
    weights, _ = official

    def load(change, remove=()):
        changed = {**{n: v for n, v in weights.items() if n not in remove}, **change}
        load_released_checkpoint(changed, require_backbone=False)

    with pytest.raises(ValueError, match="pass require_backbone=False"):
        load_released_checkpoint(weights)
    with pytest.raises(ValueError, match="not complete: missing"):
        load({}, remove=["unet2.smooth.3.bn.weight"])
    with pytest.raises(ValueError, match="not part of it"):
        load({"extras.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"leach\.1\.conv\.weight differs from leach\.0"):
        load({"leach.1.conv.weight": weights["leach.1.conv.weight"] + 1})
    with pytest.raises(ValueError, match="shapes do not fit"):
        load({"unet2.smooth.3.bn.weight": torch.zeros(5)})
    with pytest.raises(ValueError, match="shapes do not fit"):
        load({"conf.1.weight": torch.zeros(24, 32, 3, 3)})
    with pytest.raises(ValueError, match="only checkpoints on VGG-16"):
        load({"up_reduce.conv.weight": torch.zeros(512, 2048, 1, 1)})
    with pytest.raises(ValueError, match="6 boxes per location"):
        load({"loc.0.weight": torch.zeros(16, 32, 3, 3)})
