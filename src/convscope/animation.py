"""Pictures one after another as a film: GIF and WebP through Pillow, MP4 through PyAV (the extra ``video``)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from convscope.errors import OutputError
from convscope.extras import require
from convscope.images import atomic_write

Frame: TypeAlias = npt.NDArray[np.uint8]

FORMATS = (".gif", ".webp", ".mp4")
"""Suffixes of the files that :func:`write_film` writes."""

RATE = 12.0  # frames a second
HOLD = 1.5  # seconds of the last frame


def write_film(
    frames: Sequence[Frame], path: str | os.PathLike[str], *, rate: float = RATE, hold: float = HOLD
) -> None:  # fmt: skip
    """Write frames as a film that repeats (GIF, WebP) or plays once (MP4), by the suffix; whole or not at all.

    Args:
        frames: each (H, W, 3). Those of another size are scaled to the last one's.
        path: GIF has 256 colours a frame; WebP and MP4 lose next to nothing.
        rate: frames a second.
        hold: seconds for which the last frame stays.

    An MP4 needs sides of even length: a row or column is repeated where they are odd.

    Raises:
        OutputError: no frames, another suffix, or a place that cannot be written to.
        MissingExtra: an MP4 without PyAV.
    """
    writers = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}
    writer = writers.get(Path(path).suffix.lower())
    if writer is None:
        raise OutputError(f"{os.fspath(path)}: films are written as {', '.join(FORMATS)}; end the name in one")
    if not len(frames):
        raise OutputError(f"{os.fspath(path)}: there are no frames to write; make some with --every")
    with atomic_write(path) as temporary:
        writer(_alike(frames), temporary, rate, hold)


def webp_film(frames: Sequence[Frame], *, side: int, quality: int) -> bytes:
    """Frames as a small animated WebP for pages, their longer side at most ``side`` pixels."""
    pictures, buffer = _alike(frames), io.BytesIO()
    for picture in pictures:
        picture.thumbnail((side, side))
    _webp(pictures, buffer, RATE, HOLD, quality)
    return buffer.getvalue()


def _alike(frames: Sequence[Frame]) -> list[Image.Image]:
    height, width = frames[-1].shape[:2]
    size = width, height
    pictures = [Image.fromarray(frame) for frame in frames]
    return [p if p.size == size else p.resize(size, Image.Resampling.BICUBIC) for p in pictures]


def _durations(count: int, rate: float, hold: float) -> list[int]:
    """Milliseconds of each frame."""
    return [round(1000 / rate)] * (count - 1) + [max(round(1000 * hold), round(1000 / rate))]


def _gif(pictures: list[Image.Image], path: Path, rate: float, hold: float) -> None:
    # A palette for each frame: one for all would show bands in the last picture, which has the most colours.
    indexed = [p.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG) for p in pictures]
    options = {"duration": _durations(len(pictures), rate, hold), "loop": 0, "disposal": 1, "optimize": False}
    indexed[0].save(path, "GIF", save_all=True, append_images=indexed[1:], **options)


def _webp(pictures: list[Image.Image], path: Path | IO[bytes], rate: float, hold: float, quality: int = 90) -> None:
    options = {"duration": _durations(len(pictures), rate, hold), "loop": 0, "quality": quality, "method": 4}
    pictures[0].save(path, "WEBP", save_all=True, append_images=pictures[1:], **options)


def _mp4(pictures: list[Image.Image], path: Path, rate: float, hold: float) -> None:
    av = require("av", "video")
    frames = [_even(np.asarray(picture)) for picture in pictures]
    frames += [frames[-1]] * (math.ceil(hold * rate) - 1)
    with av.open(str(path), "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"  # what every player takes
        stream.options = {"crf": "16", "preset": "medium"}
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())


def _even(frame: Frame) -> Frame:
    down, right = (side % 2 for side in frame.shape[:2])
    return np.ascontiguousarray(np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge"))
