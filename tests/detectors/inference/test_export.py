"""Export: files agree with the detector, or are not written."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from detectors.inference.agreement import check_detections as check
from detectors.inference.agreement import check_raw
from detectors.inference.export import export_onnx, export_program
from detectors.inference.openvino import core

RAW = ("boxes", "scores")
FULL = ("boxes", "scores", "labels", "valid")


def inputs(count=1):
    torch.manual_seed(3)
    return torch.rand(count, 3, 64, 64), torch.tensor([[48, 80]] * count)


def assert_agree(got, expected):
    for i, n in enumerate(expected[3].tolist()):
        assert int(got[3][i]) == n > 0
        for one, other in zip(got[:3], expected[:3]):
            torch.testing.assert_close(one[i, :n], other[i, :n], atol=1e-3, rtol=1e-4)


def raw_outputs(model, images):
    """Decoded boxes as fractions and foreground scores, from the detector's own parts."""
    regression, logits, anchors = model.forward_head(images)
    return model.postprocess.box_coder.decode(regression, anchors), logits.softmax(-1)[..., 1:]


def run_onnxruntime(path, feed):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: feed[node.name] for node in session.get_inputs()})


def run_openvino(path, feed):
    pytest.importorskip("openvino", reason="OpenVINO comes with the extra `openvino`")
    model = core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(model({port.any_name: feed[port.any_name] for port in model.inputs}).values())


def run_simplified(path, feed):
    onnxsim = pytest.importorskip("onnxsim", reason="onnxsim is not installed")
    import onnx

    model, same = onnxsim.simplify(onnx.load(path))
    assert same
    simplified = path.with_name(f"simplified_{path.name}")
    onnx.save(model, simplified)
    return run_onnxruntime(simplified, feed)


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """ONNX files by their number of images (None for any) and whether post-processing is inside, with the detectors."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    written = {}

    def export(name, batch_size, postprocess):
        key = (name, batch_size, postprocess)
        if key not in written:
            model = tiny(name, spread=30).eval()
            path = folder / f"{name}_{batch_size}_{postprocess}.onnx"
            export_onnx(model, path, batch_size=batch_size, postprocess=postprocess)
            written[key] = model, path
        return written[key]

    return export


@pytest.mark.parametrize(
    ("name", "batch_size", "postprocess"),
    [pytest.param("ssd", 2, True, marks=pytest.mark.slow), ("m2det", None, True), ("m2det", None, False)],
)
@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
def test_onnx_in_its_runtimes(exported, run, name, batch_size, postprocess):
    model, path = exported(name, batch_size, postprocess)
    for count in (1, 3) if batch_size is None else (batch_size,):
        images, sizes = inputs(count)
        got = [torch.from_numpy(value) for value in run(path, {"images": images.numpy(), "sizes": sizes.numpy()})]
        with torch.no_grad():
            if postprocess:
                assert_agree(got, model.forward_fixed(images, sizes))
            else:
                for one, other in zip(got, raw_outputs(model, images), strict=True):
                    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_onnx_without_postprocessing_is_simplified(exported):
    _, path = exported("m2det", None, False)
    feed = {"images": inputs(2)[0].numpy()}
    for one, other in zip(run_simplified(path, feed), run_onnxruntime(path, feed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_onnx_with_postprocessing_is_simplified(exported):
    """Slow, since onnxsim unrolls the loop of the suppression."""
    _, path = exported("ssd", 2, True)
    images, sizes = inputs(2)
    feed = {"images": images.numpy(), "sizes": sizes.numpy()}
    for one, other in zip(run_simplified(path, feed), run_onnxruntime(path, feed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_names_in_the_onnx_file(exported):
    onnx = pytest.importorskip("onnx")
    for postprocess, taken, given in ((True, ["images", "sizes"], FULL), (False, ["images"], RAW)):
        graph = onnx.load(exported("m2det", None, postprocess)[1]).graph
        assert [value.name for value in graph.input] == taken
        assert [value.name for value in graph.output] == list(given)
        assert all(value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output))


@pytest.mark.parametrize(
    ("name", "nms", "batch_size"), [pytest.param("ssd", "linear", 1, marks=pytest.mark.slow), ("m2det", "hard", None)]
)
def test_program(tiny, tmp_path, name, nms, batch_size):
    model = tiny(name, spread=30, postprocess_kwargs={"nms": nms}).eval()
    path = tmp_path / "detector.pt2"
    export_program(model, path, batch_size=batch_size)
    assert [file.name for file in tmp_path.iterdir()] == ["detector.pt2"]
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        for count in (1, 3) if batch_size is None else (batch_size,):
            assert_agree(loaded(*inputs(count)), model.forward_fixed(*inputs(count)))


def test_program_without_postprocessing(tiny, tmp_path):
    model = tiny(spread=30).eval()
    path = tmp_path / "detector.pt2"
    export_program(model, path, postprocess=False)
    program = torch.export.load(path)
    with torch.no_grad():
        for one, other in zip(program.module()(inputs()[0]), raw_outputs(model, inputs()[0]), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    pytest.importorskip("executorch", reason="ExecuTorch is not installed")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    method = Runtime.get().load_program(lowered.buffer).load_method("forward")
    for one, other in zip(method.execute([inputs()[0]]), raw_outputs(model, inputs()[0]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_suppression_is_checked_where_the_probe_shows_nothing(tiny, tmp_path, monkeypatch):
    import detectors.inference.export as export

    counts = []
    monkeypatch.setattr(export, "check_detections", lambda *arguments: counts.append(check(*arguments)) or counts[-1])
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


def test_disagreement_of_raw_outputs_is_found():
    boxes, scores = torch.rand(1, 5, 4), torch.rand(1, 5, 2)
    check_raw((boxes, scores), (boxes + 1e-4, scores))
    for got, what in (((boxes + 0.01, scores), "boxes"), ((boxes, scores - 0.01), "scores")):
        with pytest.raises(RuntimeError, match=f"disagrees with the detector on {what}"):
            check_raw((boxes, scores), got)
    with pytest.raises(RuntimeError, match="disagrees"):
        check_raw((boxes, scores), (boxes * torch.nan, scores))
    with pytest.raises(RuntimeError, match="gives scores of"):
        check_raw((boxes, scores), (boxes, scores[:, :4]))


def test_a_failed_check_leaves_no_file_and_keeps_the_old(tiny, tmp_path, monkeypatch):
    import detectors.inference.export as export

    def fail(*arguments):
        raise RuntimeError("the exported model disagrees")

    path = tmp_path / "detector.pt2"
    path.write_text("old")
    monkeypatch.setattr(export, "check_detections", fail)
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
    with pytest.raises(ValueError, match="at least 1, or None for any: got 0"):
        export_program(model, tmp_path / "detector.pt2", batch_size=0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_program(model, tmp_path / "none" / "detector.pt2")
    for export in (export_program, export_onnx):
        with pytest.raises(IsADirectoryError, match="is a folder: expected a file to write"):
            export(model, tmp_path)
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
    heavy = {"onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "matplotlib", "tyro", "accelerate"}
    heavy |= {"tensorboard", "faster_coco_eval"}
    code = "import sys; sys.modules['triton'] = None; import detectors; "
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
