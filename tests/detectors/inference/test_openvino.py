"""OpenVINO as the engine: the detector's contract and numbers, and its files."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image

from detectors import SSD
from detectors.cli import main
from detectors.data import SyntheticScales, export_coco
from detectors.errors import InputError
from detectors.inference.export import export_program
from detectors.inference.multiscale import MultiScale
from detectors.inference.packing import can_pack
from detectors.inference.quantize import export_openvino

openvino = pytest.importorskip("openvino", reason="OpenVINO comes with the extra `openvino`")

SIZES = torch.tensor([[48, 80], [64, 64]])


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("m2det", spread=30, class_names=["cat", "dog", "emu"]).eval()


@pytest.fixture(scope="module")
def deployed(model):
    return model.deploy(engine="openvino")


def batch(count=2):
    torch.manual_seed(3)
    return torch.rand(count, 3, 64, 64)


def assert_same(got, expected):
    assert got[3].tolist() == expected[3].tolist()
    assert got[3].min() > 0
    for one, other in zip(got[:3], expected[:3]):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_detections_are_the_originals(model, deployed):
    for count in (2, 1):
        assert_same(
            deployed.forward_fixed(batch(count), SIZES[:count]), model.forward_fixed(batch(count), SIZES[:count])
        )
    images = [torch.rand(3, 48, 80), torch.rand(3, 64, 64)]
    for ours, theirs in zip(deployed(images), model(images), strict=True):
        assert len(theirs["boxes"]) > 0
        assert sorted(ours) == sorted(theirs)
        torch.testing.assert_close(ours["scores"], theirs["scores"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=1e-2, rtol=1e-4)
    assert (deployed.class_names, deployed.image_size) == (["cat", "dog", "emu"], (64, 64))


# A signal that is not handled well ends the process, so this needs one of its own.
FREED = """
import copy, faulthandler, os, signal, torch
from detectors import create_detector

faulthandler.enable()  # gives the thread an alternate signal stack, as pytest does
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
model = create_detector("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64).deploy(engine="openvino")
for order in ((0, 1), (1, 0)):
    alive = [copy.deepcopy(model) for _ in order]
    for detector in alive:
        detector([torch.rand(3, 64, 64)])
    del detector
    for index in order:
        alive[index] = None
    os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
def test_a_signal_is_handled_in_whatever_order_detectors_went():
    finished = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "handled\n" * 2), finished.stderr


def test_copies_and_pickles_give_the_same_detections(deployed):
    expected = deployed.forward_fixed(batch(), SIZES)
    for other in (copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed))):
        assert all(torch.equal(a, b) for a, b in zip(other.forward_fixed(batch(), SIZES), expected, strict=True))


def test_few_batch_sizes_are_kept_compiled(deployed):
    deployed = copy.deepcopy(deployed)
    for count in range(1, 7):
        deployed.forward_fixed(batch(count), SIZES[:1].expand(count, 2))
    assert list(deployed._compiled) == [3, 4, 5, 6]


def test_results_are_not_overwritten_by_the_next_call(deployed):
    first = deployed.forward_fixed(batch(), SIZES)
    kept = [value.clone() for value in first]
    deployed.forward_fixed(1 - batch(), SIZES)
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_the_network_in_a_file(model, tiny, tmp_path):
    path = tmp_path / "network.xml"
    export_openvino(model, path)
    assert_same(
        model.deploy(engine="openvino", network=path).forward_fixed(batch(), SIZES),
        model.forward_fixed(batch(), SIZES),
    )
    with pytest.raises(ValueError, match="network of another detector"):
        tiny("m2det", num_classes=5).deploy(engine="openvino", network=path)
    with pytest.raises(ValueError, match=r"\.xml file with a \.bin"):
        model.deploy(engine="openvino", network=tmp_path / "network.bin")


