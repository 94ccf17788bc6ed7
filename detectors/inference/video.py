"""Video files frame by frame, by PyAV (the extra `video`)."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from detectors.errors import InputError

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})


class VideoReader:
    """The frames of a video file, upright, as uint8 RGB tensors `(3, H, W)`; iterate over it once.

    Raises:
        ImportError: without PyAV.
        ValueError: for a file that is not a video.
    """

    def __init__(self, path: Path) -> None:
        import av

        try:
            self._container: Any = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{path} cannot be read as a video: {error}") from error
        self.path = path
        self.rate: Fraction = self._stream.average_rate or Fraction(25)
        self.frames: int = self._stream.frames
        """Number of frames by the file's header; 0 where it has none."""

    def __iter__(self) -> Iterator[Tensor]:
        import av

        try:
            for frame in self._container.decode(self._stream):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))  # [H, W, 3]
                turns = round(frame.rotation / 90) % 4
                yield pixels.rot90(turns).permute(2, 0, 1).contiguous()
        except av.FFmpegError as error:
            raise InputError(f"{self.path} is damaged: {error}") from error
        finally:
            self._container.close()


class VideoWriter:
    """An MP4 file to which frames are written, uint8 RGB tensors `(3, H, W)` of one size; a context manager.

    A last odd row or column is left out: the pixel format of videos has none.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        import av

        self._container: Any = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream("mpeg4", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.bit_rate = 0
        self._stream.codec_context.options = {"qscale": "3"}
        self._sized = False

    def write(self, frame: Tensor) -> None:
        """Append a frame."""
        import av

        height, width = (side - side % 2 for side in frame.shape[1:])
        if not self._sized:
            self._stream.height, self._stream.width = height, width
            self._sized = True
        pixels = frame[:, :height, :width].permute(1, 2, 0).contiguous().numpy()
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
            self._container.mux(packet)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._sized:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
