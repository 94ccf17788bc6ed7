"""Image files of any kind as upright 8-bit pictures, and the check that a file can be decoded."""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from detectors.errors import InputError

_SUFFIXES = """.jpg .jpeg .jpe .jfif .png .apng .bmp .dib .webp .tif .tiff .gif .avif .avifs .jp2 .j2k .jpf .jpx .j2c
.jpc .mpo .ppm .pgm .pbm .pnm .tga .dds .pcx .sgi .ico .qoi .heic .heif .hif"""
SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes of the pictures that Pillow reads, those of HEIC with the package pillow-heif."""

_HEIC = frozenset({".heic", ".heif", ".hif"})

Channels = Literal[1, 3, 4]
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_LIMIT = "DETECTORS_MAX_PIXELS"
if os.environ.get(_LIMIT, "").isdecimal():
    # Pillow refuses pictures of more than twice this number; loader processes inherit the variable.
    Image.MAX_IMAGE_PIXELS = -(-int(os.environ[_LIMIT]) // 2)

_ORIENTATION_TAG = 0x0112
_FLOAT_PIXELS = "32-bit float pixels have no defined range; store 8- or 16-bit integers"


class Probe(NamedTuple):
    """Height and width of a picture as it is stored, and its EXIF orientation, 1 to 8."""

    height: int
    width: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width as the picture is to be seen."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def as_channels(count: int) -> Channels:
    """A number of channels as one that pictures are read with.

    Raises:
        ValueError: for another one.
    """
    if count not in _MODES:
        raise InputError(f"pictures are read with 1 channel (gray), 3 (RGB) or 4 (RGBA): got {count}")
    return count  # type: ignore[return-value]


def read_image(path: Path | str, channels: Channels = 3) -> Image.Image:
    """Read an image file as upright RGB, gray (1 channel) or RGBA (4).

    The EXIF orientation is applied. Gray, CMYK and palette pixels are converted; an alpha channel is dropped unless
    there are 4 channels (the colors under it stay, as in torchvision's decoder), and opaque where the file has none;
    16-bit gray is scaled from 0..65535 to 0..255. Of several frames the first counts.

    Raises:
        OSError: the file is missing, truncated or no image.
        ValueError: 32-bit float pixels, which have no defined range; or another number of channels.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "gray.png"
    >>> Image.new("L", (4, 3), 7).save(path)
    >>> read_image(path).getpixel((0, 0)), read_image(path, channels=1).getpixel((0, 0))
    ((7, 7, 7), 7)
    """
    mode = _MODES[as_channels(channels)]
    with _open(path) as image:
        converted = _convert(image, mode)
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing; the pixels may still be fine
        ImageOps.exif_transpose(converted, in_place=True)
    return converted


def probe_image(path: Path | str) -> Probe:
    """Size and orientation of an image file after decoding all of it.

    Raises:
        ValueError: the file cannot be used; the message is the reason.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            orientation = _orientation(image)
            if image.mode == "F":
                raise ValueError(_FLOAT_PIXELS)
            # An eighth of the resolution reads the whole JPEG stream, and so finds the same faults, in less time.
            image.draft("L", (1, 1))
            image.load()
            if _orientation(image) != orientation:  # Pillow itself turns a TIFF, at once or when it is decoded
                width, height = image.size if orientation <= 4 else image.size[::-1]
    except FileNotFoundError:
        raise ValueError("the image file is missing") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error} To read it, set the environment variable {_LIMIT} to a larger number") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and more.
        raise ValueError(f"the image cannot be decoded: {error}") from None
    return Probe(height, width, orientation)


def _open(path: Path | str) -> Image.Image:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _HEIC and os.path.exists(path) and not _knows_heic():
        raise ValueError(f"{suffix} files need the package pillow-heif: pip install pillow-heif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _knows_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found]
    except ImportError:
        return False
    register_heif_opener()
    return True


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # as above: a damaged EXIF block says nothing
        return 1
    return value if 1 <= value <= 8 else 1


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # I, I;16 and its byte orders: Pillow's own conversion clips at 255
        values = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
        gray = Image.fromarray((values / 257).round().astype(np.uint8)).convert(mode)
        gray.info.update(image.info)  # the orientation
        return gray
    if image.mode == "F":
        raise ValueError(_FLOAT_PIXELS)
    if image.mode == mode:
        image.load()  # convert() would copy
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # resolves a transparent palette without a warning
    return image.convert("RGB" if mode == "L" and image.mode == "RGBA" else mode).convert(mode)
