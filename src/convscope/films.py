"""Films in and out, frame by frame, through PyAV (the extra ``video``): a picture's function becomes a film's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope import progress
from convscope.errors import ImageError, OutputError
from convscope.extras import require
from convscope.images import atomic_write, to_uint8

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Suffixes, in lower case, of the files that are taken for films."""


def is_film(path: str | os.PathLike[str]) -> bool:
    """Whether a file is taken for a film, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Made:
    """What became of a film: how many frames, of (height, width), and in how many seconds."""

    frames: int
    size: tuple[int, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a second, read, changed and written."""
        return self.frames / max(self.seconds, 1e-9)


def changed(source: str | os.PathLike[str], target: str | os.PathLike[str], change: Callable[[Tensor], Tensor]) -> Made:
    """Write ``source`` with every frame changed, as an MP4 with its timing and its sound; whole or not at all.

    Args:
        source: any film that FFmpeg reads.
        target: ends in .mp4. A row or column is repeated where the sides are odd, as the format asks for.
        change: (3, H, W) in [0, 1] to a picture; all of one size.

    Raises:
        ImageError: no film, or none that can be read to its end.
        OutputError: another suffix, or a place that cannot be written to.
        MissingExtra: PyAV is not installed.
    """
    av = require("av", "video")
    if Path(target).suffix.lower() != ".mp4":
        raise OutputError(f"{os.fspath(target)}: films are written as .mp4; end the name in it")
    began = time.perf_counter()
    with _opened(av, source) as film, atomic_write(target) as temporary, av.open(str(temporary), "w", "mp4") as copy:
        writer = _Writer(av, film, copy)
        _fill(av, writer, film, change, os.fspath(source))
        writer.finish()
    if writer.size is None:
        raise ImageError(f"{os.fspath(source)} holds no frames; give a film that plays")
    return Made(writer.frames, writer.size, time.perf_counter() - began)


@contextmanager
def _opened(av: Any, source: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        film = av.open(os.fspath(source))
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(f"{os.fspath(source)} cannot be read as a film ({error.strerror or error})") from error
    with film:
        if not film.streams.video:
            raise ImageError(f"{os.fspath(source)} holds no pictures that move; give a film")
        yield film


def _fill(av: Any, writer: _Writer, film: Any, change: Callable[[Tensor], Tensor], name: str) -> None:
    """Every packet of the film: frames changed, sound handed on."""
    video = film.streams.video[0]
    with progress.counting("frames", video.frames or _estimate(video)) as counter:
        try:
            for packet in film.demux(*writer.streams):
                if packet.stream.type == "audio":
                    writer.hand_on(packet)
                    continue
                for frame in packet.decode():
                    image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float() / 255
                    writer.write(to_uint8(change(image)), frame)
                    counter.done()
        except av.error.InvalidDataError as error:
            raise ImageError(f"{name} is truncated or damaged ({error.strerror}); fetch it again") from error


def _estimate(video: Any) -> int:
    """Frames of a stream that does not say how many it has."""
    seconds = float((video.duration or 0) * (video.time_base or 0))
    return max(1, round(seconds * float(video.average_rate or 25)))


class _Writer:
    """The film that is made: H.264, with the sound of the other where an MP4 can hold it."""

    def __init__(self, av: Any, film: Any, copy: Any) -> None:
        self._av, self._copy = av, copy
        self._source = film.streams.video[0]
        self.frames = 0
        self.size: tuple[int, int] | None = None
        self._video = copy.add_stream("libx264", rate=self._source.average_rate or 25)
        self._sound = self._sound_of(film)
        self._waiting: list[Any] = []
        self.streams = [self._source, *([film.streams.audio[0]] if self._sound else [])]

    def _sound_of(self, film: Any) -> Any:
        if not film.streams.audio or film.streams.audio[0].codec_context.name not in ("aac", "mp3", "ac3", "alac"):
            return None
        return self._copy.add_stream_from_template(film.streams.audio[0])

    def write(self, picture: np.ndarray, like: Any) -> None:
        """A frame (H, W, 3), shown when ``like`` was."""
        picture = np.pad(picture, (*((0, side % 2) for side in picture.shape[:2]), (0, 0)), mode="edge")
        if self.size is None:
            self._begin(picture.shape[0], picture.shape[1])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = like.pts, like.time_base
        self._copy.mux([*self._video.encode(frame), *self._waiting])
        self._waiting.clear()
        self.frames += 1

    def _begin(self, height: int, width: int) -> None:
        self.size = (height, width)
        self._video.height, self._video.width = height, width
        self._video.pix_fmt = "yuv420p"  # what every player takes
        self._video.options = {"crf": "18", "preset": "veryfast"}
        self._video.codec_context.time_base = self._source.time_base

    def hand_on(self, packet: Any) -> None:
        """Sound, as it is; kept back until there is a frame, since the first packet closes the list of streams."""
        if packet.dts is None:
            return
        packet.stream = self._sound
        if self.size is None:
            self._waiting.append(packet)
        else:
            self._copy.mux(packet)

    def finish(self) -> None:
        """What the encoder still holds."""
        if self.size is not None:
            self._copy.mux(self._video.encode())
