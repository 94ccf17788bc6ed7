"""The page to try a detector: what it reads and refuses, its HTTP API, and the page in a headless browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from detectors import InputError, create_detector, save
from detectors.cli import main
from detectors.commands.serve import COLUMNS, Viewer

ROOT = Path(__file__).parents[2]
SMALL = {"num_levels": 1, "num_scales": 4, "channels": 16}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A detector with random weights that are sure of many boxes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pets")
    detector = create_detector(
        "m2det", 4, backbone="resnet10t", image_size=160, neck_kwargs=SMALL, class_names=["cat", "dog", "emu"]
    )
    for layer in detector.head.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=2.0)
            torch.nn.init.zeros_(layer.bias)  # the background is as likely as the classes
    save(detector, folder)
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.effect_noise((200, 120), 80).convert("RGB").save(file)
    return file


class TestViewer:
    @pytest.fixture(scope="class")
    def viewer(self, saved: Path) -> Viewer:
        from detectors import load

        return Viewer(load(saved).deploy(), max_megabytes=0.2, max_megapixels=0.03)

    def test_boxes_above_the_threshold_are_listed(self, viewer, picture):
        found = viewer.find(picture)
        scores = found.detections["scores"]
        assert len(scores) > 3
        least = float(scores[2])
        drawn, rows, times = viewer.show(found, least)
        assert drawn.shape == (120, 200, 3)
        assert len(rows) == int((scores >= least).sum())
        assert all(len(row) == len(COLUMNS) and row[0] in viewer.names for row in rows)
        assert f"{len(rows)} of {len(scores)} boxes in 200x120 pixels" in times
        assert viewer.show(found, 1.0)[1] == []

    def test_a_picture_upright_by_its_exif_orientation(self, viewer, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (60, 30), "red").save(tmp_path / "turned.jpg", exif=exif)
        assert viewer.read(tmp_path / "turned.jpg").shape == (3, 60, 30)

    def test_what_is_refused(self, viewer, tmp_path):
        files = {
            "text.png": (b"no picture at all", "is not a picture"),
            "empty.png": (b"", "is not a picture"),
            # Pillow would start Ghostscript for this one.
            "page.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "is not a picture"),
            "page.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "is not a picture"),
            "large.png": (bytes(300_000), r"0\.3 MB: at most 0\.2"),
        }
        for name, (content, message) in files.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=message):
                viewer.find(tmp_path / name)

    def test_a_picture_of_many_pixels_is_refused_before_it_is_decoded(self, viewer, tmp_path, monkeypatch):
        Image.new("L", (3000, 2000)).save(tmp_path / "wide.png")
        monkeypatch.setattr("detectors.commands.predict.read_tensor", None)
        with pytest.raises(InputError, match=r"3000x2000 pixels: at most 0\.03 million"):
            viewer.find(tmp_path / "wide.png")

    def test_a_truncated_picture_is_refused(self, viewer, picture, tmp_path):
        (tmp_path / "half.png").write_bytes(picture.read_bytes()[:1000])
        with pytest.raises(InputError, match="cannot be read as an image"):
            viewer.find(tmp_path / "half.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "1.5"], "--threshold is a score in 0..1: got 1.5"),
        (["--max-megabytes", "0"], "--max-megabytes is above 0: got 0"),
        (["--checkpoint", "nothing/at/all"], "no checkpoint at nothing/at/all"),
    ],
)
def test_bad_options_are_one_line(options, message, saved, capsys):
    given = [] if "--checkpoint" in options else ["--checkpoint", str(saved)]
    assert main(["serve", *given, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(saved: Path) -> Iterator[str]:
    """The page as `python -m detectors serve` serves it, with a limit of 0.2 MB."""
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install 'feature-pyramids[serve]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "detectors", "serve", "--checkpoint", str(saved), "--port", str(port)]
    command += ["--max-megabytes", "0.2", "--max-megapixels", "1", "--threshold", "0.2", "--device", "cpu"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Tests that run in the background of a shell ignore it, and so would the server.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as server:
        assert server.stdout is not None
        said = next((line for line in server.stdout if "serving" in line), "")
        try:
            assert f"at http://127.0.0.1:{port}/" in said
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
    assert server.returncode == 0


def upload(address: str, file: Path) -> str:
    """The path under which the server keeps a file."""
    edge = "edge-of-a-part"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, kind)) as answer:
        [path] = json.load(answer)
    return path


def call(address: str, path: str, threshold: float) -> tuple[str, Any]:
    """The event and the data that `/detect` answers with."""
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, threshold]}
    kind = {"Content-Type": "application/json"}
    url = f"{address}/gradio_api/call/detect"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(data).encode(), kind)) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=60) as answer:
        lines = dict(line.split(": ", 1) for line in answer.read().decode().splitlines() if ": " in line)
    return lines["event"], json.loads(lines["data"])


@pytest.mark.slow
class TestServer:
    def test_the_api_gives_boxes_of_the_command_line(self, address, saved, picture, tmp_path):
        event, (*_, drawn, table, times) = call(address, upload(address, picture), 0.2)
        assert event == "complete"
        command = ["predict", "--checkpoint", str(saved), "--output", str(tmp_path), "--min-score", "0.2", str(picture)]
        assert main(command) == 0
        expected = json.loads((tmp_path / "detections.json").read_text())
        assert table["headers"] == COLUMNS
        assert len(table["data"]) == len(expected) > 0
        for (_, score, x1, y1, x2, _), entry in zip(table["data"], expected):
            assert score == pytest.approx(entry["score"], abs=1e-3)
            assert [x1, y1, x2 - x1] == pytest.approx(entry["bbox"][:3], abs=0.15)
        assert "detecting" in times
        with urllib.request.urlopen(drawn["url"]) as answer:
            assert Image.open(answer).size == (200, 120)

    @pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:9/photo.png", "detectors/cli.py"])
    def test_only_uploaded_files_are_read(self, address, path):
        assert call(address, path, 0.2)[0] == "error"

    def test_files_of_the_server_are_not_given_away(self, address, saved):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}/gradio_api/file={saved}/config.json")

    def test_a_file_beyond_the_limit_is_refused(self, address, tmp_path):
        (tmp_path / "large.png").write_bytes(bytes(300_000))
        with pytest.raises(urllib.error.HTTPError, match="413"):
            upload(address, tmp_path / "large.png")

    def test_other_addresses_are_not_listened_at(self, address):
        port = int(address.rpartition(":")[2])
        with socket.socket() as other:
            other.settimeout(5)
            assert other.connect_ex(("127.0.0.2", port)) != 0

    def test_the_page_in_a_browser(self, address, picture, tmp_path):
        api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install playwright")
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("Chromium is not installed (no chromium on the path, and CHROMIUM names none)")
        (tmp_path / "text.png").write_bytes(b"no picture")
        counted = "() => (document.querySelector('#times')?.innerText.match(/^(\\d+) of/) || [])[1]"
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            view = browser.new_page(viewport={"width": 1280, "height": 900})
            elsewhere: list[str] = []
            view.on(
                "request",
                lambda asked: (
                    None if asked.url.startswith((address, "data:", "blob:")) else elsewhere.append(asked.url)
                ),
            )
            view.goto(address)
            view.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
            view.set_input_files("input[type=file]", picture)
            view.wait_for_function(counted, timeout=60_000)
            before = int(view.evaluate(counted))
            size = view.locator("img").first.evaluate(
                "async image => {await image.decode(); return image.naturalWidth}"
            )
            assert size == 200
            number = view.locator("input[type=number]")
            number.fill("1")
            number.press("Enter")
            view.wait_for_function(f"() => ({counted})() === '0'", timeout=30_000)
            assert before > 0
            view.reload()
            view.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
            view.set_input_files("input[type=file]", tmp_path / "text.png")
            view.get_by_text("the file is not a picture").wait_for(timeout=30_000)
            browser.close()
        assert not elsewhere
