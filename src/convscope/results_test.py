"""Results: files, JSON, and nothing half-written."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import views
from convscope.errors import MissingExtra, OutputError
from convscope.images import read_recipe
from convscope.results import Heatmap, Provenance, Result, Synthesis, contact_sheet, settle

VALUES = torch.tensor([[[0.5, -1.0], [2.0, 0.0]]])


def heat(values: torch.Tensor = VALUES) -> Heatmap:
    images = torch.full((len(values), 3, 2, 2), 0.25)
    summaries = [{"maximum": float(v.max())} for v in values]
    return Heatmap(values=values, images=images, signed=True, quantity="score", summaries=summaries)


def provenance() -> Provenance:
    return Provenance("test", {"gain": 2.0}, "net", "random", "conv1", 7, "float32", "cpu", ("a.jpg",), {"torch": "2"})


def test_settling_detaches_and_adds_provenance() -> None:
    result = settle(dataclasses.replace(heat(), values=VALUES.clone().requires_grad_() * 1), provenance())
    assert result.values.grad_fn is None
    assert result.provenance == provenance()


def test_one_summary_is_an_object_and_several_are_a_list() -> None:
    one = json.loads(settle(heat(), provenance()).to_json())
    assert one["maximum"] == 2.0
    assert one["provenance"]["options"] == {"gain": 2.0}
    assert one["provenance"]["seed"] == 7
    several = json.loads(settle(heat(torch.cat([VALUES, -VALUES])), provenance()).to_json())
    assert [o["maximum"] for o in several] == [2.0, 1.0]


def test_the_raw_file_holds_values_images_and_provenance(tmp_path: Path) -> None:
    path = settle(heat(), provenance()).save(tmp_path / "raw.npz")
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["values"], VALUES.numpy())
        np.testing.assert_array_equal(saved["images"], np.full((1, 3, 2, 2), 0.25, np.float32))
        assert json.loads(str(saved["provenance"]))["layer"] == "conv1"


def test_json_file(tmp_path: Path) -> None:
    path = settle(heat(), provenance()).save(tmp_path / "summary.json")
    assert json.loads(path.read_text())["provenance"]["technique"] == "test"


def test_an_unknown_suffix_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.html, \.jpeg, \.jpg, \.json, \.npz"):
        heat().save(tmp_path / "map.bmpx")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        heat().save(tmp_path / "nowhere" / "map.npz")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    old = tmp_path / "map.png"
    old.write_bytes(b"old")

    def breaks(_: Result) -> None:
        raise error

    monkeypatch.setattr(views, "figure", breaks)
    with pytest.raises(error):
        heat().save(old)
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]
    assert old.read_bytes() == b"old"


def test_values_can_be_had_as_an_array() -> None:
    np.testing.assert_array_equal(heat().numpy(), VALUES.numpy())


# ---- pictures that were made


def made(count: int = 1, **more: Any) -> Synthesis:
    values = torch.rand(count, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    return Synthesis(values=values, summaries=[{"target": "cat"}] * count, provenance=provenance(), **more)


def levels(values: torch.Tensor) -> np.ndarray:
    """(H, W, 3) of (3, H, W), rounded by hand."""
    return np.floor(values.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)


def test_one_picture_is_saved_as_it_is(tmp_path: Path) -> None:
    result = made()
    with Image.open(result.save(tmp_path / "x.png")) as saved:
        assert saved.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(saved), levels(result.values[0]))


def test_several_are_a_sheet_with_white_gaps(tmp_path: Path) -> None:
    result = made(3, columns=2)
    with Image.open(result.save(tmp_path / "x.png")) as saved:
        sheet = np.asarray(saved)
    assert sheet.shape == (12 + 4 + 12, 20 + 4 + 20, 3)
    for number, (top, left) in enumerate([(0, 0), (0, 24), (16, 0)]):
        np.testing.assert_array_equal(sheet[top : top + 12, left : left + 20], levels(result.values[number]))
    assert (sheet[12:16] == 255).all()
    assert (sheet[:, 20:24] == 255).all()
    assert (sheet[16:, 24:] == 255).all()


@pytest.mark.parametrize(
    ("count", "height", "width", "columns"),
    [(2, 64, 64, 2), (3, 64, 64, 2), (6, 64, 64, 3), (16, 64, 64, 4), (8, 10, 40, 2), (2, 400, 10, 2)],
)
def test_a_sheet_is_near_a_square(count: int, height: int, width: int, columns: int) -> None:
    rows = -(-count // columns)
    shape = contact_sheet(np.zeros((count, height, width, 3), np.uint8)).shape
    assert shape == (rows * (height + 4) - 4, columns * (width + 4) - 4, 3)


def test_a_png_carries_its_recipe(tmp_path: Path) -> None:
    found = read_recipe(made().save(tmp_path / "x.png"))
    assert found is not None
    assert json.loads(found) == json.loads(made().to_json())["provenance"]
    unknown = dataclasses.replace(made(), provenance=None)
    assert read_recipe(unknown.save(tmp_path / "x.png")) is None


def test_json_says_where_the_curve_began_and_ended() -> None:
    found = json.loads(made(2, trace=torch.tensor([[1.0, 2.0], [3.0, 5.0], [4.0, 9.0]])).to_json())
    assert [(o["steps"], o["objective_first"], o["objective_last"]) for o in found] == [(3, 1.0, 4.0), (3, 2.0, 9.0)]
    assert (found[0]["height"], found[0]["width"], found[0]["target"]) == (12, 20, "cat")
    assert "steps" not in json.loads(made().to_json())


def frames(count: int = 1) -> list[tuple[int, torch.Tensor]]:
    return [(step, torch.full((count, 3, 12, 20), 40 * step, dtype=torch.uint8)) for step in (1, 2, 3)]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_the_film_has_all_frames_and_the_picture(tmp_path: Path, suffix: str) -> None:
    result = made(2, frames=frames(2), columns=2)
    film = result.film()
    assert [frame.shape for frame in film] == [(12, 44, 3)] * 4
    assert [int(frame[0, 0, 0]) for frame in film[:3]] == [40, 80, 120]
    np.testing.assert_array_equal(film[3], result.sheet())
    assert result.save(tmp_path / f"x{suffix}").stat().st_size > 100
    if suffix != ".mp4":
        with Image.open(tmp_path / f"x{suffix}") as saved:
            assert saved.n_frames == 4


def test_without_frames_a_webp_is_the_picture(tmp_path: Path) -> None:
    with Image.open(made().save(tmp_path / "x.webp")) as saved:
        assert (saved.size, saved.n_frames) == ((20, 12), 1)


def test_a_last_frame_that_is_the_picture_is_not_shown_twice() -> None:
    result = made()
    last = torch.from_numpy(levels(result.values[0])).permute(2, 0, 1)[None]
    assert len(made(frames=[*frames(), (4, last)]).film()) == 4


def test_settling_takes_frames_and_curve_out_of_the_graph() -> None:
    grows = torch.ones(2, 1, requires_grad=True) * 2
    found = settle(made(trace=grows, originals=grows, frames=[(1, grows)]), provenance())
    assert isinstance(found, Synthesis)
    assert not any(t.requires_grad for t in (found.trace, found.originals, found.frames[0][1]))


def test_arrays_take_the_raw_values() -> None:
    found = np.asarray(heat())
    np.testing.assert_array_equal(found, VALUES.numpy())
    assert np.asarray(heat(), dtype=np.float16).dtype == np.float16
    copied = np.array(heat())
    copied[:] = 0
    assert VALUES.abs().sum() > 0


def test_tensorboard_gets_the_picture_and_the_words_of_a_folder_or_a_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    import convscope.views  # noqa: F401  draws results

    result = settle(heat(), provenance())
    result.log(tmp_path, step=3)
    with SummaryWriter(str(tmp_path)) as writer:
        result.log(writer, "mine", 4)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (first,), (second,) = events.Images("test"), events.Images("mine")
    assert (first.step, second.step) == (3, 4)
    with Image.open(io.BytesIO(first.encoded_image_string)) as logged:
        np.testing.assert_array_equal(np.asarray(logged.convert("RGB")), np.asarray(result.picture()))
    text = events.Tensors("mine/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"gain": 2.0' in text


def test_without_tensorboard_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'convscope\[monitor\]'"):
        heat().log(tmp_path)


def test_in_a_line_a_result_says_what_it_is_and_not_all_its_numbers() -> None:
    assert repr(settle(heat(), provenance())) == "<Heatmap by test: values (1, 2, 2)>"
