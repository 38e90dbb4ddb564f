"""Probes of images, sound and tensors. This module alone knows the libraries of the extra `media`.

Their C code decodes what strangers wrote, so only the confined probe worker calls these probes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from prefect_stagegate.errors import MissingExtra, install_hint
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty

if TYPE_CHECKING:
    import soundfile
    from PIL.Image import Image

MOST_PIXELS = 89_478_485
"""Pixels of an image, as Pillow's own limit: a quarter of a GiB in RGB."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
"""The formats of images that are opened. Pillow knows others, and starts another program for some of them."""
BLOCK = 1 << 20
"""Samples of sound that are decoded at a time, over all channels."""
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_OGG = "lacks an end-of-stream bit"
_STREAMED = 2**32 - 1
"""What a WAV's header says when its writer could not go back to fill in the length."""


def release(probe: str) -> str:
    """The release of the library that decodes for a probe.

    Raises:
        MissingExtra: The library is not installed.
    """
    try:
        if probe == "image":
            import PIL

            return f"pillow {PIL.__version__}"
        if probe == "numpy":
            return f"numpy {version('numpy')}"
        if probe == "safetensors":
            from safetensors import __version__

            return f"safetensors {__version__}"
        import soundfile
    except (ImportError, OSError) as error:  # OSError: soundfile without its C library
        raise MissingExtra(f"The library for the probe {probe} is not installed", hint=install_hint("media")) from error
    return f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}"


def image(
    path: Path,
    *,
    mode: str | None = None,
    min_size: Sequence[int] | None = None,
    max_size: Sequence[int] | None = None,
) -> Facts:
    """Every frame of the image decodes: JPEG, PNG, GIF, BMP, TIFF, WebP, PPM, JPEG 2000 or AVIF.

    An image of more than 89,478,485 pixels is refused. Settings: `mode`, `min_size` and `max_size`. Needs the extra
    `media`.
    """
    pillow = _pillow()
    with _decoding("image"):
        actual, size = _decode_image(path, pillow)
    if mode is not None and actual != mode:
        raise UnreadableFile(f"its mode is {actual}, and the contract says {mode}", "Convert it at its source.")
    _check_size(size, min_size or (1, 1), max_size or size)
    return Facts()


@cache
def _pillow() -> ModuleType:
    from PIL import Image

    # Each core has a worker, and the threads' stacks would count as its memory.
    with suppress(ImportError):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return Image


def _decode_image(path: Path, pillow: ModuleType) -> tuple[str, tuple[int, int]]:
    try:
        with pillow.open(path, formats=FORMATS) as picture:
            if picture.format != "PNG":
                return _decode_frames(picture)
            picture.verify()  # the checksums up to its end: all pixels decode without the last bytes
        with pillow.open(path, formats=FORMATS) as picture:
            return _decode_frames(picture)
    except pillow.UnidentifiedImageError:
        nonempty(path)
        raise UnreadableFile(f"it is no image of a known format ({', '.join(FORMATS)})") from None
    except pillow.DecompressionBombError as error:
        raise UnreadableFile(f"too many pixels to decode safely: {first_line(error)}") from error


def _decode_frames(picture: Image) -> tuple[str, tuple[int, int]]:
    """Decode every frame; returns the mode and the size of the first."""
    mode, size = picture.mode, picture.size
    for frame in range(getattr(picture, "n_frames", 1)):
        picture.seek(frame)
        _check_pixels(*picture.size)
        picture.load()
    return mode, size


def _check_pixels(width: int, height: int) -> None:
    """Refuse an image of which Pillow only warns: it fails beyond twice the limit."""
    if width * height > MOST_PIXELS:
        raise UnreadableFile(f"too many pixels to decode safely: {width:,} × {height:,}, of at most {MOST_PIXELS:,}")


def _check_size(size: Sequence[int], least: Sequence[int], most: Sequence[int]) -> None:
    for side, given, minimum, maximum in zip(("wide", "high"), size, least, most, strict=True):
        if not minimum <= given <= maximum:
            bound = f"at least {minimum:,}" if given < minimum else f"at most {maximum:,}"
            raise UnreadableFile(
                f"it is {given:,} pixels {side}, and the contract says {bound}", "Replace it at its source."
            )


def audio(path: Path) -> Facts:
    """The sound decodes to its end and has at least one frame: WAV, FLAC, Ogg, MP3, AIFF and others of libsndfile.

    Needs the extra `media`.
    """
    nonempty(path)
    import soundfile

    with _decoding("sound"), soundfile.SoundFile(path) as sound:
        frames = 0
        while frames < sound.frames and (block := _decode_block(sound, frames)):
            frames += block
        expected, log = sound.frames, sound.extra_info
    if frames < max(1, expected):
        raise UnreadableFile(f"truncated: {frames:,} of {expected:,} frames decode")
    _check_log(log)
    return Facts()


def _decode_block(sound: soundfile.SoundFile, done: int) -> int:
    """The number of frames that the next block decodes to."""
    frames = min(max(1, BLOCK // sound.channels), sound.frames - done)
    return len(sound.read(frames, dtype="float32", always_2d=True))


def _check_log(log: str) -> None:
    """Refuse a file that libsndfile calls truncated in its log, although it decodes what is there."""
    cut = _CUT_WAV.search(log)
    if cut and int(cut[1]) > int(cut[2]) and int(cut[1]) != _STREAMED:
        raise UnreadableFile(f"truncated: {int(cut[2]):,} of {count_text(int(cut[1]), 'byte')} of sound are there")
    if _CUT_OGG in log:
        raise UnreadableFile("truncated: its last page is missing")


def safetensors(path: Path) -> Facts:
    """The header is that of safetensors, and its tensors fill the rest of the file without overlap or hole.

    Needs the extra `media`.
    """
    nonempty(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return Facts()
    except SafetensorError as error:
        reason = first_line(error).removeprefix("Error while deserializing header: ")
        raise UnreadableFile(f"its header doesn't fit the file: {reason}") from error


@contextmanager
def _decoding(kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises about a damaged file into the file's defect."""
    try:
        yield
    except (UnreadableFile, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the node could not read it
        raise UnreadableFile(f"its {kind} can't be decoded: {first_line(error)}") from error