def test_int8_stays_close(model, deployed, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="NNCF comes with the extra `openvino`")
    monkeypatch.setattr("detectors.inference.quantize.convert", lambda detector: deployed.network.model())
    path = tmp_path / "int8.xml"
    calibration = [batch(4), 1 - batch(4)]
    export_openvino(model, path, calibration=calibration)
    quantized = model.deploy(engine="openvino", network=path)
    network = quantized.network.model()
    kinds = [node.get_type_name() for node in network.get_ops()]
    assert kinds.count("FakeQuantize") > 10
    with torch.no_grad():
        regression, logits, anchors = model.forward_head(batch(4))
    boxes, scores = quantized.run_network(batch(4))
    expected = model.postprocess.box_coder.decode(regression, anchors)
    assert (boxes - expected).abs().mean() < 0.02
    assert (scores - logits.softmax(-1)[..., 1:]).abs().mean() < 0.05
    # Eight bits of an image's width are too coarse for a box: nothing is quantized after the predictors.
    waiting, seen = [port.get_node() for port in network.outputs], set()
    while waiting:
        node = waiting.pop()
        assert node.get_type_name() != "FakeQuantize"
        if node.get_type_name() != "Convolution" and node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            waiting += [port.get_source_output().get_node() for port in node.inputs()]
    assert len(seen) > 10


# Where the processor multiplies in bfloat16, `auto` is that, of 8 bits.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("auto", 2e-2)])
def test_predict_with_the_engine(model, deployed, tmp_path, monkeypatch, precision, tolerance):
    monkeypatch.setattr("detectors.inference.openvino.convert", lambda detector: deployed.network.model())
    model.save_pretrained(tmp_path / "saved")
    pixels = (batch(1)[0].permute(1, 2, 0) * 255).round().byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    output = tmp_path / "found"
    words = ["predict", str(tmp_path / "photo.png"), "--checkpoint", str(tmp_path / "saved"), "--output", str(output)]
    assert main([*words, "--engine", "openvino", "--precision", precision]) == 0
    found = [one["score"] for one in json.loads((output / "detections.json").read_text())]
    with torch.no_grad():
        [expected] = model([pixels.permute(2, 0, 1).float() / 255])
    torch.testing.assert_close(torch.tensor(found), expected["scores"], atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """Circles, squares and triangles under the names of the model's classes."""
    folder = tmp_path_factory.mktemp("data")
    export_coco(folder, {"val": SyntheticScales(6, image_size=64, min_size=16, max_size=48, complexities=(0,))})
    text = (folder / "val.json").read_text()
    for name, other in zip(("circle", "square", "triangle"), model.class_names):
        text = text.replace(name, other)
    (folder / "val.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def figures(model, data, tmp_path_factory):
    """Figures of `eval` with some options."""
    folder = tmp_path_factory.mktemp("eval")
    model.save_pretrained(folder / "saved")

    def evaluate(*words):
        options = ["--data", str(data), "--checkpoint", str(folder / "saved"), "--json", str(folder / "f")]
        options += ["--pictures", str(folder / "pictures"), "--device", "cpu"]
        assert main(["eval", *options, *words]) == 0
        pictures = sorted(file.name for file in (folder / "pictures").iterdir())
        assert pictures == ["detections.png", "pr.png"]
        for name in pictures:
            (folder / "pictures" / name).unlink()
        return json.loads((folder / "f").read_text())

    return evaluate


@pytest.mark.parametrize("words", [[], ["--engine", "openvino"], ["--precision", "bf16"], ["--network"]])
def test_eval_measures_the_network_that_is_asked_for(figures, model, deployed, network, monkeypatch, words):
    ways = []
    deploy = SSD.deploy
    monkeypatch.setattr("detectors.inference.openvino.convert", lambda detector: deployed.network.model())
    monkeypatch.setattr(SSD, "deploy", lambda self, **kw: ways.append(kw) or deploy(self, **kw))
    if words == ["--precision", "bf16"] and not can_pack(torch.bfloat16):
        pytest.skip("this processor has no bfloat16")
    if words == ["--network"]:
        words = ["--engine", "openvino", "--network", str(network)]
    expected, found = figures(), figures(*words)
    assert expected["AP50"] > 0
    assert found["AP50"] == pytest.approx(expected["AP50"], abs=0.02 if "bf16" in words else 1e-3)
    chosen = {"engine": "torch", "dtype": torch.float32, "network": None, "compile": False}
    changes = {"--engine": ("engine", "openvino"), "--precision": ("dtype", torch.bfloat16)}
    chosen |= dict(changes[word] for word in words if word in changes)
    assert ways == ([chosen | {"network": network if "--network" in words else None}] if words else [])


@pytest.mark.parametrize("command", ["eval", "predict", "serve"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "openvino", "--device", "cuda"], "--engine openvino runs on the CPU: got --device cuda"),
        (["--network", "int8.xml"], "a network in a file is for engine='openvino': got network=int8.xml"),
        (["--engine", "openvino", "--network", "gone.xml"], "no file gone.xml: a network of OpenVINO is"),
    ],
)
def test_bad_engines_are_refused_by_every_command(model, data, command, words, told, tmp_path, capsys):
    model.save_pretrained(tmp_path / "saved")
    places = {
        "predict": [str(data), "--output", str(tmp_path / "out")],
        "eval": ["--data", str(data)],
        "serve": [],
    }
    assert main([command, *places[command], "--checkpoint", str(tmp_path / "saved"), *words]) == 2
    assert told in capsys.readouterr().err


