"""`python -m detectors predict`: boxes in image files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from detectors.models.detector import Detector

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass
class Predict:
    """Detect objects in image files; draw them and write them to detections.json."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders of them (searched through) and patterns such as 'photos/*.jpg'."""
    checkpoint: Path
    """A run's folder, a saved detector, or a .pth checkpoint of M2Det's authors."""
    output: Path
    """Folder for the drawn images and detections.json."""
    threshold: float = 0.3
    """Draw boxes of at least this score. detections.json has all that the detector gives."""
    image_size: int = 512
    """Side to which images are stretched for the authors' checkpoints; others know theirs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU if there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network. Boxes and scores are always computed in fp32."""
    compile: bool = False
    """Compile the detector: worth its minute or more of waiting for many images."""

    def run(self) -> int:
        import torch
        from rich.progress import track

        from detectors.drawing import save_detections
        from detectors.saving import load

        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a score in 0..1: got {self.threshold}")
        files = find_images(self.inputs, self.output)
        detector = load(self.checkpoint, image_size=self.image_size).to(choose_device(self.device))
        deployed = detector.deploy(dtype=getattr(torch, PRECISIONS[self.precision]), compile=self.compile)
        names = detector.class_names or [str(label) for label in range(1, detector.num_classes)]
        self.output.mkdir(parents=True, exist_ok=True)
        drawings = drawing_paths(files, self.output)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        failures: list[str] = []
        for file, drawing in zip(track(files, "Detecting", disable=not sys.stderr.isatty()), drawings):
            try:
                image = read_tensor(file)
                detections = detect(deployed, image)
            except ValueError as error:
                failures.append(f"{file}: {error}")
                continue
            save_detections(drawing, image, detections, names, threshold=self.threshold)
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": str(file),
                    "height": image.shape[1],
                    "width": image.shape[2],
                    "drawing": drawing.name,
                }
            )
            annotations += coco_annotations(detections, image_id=len(images), first_id=len(annotations) + 1)
        categories = [{"id": label, "name": name} for label, name in enumerate(names, start=1)]
        written = {"images": images, "annotations": annotations, "categories": categories}
        write_json(self.output / "detections.json", written)
        print(f"{len(annotations)} detections in {len(images)} images: {self.output / 'detections.json'}")
        for failure in failures:
            print(f"error: {failure}", file=sys.stderr)
        return 1 if failures else 0


def find_images(inputs: tuple[str, ...], output: Path) -> list[Path]:
    """The files that inputs name, each once; what lies in `output` is not searched, lest a run read its own drawings.

    Raises:
        FileNotFoundError: for an input that names no file.
    """
    import glob

    from detectors.data.tree import Tree

    if not inputs:
        raise ValueError("name at least one image file, folder or pattern")
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            tree = Tree(path)
            files = [tree.path(file) for file in tree.pictures]
            files = [file for file in files if output.resolve() not in file.resolve().parents]
        elif path.exists():
            files = [path]
        else:
            files = [file for file in map(Path, sorted(glob.glob(text, recursive=True))) if file.is_file()]
        if not files:
            raise FileNotFoundError(f"{text} is no image file, no folder with images and no pattern that finds any")
        found.update(dict.fromkeys(files))
    return list(found)


def drawing_paths(files: list[Path], output: Path) -> list[Path]:
    """A PNG in `output` for every file, named after it, and numbered where names meet."""
    taken: set[str] = set()
    paths = []
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:  # file systems that ignore case would overwrite
            number += 1
            name = f"{file.stem}_{number}"
        taken.add(name.lower())
        paths.append(output / f"{name}.png")
    return paths


def choose_device(name: str) -> str:
    """`auto` as `cuda` or `cpu`.

    Raises:
        ValueError: for `cuda` where there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no CUDA GPU here: use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def read_tensor(file: Path) -> "Tensor":
    """An image file as uint8 RGB `(3, H, W)`.

    Raises:
        ValueError: for a file that cannot be decoded.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    from detectors.data.images import read_image

    try:
        image: Tensor = pil_to_tensor(read_image(file))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise ValueError(f"cannot be read as an image: {error}") from error
    return image


def detect(detector: "Detector", image: "Tensor") -> "dict[str, Tensor]":
    """Detections on the CPU for one uint8 image `(3, H, W)`."""
    [detections] = detector([image.to(detector.image_mean.device).float() / 255])
    return {key: value.cpu() for key, value in detections.items()}


def coco_annotations(detections: "dict[str, Tensor]", *, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Detections as COCO's annotations with a score: `bbox` is x, y, width, height in pixels."""
    boxes = detections["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detections["scores"].tolist(), detections["labels"].tolist())
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": label,
            "bbox": [round(value, 2) for value in box],
            "area": round(box[2] * box[3], 2),
            "iscrowd": 0,
            "score": score,
        }
        for i, (box, score, label) in enumerate(rows)
    ]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is whole before it takes its name."""
    import json
    import os

    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)
