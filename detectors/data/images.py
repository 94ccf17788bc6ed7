"""Image files of any kind as upright 8-bit RGB, and the check that a file can be decoded."""

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})


def read_image(path: Path | str) -> Image.Image:
    """Read an image file as upright RGB.

    The EXIF orientation is applied. Gray, CMYK and palette pixels are converted; an alpha channel is dropped (the
    colors under it stay, as in torchvision's decoder); 16-bit gray is scaled from 0..65535 to 0..255. Of several frames
    the first counts.

    Raises:
        OSError: the file is missing, truncated or no image.
        ValueError: 32-bit float pixels, which have no defined range.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "gray.png"
    >>> Image.new("L", (4, 3), 7).save(path)
    >>> read_image(path).getpixel((0, 0))
    (7, 7, 7)
    """
    with Image.open(path) as image:
        orientation = _orientation(image)
        rgb = _to_rgb(image)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def probe_image(path: Path) -> tuple[int, int]:
    """Upright (height, width) of an image file after decoding all of it.

    Raises:
        ValueError: the file cannot be used; the message is the reason.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = _orientation(image)
            if image.mode == "F":
                raise ValueError(_FLOAT_PIXELS)
            # An eighth of the resolution reads the whole JPEG stream, and so finds the same damage, in less time.
            image.draft("L", (1, 1))
            image.load()
    except FileNotFoundError:
        raise ValueError("the image file is missing") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and more.
        raise ValueError(f"the image cannot be decoded: {error}") from None
    return (width, height) if orientation in _SWAPS_SIDES else (height, width)


_FLOAT_PIXELS = "32-bit float pixels have no defined range; store 8- or 16-bit integers"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # A damaged EXIF block says nothing; the pixels may still be fine.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # I, I;16 and its byte orders: Pillow's own conversion clips at 255
        values = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError(_FLOAT_PIXELS)
    if image.mode == "RGB":
        image.load()  # convert() would copy
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # resolves a transparent palette without a warning
    return image.convert("RGB")