def test_bad_requests(model, deployed, tiny, tmp_path):
    with pytest.raises(ValueError, match="engine is 'torch' or 'openvino': got 'tensorrt'"):
        model.deploy(engine="tensorrt")
    with pytest.raises(ValueError, match="OpenVINO compiles every network"):
        model.deploy(engine="openvino", compile=True)
    with pytest.raises(ValueError, match="for engine='openvino'"):
        model.deploy(network="network.xml")
    with pytest.raises(ValueError, match="float64"):
        model.deploy(engine="openvino", dtype=torch.float64)
    with pytest.raises(ValueError, match="images of one size"):
        tiny(image_size=None).deploy(engine="openvino")
    with pytest.raises(ValueError, match=r"takes images of \(64, 64\): got \(32, 64\)"):
        deployed.forward_fixed(torch.rand(1, 3, 32, 64), SIZES[:1])
    with pytest.raises(ValueError, match="image 1 has values from 255 to 255"):
        deployed.forward_fixed(torch.cat([batch(1), torch.full_like(batch(1), 255)]), SIZES)
    with pytest.raises(ValueError, match="cannot be trained"):
        deployed.train()
    with pytest.raises(TypeError, match="export takes the SSD or M2Det itself: got a OpenVINODetector"):
        export_program(deployed, tmp_path / "deployed.pt2")
    with pytest.raises(TypeError, match="OpenVINODetector takes images of one size"):
        MultiScale(deployed)
    with pytest.raises(ValueError, match=r"an \.xml and a \.bin"):
        export_openvino(model, tmp_path / "network.onnx")
    with pytest.raises(ValueError, match="at least one image"):
        export_openvino(model, tmp_path / "network.xml", calibration=[])
    assert not list(tmp_path.iterdir())


def test_a_precision_that_the_processor_lacks_is_told(model, deployed, monkeypatch):
    monkeypatch.setattr("detectors.inference.openvino.convert", lambda detector: deployed.network.model())
    monkeypatch.setattr(openvino.Core, "get_property", lambda *arguments: ["FP32"])
    with pytest.warns(UserWarning, match=r"no instructions for torch.bfloat16: OpenVINO computes in float32"):
        model.deploy(engine="openvino", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def network(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.xml"
    export_openvino(model, path)
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda graph, weights: (b"junk", weights),
        lambda graph, weights: (b"", b""),
        lambda graph, weights: (graph[: len(graph) // 2], weights),
        lambda graph, weights: (graph, weights[:-4]),
        lambda graph, weights: (graph.replace(b"Convolution", b"Revolution"), weights),
    ],
)
def test_a_damaged_network_is_named(model, network, tmp_path, damage):
    graph, weights = damage(network.read_bytes(), network.with_suffix(".bin").read_bytes())
    path = tmp_path / "damaged.xml"
    path.write_bytes(graph)
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(InputError, match=r"^.*damaged\.xml and its \.bin are not a complete OpenVINO network: [^\n]+$"):
        model.deploy(engine="openvino", network=path)


@pytest.mark.parametrize("gone", ["network.xml", "network.bin"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_part_of_a_network_is_named(model, network, tmp_path, gone, folder):
    for file in (network, network.with_suffix(".bin")):
        if file.name != gone:
            (tmp_path / file.name).write_bytes(file.read_bytes())
        elif folder:
            (tmp_path / file.name).mkdir()
    told = rf"^no file .*{gone}: a network of OpenVINO is an \.xml file with a \.bin beside it$"
    with pytest.raises(FileNotFoundError, match=told):
        model.deploy(engine="openvino", network=tmp_path / "network.xml")


@pytest.mark.parametrize("name", ["network.xml", "network.bin"])
def test_a_folder_in_the_place_of_a_file(model, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=rf"{name} is a folder"):
        export_openvino(model, tmp_path / "network.xml")
