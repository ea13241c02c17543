"""Films: read back frame by frame, sizes, times, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from convscope import animation
from convscope.animation import Frame, write_film
from convscope.errors import MissingExtra, OutputError


def plain(level: int, height: int = 34, width: int = 50) -> Frame:
    frame = np.full((height, width, 3), level, np.uint8)
    frame[: height // 2, :, 0] = 255 - level
    return frame


FRAMES = [plain(level) for level in (0, 60, 120, 180, 240)]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_pillow_reads_every_frame_and_its_time(tmp_path: Path, kind: str) -> None:
    write_film(FRAMES, tmp_path / f"film.{kind}", rate=10, hold=1.5)
    times = []
    with Image.open(tmp_path / f"film.{kind}") as film:
        for frame, expected in zip(ImageSequence.Iterator(film), FRAMES, strict=True):
            off = np.asarray(frame.convert("RGB")).astype(int) - expected
            assert np.abs(off).mean() < 5
            times.append(frame.info["duration"])
    assert times == [100, 100, 100, 100, 1500]


def test_an_mp4_holds_the_frames_and_the_last_one_for_a_while(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_film(FRAMES, tmp_path / "film.mp4", rate=10, hold=1.5)
    with av.open(str(tmp_path / "film.mp4")) as film:
        stream = film.streams.video[0]
        assert float(stream.average_rate) == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert len(frames) == 4 + 15
    for frame, expected in zip(frames[:5], FRAMES, strict=True):
        assert np.abs(frame.astype(int) - expected).mean() < 4
    assert np.abs(frames[-1].astype(int) - FRAMES[-1]).mean() < 4


def test_odd_sides_of_an_mp4_are_repeated(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_film([plain(100, 33, 51)], tmp_path / "film.mp4", hold=0)
    with av.open(str(tmp_path / "film.mp4")) as film:
        (frame,) = film.decode(video=0)
        assert (frame.height, frame.width) == (34, 52)


def test_frames_of_another_size_take_that_of_the_last(tmp_path: Path) -> None:
    write_film([plain(40, 17, 25), plain(40)], tmp_path / "film.webp")
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames == 2
        assert film.size == (50, 34)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - plain(40)).mean() < 6


def test_one_picture_is_a_film_too(tmp_path: Path) -> None:
    write_film(FRAMES[:1], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (50, 34)


@pytest.mark.parametrize(
    ("frames", "name", "message"),
    [
        (FRAMES, "film.avi", r"films are written as \.gif, \.webp, \.mp4"),
        ([], "film.gif", "there are no frames to write; make some with --every"),
        (FRAMES, "nowhere/film.gif", "there is no folder"),
    ],
)
def test_what_cannot_be_written_gets_a_sentence(tmp_path: Path, frames: list[Frame], name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write_film(frames, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_command_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingExtra(f"this needs {module}: pip install 'convscope[{extra}]'")

    monkeypatch.setattr(animation, "require", absent)
    with pytest.raises(MissingExtra, match=r"convscope\[video\]"):
        write_film(FRAMES, tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())
