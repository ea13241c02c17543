from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope import films, progress
from convscope.errors import ImageError, OutputError

av = pytest.importorskip("av")


def make(path: Path, frames: int = 6, *, sound: bool = True) -> Path:
    """A film of 48 x 36 pixels, ten frames a second, whose frames are grey and ever lighter; with a tone or without."""
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 48, 36, "yuv420p"
        audio = film.add_stream("aac", rate=44100) if sound else None
        for number in range(frames):
            picture = np.full((36, 48, 3), 30 * number, np.uint8)
            film.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(video.encode())
        for start in range(0, 20480 if audio else 0, 1024):
            tone = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            film.mux(audio.encode(frame))
        if audio:
            film.mux(audio.encode())
    return path


def read(path: Path) -> tuple[list[float], list[np.ndarray], bytes]:
    """Times, frames and coded sound."""
    with av.open(str(path)) as film:
        found = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in film.decode(video=0)]
    with av.open(str(path)) as film:
        sound = [bytes(p) for p in film.demux(audio=0) if p.size] if film.streams.audio else []
    return [time for time, _ in found], [frame for _, frame in found], b"".join(sound)


def test_every_frame_is_changed_and_timing_and_sound_stay(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4")
    made = films.changed(source, tmp_path / "out.mp4", lambda frame: 1 - frame)
    before, after = read(source), read(tmp_path / "out.mp4")
    assert (made.frames, made.size) == (6, (36, 48))
    assert made.rate == pytest.approx(6 / made.seconds)
    assert after[0] == before[0] == pytest.approx([n / 10 for n in range(6)])
    for old, new in zip(before[1], after[1], strict=True):
        assert abs(255 - old.mean() - new.mean()) < 3
    assert after[2] == before[2] != b""


def test_odd_sides_are_continued(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", 2, sound=False)
    assert films.changed(source, tmp_path / "out.mp4", lambda frame: frame[:, :35, :47]).size == (36, 48)
    frame = read(tmp_path / "out.mp4")[1][1]
    assert np.abs(frame.astype(int) - 30).max() < 6


def test_progress_counts_frames(tmp_path: Path) -> None:
    told = []
    with progress.listening(lambda now: told.extend((loop.done, loop.total) for loop in now.loops)):
        films.changed(make(tmp_path / "in.mp4"), tmp_path / "out.mp4", lambda frame: frame)
    assert told[-1] == (6, 6)


@pytest.mark.parametrize("name", ["text.mp4", "none.mp4", "sound.mp4"])
def test_what_is_no_film_gets_a_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    with av.open(str(tmp_path / "sound.mp4"), "w") as film:
        audio = film.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        film.mux(audio.encode(frame))
        film.mux(audio.encode())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageError, match=name):
        films.changed(tmp_path / name, tmp_path / "out.mp4", lambda frame: frame)
    assert sorted(tmp_path.iterdir()) == before


def test_a_stop_leaves_nothing_half_written(tmp_path: Path) -> None:
    def stops(frame: Tensor) -> Tensor:
        if float(frame.mean()) > 0.2:
            raise KeyboardInterrupt
        return frame

    source = make(tmp_path / "in.mp4")
    with pytest.raises(KeyboardInterrupt):
        films.changed(source, tmp_path / "out.mp4", stops)
    assert list(tmp_path.iterdir()) == [source]
    with pytest.raises(OutputError, match=r"written as \.mp4"):
        films.changed(source, tmp_path / "out.gif", torch.clone)
