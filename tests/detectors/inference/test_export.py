"""Export: files agree with the detector, or are not written."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from detectors.inference.export import check, export_onnx, export_program


def inputs(count=1):
    torch.manual_seed(3)
    return torch.rand(count, 3, 64, 64), torch.tensor([[48, 80]] * count)


def assert_agree(got, expected):
    for i, n in enumerate(expected[3].tolist()):
        assert int(got[3][i]) == n > 0
        for one, other in zip(got[:3], expected[:3]):
            torch.testing.assert_close(one[i, :n], other[i, :n], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", [pytest.param("ssd", marks=pytest.mark.slow), "m2det"])
def test_onnx(tiny, tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny(name, spread=30).eval()
    path = tmp_path / "detector.onnx"
    export_onnx(model, path, batch_size=2)
    assert [file.name for file in tmp_path.iterdir()] == ["detector.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    assert [node.name for node in session.get_inputs()] == ["images", "sizes"]
    assert [node.name for node in session.get_outputs()] == ["boxes", "scores", "labels", "valid"]
    images, sizes = inputs(2)
    got = session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})
    with torch.no_grad():
        assert_agree([torch.from_numpy(np.asarray(value)) for value in got], model.forward_fixed(images, sizes))


@pytest.mark.parametrize(("name", "nms"), [("ssd", "hard"), ("m2det", "linear")])
def test_program(tiny, tmp_path, name, nms):
    model = tiny(name, spread=30, postprocess_kwargs={"nms": nms}).eval()
    path = tmp_path / "detector.pt2"
    export_program(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["detector.pt2"]
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        assert_agree(loaded(*inputs()), model.forward_fixed(*inputs()))


def test_suppression_is_checked_where_the_probe_shows_nothing(tiny, tmp_path, monkeypatch):
    import detectors.inference.export as export

    counts = []
    monkeypatch.setattr(export, "check", lambda *arguments: counts.append(check(*arguments)) or counts[-1])
    export_program(tiny(postprocess_kwargs={"score_threshold": 0.9}).eval(), tmp_path / "detector.pt2")
    assert counts[0] == 0 < counts[1]


def test_disagreement_is_found(tiny):
    model = tiny().eval()
    with torch.no_grad():
        assert check(model, model.forward_fixed, inputs()) > 0
        other = copy.deepcopy(model)
        other.head.boxes[0].bias += 0.1
        with pytest.raises(RuntimeError, match="disagrees with the detector on"):
            check(model, other.forward_fixed, inputs())
        other = copy.deepcopy(model)
        other.head.classes[0].bias[::2] += 0.5
        with pytest.raises(RuntimeError, match="disagrees"):
            check(model, other.forward_fixed, inputs())


def test_disagreement_is_found_where_all_scores_are_equal(tiny):
    """As many detections as fit, all at the cut: their scores are compared."""
    model = tiny().eval()
    for conv in model.head.classes:
        torch.nn.init.zeros_(conv.weight)
    other = copy.deepcopy(model)
    for conv in other.head.classes:
        conv.bias.data[::2] += 0.5
    with torch.no_grad():
        assert check(model, model.forward_fixed, inputs()) > 0
        with pytest.raises(RuntimeError, match="disagrees"):
            check(model, other.forward_fixed, inputs())


def test_a_failed_check_leaves_no_file_and_keeps_the_old(tiny, tmp_path, monkeypatch):
    import detectors.inference.export as export

    def fail(*arguments):
        raise RuntimeError("the exported model disagrees")

    path = tmp_path / "detector.pt2"
    path.write_text("old")
    monkeypatch.setattr(export, "check", fail)
    with pytest.raises(RuntimeError, match="disagrees"):
        export_program(tiny(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_size_of_its_own_and_as_it_was_afterwards(tiny, tmp_path):
    model = tiny(image_size=None).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="give image_size"):
        export_program(model, tmp_path / "detector.pt2")
    export_program(model, tmp_path / "detector.pt2", image_size=(64, 96))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    loaded = torch.export.load(tmp_path / "detector.pt2").module()
    assert loaded(torch.rand(1, 3, 64, 96), torch.tensor([[64, 96]]))[0].shape[-1] == 4


def test_bad_requests(tiny, tmp_path):
    model = tiny()
    with pytest.raises(ValueError, match="at least 1: got 0"):
        export_program(model, tmp_path / "detector.pt2", batch_size=0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_program(model, tmp_path / "none" / "detector.pt2")
    with pytest.raises(ValueError, match=r"images of \(64, 64\), not of \(32, 32\)"):
        export_program(model, tmp_path / "detector.pt2", image_size=32)


def test_missing_toolchain(tiny, tmp_path, monkeypatch):
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else known(name))
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'feature-pyramids\[export\]'"):
        export_onnx(tiny(), tmp_path / "detector.onnx")
    assert not list(tmp_path.iterdir())


def test_importing_detectors_needs_neither_triton_nor_heavy_packages():
    heavy = {"onnx", "onnxscript", "onnxruntime", "matplotlib", "tyro", "accelerate", "tensorboard", "faster_coco_eval"}
    code = "import sys; sys.modules['triton'] = None; import detectors; "
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
