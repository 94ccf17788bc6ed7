"""`python -m detectors serve`: a page in the browser on which a detector can be tried."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detectors.commands.options import DetectorOptions
from detectors.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detectors.models.detector import Detector

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO", "AVIF")
"""Pillow's formats that the page takes: those of photographs. Some of its others start further programs."""
COLUMNS = ["class", "score", "x1", "y1", "x2", "y2"]
_KEPT_SECONDS = 1800
"""How long pictures of visitors are kept."""


@dataclass(kw_only=True)
class Serve(DetectorOptions):
    """Open a page to try a detector: drop a picture, move the score threshold, see boxes and times.

    The page is for this machine alone unless --host says otherwise. Needs the extra `serve`.
    """

    host: str = "127.0.0.1"
    """Address to listen at. With 0.0.0.0 everybody who reaches this machine can use the page."""
    port: int | None = None
    """Port to listen at; the first free one from 7860 on if not given."""
    threshold: float = 0.3
    """Draw boxes of at least this score, until the page's slider is moved."""
    max_megabytes: float = 20.0
    """Refuse larger files."""
    max_megapixels: float = 50.0
    """Refuse pictures of more pixels."""

    def run(self) -> int:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"--threshold is a score in 0..1: got {self.threshold}")
        if self.port is not None and not 0 < self.port < 2**16:
            raise InputError(f"--port lies between 1 and 65535: got {self.port}")
        for name, value in (("megabytes", self.max_megabytes), ("megapixels", self.max_megapixels)):
            if not value > 0:
                raise InputError(f"--max-{name} is above 0: got {value}")
        deployed = self.deploy(self.open())
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # the page asks no other host for anything
        try:
            import gradio
        except ImportError as error:
            raise InputError(f"the page needs {error.name}: pip install 'feature-pyramids[train,serve]'") from error
        session = Viewer(deployed, self.max_megabytes, self.max_megapixels)
        session.warm_up()
        page = build_page(session, self.threshold, title=f"Detector: {Path(self.checkpoint).name}")
        _, address, _ = page.launch(
            server_name=self.host,
            server_port=self.port,
            share=False,
            max_file_size=int(self.max_megabytes * 1e6),
            prevent_thread_lock=True,
            quiet=True,
            footer_links=["api"],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            state_session_capacity=100,
            theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
        print(f"serving {self.checkpoint} at {address}", flush=True)
        if self.host not in ("127.0.0.1", "localhost", "::1"):
            print(
                f"warning: {self.host} is reachable from other machines, and the page asks for no password",
                file=sys.stderr,
            )
        page.block_thread()
        return 0


class Found(NamedTuple):
    """A picture `(C, H, W)` in uint8, all its detections, and the milliseconds for reading and for detecting."""

    image: "Tensor"
    detections: "dict[str, Tensor]"
    reading_ms: float
    detecting_ms: float


class Viewer:
    """Reads files, detects and draws for the page.

    Args:
        detector: deployed.
        max_megabytes: largest size of a file.
        max_megapixels: largest size of a picture.
    """

    def __init__(self, detector: "Detector", max_megabytes: float, max_megapixels: float) -> None:
        self.detector = detector
        self.max_megabytes, self.max_megapixels = max_megabytes, max_megapixels
        self.names = detector.class_names or [f"class {label}" for label in range(1, detector.num_classes)]

    def warm_up(self) -> None:
        """Detect in a picture of noise, so that the first visitor's times are those of all."""
        import torch

        from detectors.commands.predict import detect

        for _ in range(2):
            detect(self.detector, torch.randint(0, 256, (len(self.detector.image_mean), 240, 320), dtype=torch.uint8))

    def read(self, file: Path) -> "Tensor":
        """A picture, uint8 `(C, H, W)`; its size is known before its pixels are decoded.

        Raises:
            InputError: for a file that is too large, a picture of too many pixels, or no picture.
        """
        from PIL import Image

        from detectors.commands.predict import read_tensor

        size = file.stat().st_size / 1e6
        if size > self.max_megabytes:
            raise InputError(f"the file has {size:.1f} MB: at most {self.max_megabytes:g} are taken")
        try:
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
            raise InputError("the file is not a picture: JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF are taken") from error
        if width * height > self.max_megapixels * 1e6:
            raise InputError(
                f"the picture has {width}x{height} pixels: at most {self.max_megapixels:g} million are taken"
            )
        try:
            return read_tensor(file, len(self.detector.image_mean))
        except ValueError as error:
            raise InputError(f"the picture {error}") from error

    def find(self, file: Path) -> Found:
        """All detections in a picture file; errors as of `read`."""
        from detectors.commands.predict import detect

        began = time.perf_counter()
        image = self.read(file)
        read = time.perf_counter()
        detections = detect(self.detector, image)
        return Found(image, detections, 1e3 * (read - began), 1e3 * (time.perf_counter() - read))

    def show(self, found: Found, threshold: float) -> tuple[Any, list[list[Any]], str]:
        """Detections of at least `threshold`: the drawing as an array `(H, W, 3)`, rows of `COLUMNS`, and times."""
        from detectors.drawing import draw_detections

        began = time.perf_counter()
        drawn = draw_detections(found.image, found.detections, self.names, threshold).permute(1, 2, 0).numpy()
        drawing_ms = 1e3 * (time.perf_counter() - began)
        rows = [
            [self.names[label - 1], round(score, 3), *(round(side, 1) for side in box)]
            for label, score, box in zip(*(found.detections[key].tolist() for key in ("labels", "scores", "boxes")))
            if score >= threshold
        ]
        height, width = found.image.shape[1:]
        times = (
            f"{len(rows)} of {len(found.detections['scores'])} boxes in {width}x{height} pixels. Reading "
            f"{found.reading_ms:.0f} ms, detecting {found.detecting_ms:.0f} ms, drawing {drawing_ms:.0f} ms."
        )
        return drawn, rows, times


def build_page(viewer: Viewer, threshold: float, title: str) -> Any:
    """The page as gradio's `Blocks`; `/detect` is its function in the HTTP API."""
    import gradio

    def detect(file: str | None, least: float) -> tuple[Any, Any, Any, Any]:
        if file is None:
            return None, None, None, ""
        try:
            found = viewer.find(Path(file))
        except InputError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        return (found, *viewer.show(found, least))

    def redraw(found: Found | None, least: float) -> tuple[Any, Any, Any]:
        return (None, None, "") if found is None else viewer.show(found, least)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)) as page:
        gradio.Markdown(f"# {title}")
        found = gradio.State(time_to_live=_KEPT_SECONDS)
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="Picture", file_types=["image"], height=160)
                least = gradio.Slider(0, 1, threshold, step=0.01, label="Minimum score", buttons=[])
                times = gradio.Markdown(elem_id="times")
            with gradio.Column(scale=2):
                drawn = gradio.Image(
                    label="Detections", format="png", interactive=False, buttons=["download", "fullscreen"]
                )
                table = gradio.Dataframe(headers=COLUMNS, label="Boxes, in pixels", interactive=False, max_height=260)
        shown = [drawn, table, times]
        file.change(detect, [file, least], [found, *shown], api_name="detect", show_progress="minimal")
        least.change(
            redraw, [found, least], shown, api_visibility="private", show_progress="hidden", trigger_mode="always_last"
        )
    return page
