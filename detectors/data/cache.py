"""Results that are kept between sessions in the user's cache folder: sizes of decoded pictures, unpacked archives.

The folder is `feature-pyramids` in `$XDG_CACHE_HOME`, or in `~/.cache`; it may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detectors.atomic import write_atomically
from detectors.data.images import Probe, probe_image
from detectors.errors import InputError

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows how far an iterable of a known length has come."""


def cache_folder() -> Path:
    """The folder of kept results."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "feature-pyramids"


def probe_pictures(
    paths: Sequence[str], root: Path, *, cache: bool = True, progress: Progress | None = None
) -> list[Probe | str]:
    """Size and orientation of every picture after decoding it on all cores, or the reason why it cannot be used.

    A picture that was decoded before and has the same path, size in bytes and modification time is not decoded again.

    Args:
        paths: of the pictures.
        root: of the data, which has one file in the cache.
        cache: False neither reads nor writes the cache.
        progress: wraps what is decoded.
    """
    file = cache_folder() / "pictures" / f"{_digest(str(root.resolve()))}.json"
    cached = _read(file) if cache else {}
    keys = [_key(path) for path in paths] if cache else [None] * len(paths)
    probes: dict[str, Probe | str] = {}
    for path, key in zip(paths, keys):
        entry = cached.get(path)
        if key is not None and entry is not None and tuple(entry[:2]) == key:
            probes[path] = Probe(*entry[2:])
    pending = [path for path in dict.fromkeys(paths) if path not in probes]
    if pending:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
            results: Iterable[Any] = pool.map(_probe, pending)
            probes.update(zip(pending, progress(results, len(pending)) if progress is not None else results))
        if cache:
            known = {
                path: [*key, *probes[path]] for path, key in zip(paths, keys) if key and isinstance(probes[path], Probe)
            }
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not results
                file.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps({**cached, **known})
                write_atomically(file, lambda partial: partial.write_text(text, encoding="utf-8"))
    return [probes[path] for path in paths]


def unpacked(archive: Path) -> Path:
    """The folder with a zip archive's content, unpacked once; the only folder in it, if there is but one.

    Raises:
        ValueError: the file is not a zip archive, or is damaged, or the disk is full.
    """
    stat = archive.stat()
    folder = cache_folder() / "archives" / _digest(f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            with zipfile.ZipFile(archive) as opened:
                for entry in opened.infolist():
                    entry.filename = entry.filename.replace("\\", "/")  # old packers of Windows
                    opened.extract(entry, partial)
            with contextlib.suppress(OSError):  # another process was quicker
                partial.rename(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise InputError(f"{archive} cannot be unpacked: {error}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    inner = [path for path in folder.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _probe(path: str) -> Probe | str:
    try:
        return probe_image(path)
    except ValueError as error:
        return str(error)


def _key(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return stat.st_size, stat.st_mtime_ns


def _read(file: Path) -> dict[str, list[int]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
