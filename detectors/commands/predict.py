"""`python -m detectors predict`: boxes in image and video files."""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from detectors.commands.options import DetectorOptions
from detectors.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from detectors.inference.results import Found
    from detectors.models.detector import Detector


@dataclass(kw_only=True)
class Predict(DetectorOptions):
    """Detect objects in image and video files; draw them and write them to a file.

    The folder gets a drawing of each file, the detections, and images.json: the images with their ids and the classes,
    in COCO's layout.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image and video files, folders of images (searched through) and patterns such as 'photos/*.jpg'. Videos need the
    extra `video`."""
    output: Path
    """Folder for the drawings and the detections."""
    format: Literal["coco", "supervision", "csv"] = "coco"
    """coco: detections.json as COCO.loadRes takes it; supervision: detections.json with the fields of its JSONSink;
    csv: detections.csv with a row per detection."""
    min_score: float = 0.0
    """Write detections of at least this score."""
    threshold: float = 0.3
    """Draw boxes of at least this score."""
    annotations: Path | None = None
    """A COCO file that names the images: its image ids are written. Otherwise images count from 1."""
    compile: bool = False
    """Compile the detector: it takes a minute or more, and is worth it for many images."""

    def run(self) -> int:
        from detectors.inference.results import SUFFIXES, write_results
        from detectors.training.run_log import write_json

        for name, value in (("threshold", self.threshold), ("min-score", self.min_score)):
            if not 0 <= value <= 1:
                raise InputError(f"--{name} is a score in 0..1: got {value}")
        files = find_inputs(self.inputs, self.output)
        ids = None if self.annotations is None else read_image_ids(self.annotations)
        detector = self.open()
        deployed = self.deploy(detector, compile=self.compile)
        names = detector.class_names or [str(label) for label in range(1, detector.num_classes)]
        categories = detector.category_ids or list(range(1, detector.num_classes))
        self.output.mkdir(parents=True, exist_ok=True)
        session = Session(deployed, names, self.threshold, self.min_score, ids)
        session.run(files, drawing_paths(files, self.output))

        results = self.output / f"detections{SUFFIXES[self.format]}"
        write_results(results, session.found, self.format, names, categories)
        listed = [{"id": number, "name": name} for number, name in zip(categories, names)]
        write_json(self.output / "images.json", {"images": session.images, "annotations": [], "categories": listed})
        count = sum(len(one.detections["scores"]) for one in session.found)
        print(f"{count} detections in {len(session.found)} images, {session.speed():.1f} images/s: {results}")
        for failure in session.failures:
            print(f"error: {failure}", file=sys.stderr)
        return 1 if session.failures else 0


class Session:
    """Detects in files one after the other, draws, and collects what it finds.

    Args:
        detector: deployed.
        names: of the classes.
        threshold: minimum score of a drawn box.
        min_score: minimum score of a detection that is kept.
        ids: image ids by file name; None counts from 1.
    """

    def __init__(
        self,
        detector: "Detector",
        names: list[str],
        threshold: float,
        min_score: float,
        ids: dict[str, int] | None,
    ) -> None:
        self.detector, self.names = detector, names
        self.threshold, self.min_score, self.ids = threshold, min_score, ids
        self.found: list[Found] = []
        self.images: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._seconds = 0.0

    def speed(self) -> float:
        """Images per second, reading and drawing included."""
        return len(self.found) / self._seconds if self._seconds else 0.0

    def run(self, files: list[Path], drawings: list[Path]) -> None:
        """Go through the files; one that cannot be read is noted in `failures`."""
        from detectors.commands.progress import progress_bar

        began = time.perf_counter()
        # The number of frames of a video is not known before its last one.
        total = None if any(map(is_video, files)) else len(files)
        with progress_bar(total) as self._advance:
            for file, drawing in zip(files, drawings):
                self._file(file, drawing)
        self._seconds = time.perf_counter() - began

    def _file(self, file: Path, drawing: Path) -> None:
        try:
            if is_video(file):
                self._video(file, drawing)
            else:
                self._image(file, drawing)
        except InputError as error:
            self.failures.append(f"{file}: {error}")

    def _image(self, file: Path, drawing: Path) -> None:
        from detectors.drawing import save_detections

        image = read_tensor(file, len(self.detector.image_mean))
        detections = detect(self.detector, image)
        save_detections(drawing, image, detections, self.names, threshold=self.threshold)
        self._keep(str(file), image, detections, drawing)

    def _video(self, file: Path, drawing: Path) -> None:
        from detectors.drawing import draw_detections
        from detectors.inference.video import VideoReader, VideoWriter

        reader = VideoReader(file)
        with VideoWriter(drawing, reader.rate) as writer:
            for number, frame in enumerate(reader):
                detections = detect(self.detector, with_channels(frame, len(self.detector.image_mean)))
                writer.write(draw_detections(frame, detections, self.names, threshold=self.threshold))
                self._keep(f"{file}#{number}", frame, detections, drawing)

    def _keep(self, name: str, image: "Tensor", detections: "dict[str, Tensor]", drawing: Path) -> None:
        from detectors.inference.results import Found

        number = len(self.found) + 1 if self.ids is None else _image_id(name, self.ids)
        kept = detections["scores"] >= self.min_score
        self.found.append(Found(number, name, {key: value[kept] for key, value in detections.items()}))
        height, width = image.shape[1:]
        size = {"height": height, "width": width}
        self.images.append({"id": number, "file_name": name, **size, "drawing": drawing.name})
        self._advance(1)


