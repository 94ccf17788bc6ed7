"""A detector from whatever a user has of it: a run's folder, a saved detector, or the authors' 2019 checkpoint."""

from pathlib import Path

from detectors.models.ssd import SSD

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def open_detector(path: str | Path, *, image_size: int = 512) -> SSD:
    """Load a detector for inference from a folder or a file.

    Args:
        path: a run's folder (its `best`, or else its `last`), a folder of `save_pretrained`, the `model.safetensors` in
            such a folder, or a `.pth` checkpoint of M2Det's authors.
        image_size: the side in pixels to which images are stretched for a checkpoint of the authors, which does not say
            it (they trained 320, 512 and 800); other detectors know theirs.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if what is there is no detector, or a damaged one.

    >>> import tempfile
    >>> from detectors import create_detector
    >>> folder = tempfile.mkdtemp()
    >>> create_detector("ssd", 3, backbone="resnet18", neck="fpn", image_size=64).save_pretrained(folder)
    >>> open_detector(folder).num_classes
    3
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.is_dir():
        return _open_folder(path)
    if path.name == WEIGHTS:
        return _load(path.parent)
    if path.suffix == ".safetensors":
        raise ValueError(f"{path} says nothing about its detector: name the folder that holds {WEIGHTS} and {CONFIG}")
    from detectors.released import load_released_checkpoint

    return load_released_checkpoint(path, image_size=image_size)


def _open_folder(folder: Path) -> SSD:
    for candidate in (folder / "best", folder / "last", folder):
        if (candidate / WEIGHTS).exists():
            return _load(candidate)
    raise ValueError(f"{folder} holds no detector: expected best/{WEIGHTS}, last/{WEIGHTS} or {WEIGHTS} in it")


def _load(folder: Path) -> SSD:
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder / WEIGHTS} has no {CONFIG} beside it that says which detector it belongs to")
    detector: SSD = SSD.from_pretrained(folder)
    return detector
