"""Every kind of image file comes out as upright 8-bit RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detectors.data.images import probe_image, read_image

GRAY = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12) * 2


def colored(mode: str) -> Image.Image:
    return Image.fromarray(np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)).convert(mode)


def transparent_palette() -> Image.Image:
    image = colored("P")
    image.info["transparency"] = bytes([0, 128] + [255] * 254)
    return image


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        (colored("RGB"), "png"),
        (colored("RGB"), "webp"),
        (colored("RGB"), "bmp"),
        (colored("RGBA"), "png"),
        (colored("L"), "png"),
        (colored("LA"), "png"),
        (colored("1"), "png"),
        (colored("P"), "png"),
        (colored("P"), "gif"),
        (transparent_palette(), "png"),
        (colored("CMYK"), "tiff"),
        (colored("CMYK"), "jpg"),
        (colored("L"), "jpg"),
        (colored("YCbCr"), "jpg"),
        (colored("LAB"), "tiff"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
@pytest.mark.filterwarnings("error")
def test_modes_become_rgb(image: Image.Image, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    image.save(path, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    found = read_image(path)
    assert (found.mode, found.size) == ("RGB", (12, 8))
    assert probe_image(path).upright == (8, 12)
    expected = np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB")).astype(int)
    tolerance = 24 if suffix in ("jpg", "webp") else 0
    assert np.abs(np.asarray(found).astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize(("dtype", "suffix"), [("<u2", "png"), ("<u2", "tiff"), (">u2", "tiff"), ("<i4", "tiff")])
def test_sixteen_bits_are_scaled(dtype: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray((GRAY.astype(np.uint16) * 257).astype(dtype)).save(path)
    found = np.asarray(read_image(path))
    assert np.array_equal(found, np.repeat(GRAY[..., None], 3, axis=2))


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    Image.fromarray(GRAY.astype(np.float32)).save(path)
    with pytest.raises(ValueError, match="float pixels"):
        read_image(path)
    with pytest.raises(ValueError, match="float pixels"):
        probe_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((8, 12, 3), dtype=np.uint8)
    upright[:4, :6] = 255  # the top left quarter is white
    upright[:4, 6:] = (255, 0, 0)
    # The standard says which sides of the upright picture the stored first row and first column are.
    first_row = ("top", "top", "bottom", "bottom", "left", "right", "right", "left")[orientation - 1]
    first_column = ("left", "right", "right", "left", "top", "top", "bottom", "bottom")[orientation - 1]
    stored = upright if first_row in ("top", "bottom") else upright.transpose(1, 0, 2)
    stored = stored[::-1] if first_row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if first_column in ("bottom", "right") else stored
    path = tmp_path / "image.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), upright)
    assert probe_image(path).upright == (8, 12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_image_upright(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    colored("RGB").save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff\xff")
    assert read_image(path).size == (12, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff"])
def test_truncated_files_are_found(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be decoded"):
        probe_image(path)


def test_missing_and_foreign_files_are_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        probe_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "empty.png"):
        with pytest.raises(ValueError, match="cannot be decoded"):
            probe_image(tmp_path / name)