def is_video(file: Path) -> bool:
    """Whether a file's name says that it is a video."""
    from detectors.inference.video import SUFFIXES

    return file.suffix.lower() in SUFFIXES


def read_image_ids(file: Path) -> dict[str, int]:
    """Image ids by file name in a COCO file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a COCO file.
    """
    import json

    try:
        images = json.loads(file.read_text(encoding="utf-8"))["images"]
        return {str(image["file_name"]): int(image["id"]) for image in images}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a COCO file with images: {error!r}") from None


def _image_id(name: str, ids: dict[str, int]) -> int:
    """The id of the image whose name in the COCO file ends the path `name`."""
    path = Path(name)
    for count in range(1, len(path.parts) + 1):
        known = ids.get("/".join(path.parts[-count:]))
        if known is not None:
            return known
    raise InputError("is not among the images of --annotations")


def find_inputs(inputs: tuple[str, ...], output: Path) -> list[Path]:
    """Input files, each once; files in `output` are skipped, so that a run does not read its own drawings.

    Raises:
        FileNotFoundError: for an input that names no file.
    """
    import glob

    from detectors.data.tree import Tree

    if not inputs:
        raise InputError("name at least one image file, folder or pattern")
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            tree = Tree(path)
            videos = [file for file in path.rglob("*") if is_video(file)]
            files = sorted([*(tree.path(file) for file in tree.pictures), *videos])
            files = [file for file in files if output.resolve() not in file.resolve().parents]
            kept = set(files)
            skipped = [file for file in map(tree.path, tree.files) if file not in kept]
            print_skipped(path, [file for file in skipped if output.resolve() not in file.resolve().parents])
        elif path.exists():
            files = [path]
        else:
            files = [file for file in map(Path, sorted(glob.glob(text, recursive=True))) if file.is_file()]
        if not files:
            raise FileNotFoundError(
                f"{text} is not an image or video file, a folder of them or a pattern that matches any"
            )
        found.update(dict.fromkeys(files))
    return list(found)


def print_skipped(folder: Path, files: list[Path]) -> None:
    """Say how many files of a folder are skipped, by suffix, since some may be pictures of a kind that is not read."""
    if files:
        counts = Counter(file.suffix.lower() or "without a suffix" for file in files).most_common()
        shown = ", ".join(f"{count} {suffix}" for suffix, count in counts[:10])
        more = f" and {len(counts) - 10} more kinds" if len(counts) > 10 else ""
        text = f"{folder}: {len(files)} files that are not images or videos by their names are skipped"
        print(f"note: {text}: {shown}{more}", file=sys.stderr)


def drawing_paths(files: list[Path], output: Path) -> list[Path]:
    """A PNG in `output` for every image, an MP4 for every video, named after it, and numbered where names meet."""
    taken: set[str] = set()
    paths = []
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:  # file systems that ignore case would overwrite
            number += 1
            name = f"{file.stem}_{number}"
        taken.add(name.lower())
        paths.append(output / (f"{name}.mp4" if is_video(file) else f"{name}.png"))
    return paths


def read_tensor(file: Path, channels: int = 3) -> "Tensor":
    """An image file as uint8 `(channels, H, W)`: gray, RGB or RGBA.

    Raises:
        ValueError: for a file that cannot be decoded, or another number of channels.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    from detectors.data.images import as_channels, read_image

    known = as_channels(channels)
    try:
        image: Tensor = pil_to_tensor(read_image(file, known))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise InputError(f"cannot be read as an image: {error}") from error
    height, width = image.shape[1:]
    if min(height, width) < 2:
        raise InputError(f"is {width}x{height} pixels: a detector needs at least 2x2")
    return image


def with_channels(frame: "Tensor", channels: int) -> "Tensor":
    """An RGB frame `(3, H, W)` as a detector of 1 (gray), 3 or 4 channels (opaque) takes it, uint8 `(channels, H, W)`.

    Raises:
        ValueError: for another number of channels.
    """
    import torch
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    from detectors.data.images import as_channels

    if as_channels(channels) == 4:
        return torch.cat([frame, torch.full_like(frame[:1], 255)])
    gray: Tensor = rgb_to_grayscale(frame) if channels == 1 else frame
    return gray


def detect(detector: "Detector", image: "Tensor") -> "dict[str, Tensor]":
    """Detections on the CPU for one uint8 image `(C, H, W)`."""
    [detections] = detector([image.to(detector.image_mean.device).float() / 255])
    return {key: value.cpu() for key, value in detections.items()}
